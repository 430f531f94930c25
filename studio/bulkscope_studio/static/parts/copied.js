// A command to run elsewhere, and a button that copies it.
import { html, useState } from "../core/view.js";

/** @param {{text: string, label?: string}} given */
export function Copied({ text, label = "Copy" }) {
  const [done, setDone] = useState("");
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(text);
      setDone("copied");
    } catch {
      setDone("select the text and copy it: this browser allows it on https and 127.0.0.1 alone");
    }
  };
  return html`<div class="copied"><pre tabindex="0"><code>${text}</code></pre><button onClick=${copy}>${label}</button><span role="status" class="mute">${done}</span></div>`;
}
