// Parts of a whole as one bar, with its key; and how far something is.
import { html } from "../core/view.js";
import { percent } from "../core/format.js";

/** @typedef {{name: string, share: number, colour: string, text?: string}} Part `share` 0 to 1; `colour` as app.css names it */

/** @param {{parts: Part[], label: string}} given */
export function Stack({ parts, label }) {
  const said = `${label}: ${parts.map((part) => `${part.name} ${part.text ?? percent(part.share)}`).join(", ")}`;
  return html`<div>
    <div class="stack" role="img" aria-label=${said}>
      ${parts.filter((part) => part.share > 0).map((part) => html`<span title=${`${part.name} ${part.text ?? percent(part.share)}`} style=${{ width: `${100 * part.share}%`, background: `var(--${part.colour})` }}></span>`)}
    </div>
    <div class="key" aria-hidden="true">
      ${parts.map((part) => html`<span><i style=${{ background: `var(--${part.colour})` }}></i>${part.name} <b>${part.text ?? percent(part.share)}</b></span>`)}
    </div>
  </div>`;
}

/** Done, and of it failed, of a whole. @param {{done: number, failed: number, of: number, label: string}} given */
export function Meter({ done, failed, of, label }) {
  const share = (/** @type {number} */ n) => `${of > 0 ? (100 * n) / of : 0}%`;
  return html`<span class="meter" role="img" aria-label=${label} title=${label}>
    <span style=${{ width: share(done), background: "var(--done)" }}></span><span style=${{ width: share(failed), background: "var(--fail)" }}></span>
  </span>`;
}
