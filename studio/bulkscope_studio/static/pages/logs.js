import { html, useEffect } from "../core/view.js";

export function Page() {
  useEffect(() => void (document.title = "logs – Bulkscope"), []);
  return html`<h1>logs</h1>`;
}
