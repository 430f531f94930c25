import { html, useEffect } from "../core/view.js";

export function Page() {
  useEffect(() => void (document.title = "capacity – Bulkscope"), []);
  return html`<h1>capacity</h1>`;
}
