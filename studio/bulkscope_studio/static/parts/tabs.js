// Tabs whose choice is in the address; arrows move between them.
import { html } from "../core/view.js";
import { go, useAddress, withParams } from "../core/location.js";

/** @typedef {import("../core/view.js").Children} Children */

/** `own` are parameters that belong to one tab, as the order of its table, and go with it.
 * @param {{tabs: {name: string, title: Children, draw: () => Children}[], name?: string, label: string, own?: string[]}} given */
export function Tabs({ tabs, name = "tab", label, own = [] }) {
  const chosen = useAddress().params.get(name) ?? tabs[0].name;
  const set = (/** @type {string} */ tab, how = {}) =>
    go(withParams({ ...Object.fromEntries(own.map((each) => [each, null])), [name]: tab === tabs[0].name ? null : tab }), how);
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
