// Tabs whose choice is in the address; arrows move between them.
import { html } from "../core/view.js";
import { useParam } from "../core/location.js";

/** @typedef {import("../core/view.js").Children} Children */

/** @param {{tabs: {name: string, title: string, draw: () => Children}[], name?: string, label: string}} given */
export function Tabs({ tabs, name = "tab", label }) {
  const [chosen, set] = useParam(name, tabs[0].name);
  const at = Math.max(0, tabs.findIndex((tab) => tab.name === chosen));
  /** @param {KeyboardEvent} event */
  const moved = (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const next = (at + step + tabs.length) % tabs.length;
    set(tabs[next].name, { replace: true });
    const all = /** @type {HTMLElement} */ (event.currentTarget).children;
    /** @type {HTMLElement} */ (all[next]).focus();
  };
  return html`<section class="card">
    <div class="tabs" role="tablist" aria-label=${label} onKeyDown=${moved}>
      ${tabs.map(
        (tab, i) => html`<button role="tab" id=${`tab-${tab.name}`} aria-selected=${i === at} aria-controls=${`panel-${name}`} tabindex=${i === at ? 0 : -1}
          onClick=${() => set(tab.name)}>${tab.title}</button>`,
      )}
    </div>
    <div role="tabpanel" id=${`panel-${name}`} aria-labelledby=${`tab-${tabs[at].name}`} key=${tabs[at].name}>${tabs[at].draw()}</div>
  </section>`;
}
