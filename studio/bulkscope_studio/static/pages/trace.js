import { html, useEffect } from "../core/view.js";

export function Page() {
  useEffect(() => void (document.title = "trace – Bulkscope"), []);
  return html`<h1>trace</h1>`;
}
