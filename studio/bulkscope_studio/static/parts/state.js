// What stands in the place of an answer: that it is awaited, that there is none, or why, and what to do.
import { html } from "../core/view.js";
import { bulkHref } from "../core/location.js";

/** @typedef {import("../core/view.js").Children} Children */

/** Draw an answer once it is there. @template T
 * @param {{asked: import("../core/api.js").Asked<T>, draw: (answer: any) => Children}} given */
export function Answer({ asked, draw }) {
  const { answer, error, loading } = asked;
  if (error && answer === null) return html`<${Failed} error=${error} again=${asked.again} />`;
  if (answer === null) return html`<div class="state mute" role="status">loading…</div>`;
  return html`<div class=${loading ? "busy" : ""} aria-busy=${loading}>${draw(answer)}</div>`;
}

/** @param {{error: import("../core/api.js").Refused, again?: () => void}} given */
export function Failed({ error, again }) {
  return html`<div class="state" role="alert">
    <strong class="bad wrap">${error.message}</strong>
    ${error.nearest.length
      ? html`<span>Nearest: ${error.nearest.map((id) => html`<a class="id" href=${bulkHref(id)}>${id}</a> `)}</span>`
      : html`<span class="mute wrap">${error.todo}</span>`}
    ${again && html`<button onClick=${again}>Try again</button>`}
  </div>`;
}

/** @param {{children?: Children}} given */
export const Empty = ({ children }) => html`<div class="state mute"><div>${children}</div></div>`;
