import { html, useEffect } from "../core/view.js";

export function Page() {
  useEffect(() => void (document.title = "job – Bulkscope"), []);
  return html`<h1>job</h1>`;
}
