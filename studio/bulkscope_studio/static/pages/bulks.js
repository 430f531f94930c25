import { html, useEffect } from "../core/view.js";

export function Page() {
  useEffect(() => void (document.title = "bulks – Bulkscope"), []);
  return html`<h1>bulks</h1>`;
}
