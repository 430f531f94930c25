import { html, useEffect } from "../core/view.js";

export function Page() {
  useEffect(() => void (document.title = "live – Bulkscope"), []);
  return html`<h1>live</h1>`;
}
