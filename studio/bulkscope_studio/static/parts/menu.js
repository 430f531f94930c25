// A button that opens a list of actions, and a dialog that asks before it does.
import { html, useEffect, useRef, useState } from "../core/view.js";

/** @typedef {import("../core/view.js").Children} Children */

/** @param {{title: Children, label?: string, children?: Children}} given */
export function Menu({ title, label, children }) {
  const [open, setOpen] = useState(false);
  const box = useRef(/** @type {HTMLDivElement | null} */ (null));
  useEffect(() => {
    if (!open) return;
    const close = (/** @type {Event} */ event) => {
      if (event instanceof KeyboardEvent ? event.key === "Escape" : !box.current?.contains(/** @type {Node} */ (event.target))) setOpen(false);
    };
    document.addEventListener("keydown", close);
    document.addEventListener("pointerdown", close);
    return () => {
      document.removeEventListener("keydown", close);
      document.removeEventListener("pointerdown", close);
    };
  }, [open]);
  return html`<div class="menu" ref=${box}>
    <button aria-expanded=${open} aria-haspopup="true" aria-label=${label} onClick=${() => setOpen(!open)}>${title} <span aria-hidden="true">▾</span></button>
    ${open && html`<div onClick=${() => setOpen(false)}>${children}</div>`}
  </div>`;
}

/** A dialog over the page. @param {{title: string, onClose: () => void, children?: Children}} given */
export function Dialog({ title, onClose, children }) {
  const box = useRef(/** @type {HTMLDialogElement | null} */ (null));
  useEffect(() => box.current?.showModal(), []);
  return html`<dialog ref=${box} aria-label=${title} onClose=${onClose}><h2>${title}</h2>${children}</dialog>`;
}
