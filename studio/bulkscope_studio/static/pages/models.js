import { html, useEffect } from "../core/view.js";

export function Page() {
  useEffect(() => void (document.title = "models – Bulkscope"), []);
  return html`<h1>models</h1>`;
}
