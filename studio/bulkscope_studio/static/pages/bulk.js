import { html, useEffect } from "../core/view.js";

export function Page() {
  useEffect(() => void (document.title = "bulk – Bulkscope"), []);
  return html`<h1>bulk</h1>`;
}
