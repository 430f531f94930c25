import { html, useEffect } from "../core/view.js";

export function Page() {
  useEffect(() => void (document.title = "compare – Bulkscope"), []);
  return html`<h1>compare</h1>`;
}
