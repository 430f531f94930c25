// What a reader has chosen for all pages: colours and time zone. Kept by the browser, told to all parts of the page.
import { useEffect, useState } from "./view.js";

/** @typedef {{theme: "auto" | "light" | "dark", zone: "UTC" | "local"}} Settings */

const KEY = "bulkscope";
/** @type {Set<() => void>} */
const listeners = new Set();
/** @type {Settings} */
let current = read();

/** @returns {Settings} */
function read() {
  /** @type {Partial<Settings>} */
  let kept = {};
  try {
    kept = JSON.parse(localStorage.getItem(KEY) ?? "{}") ?? {};
  } catch {
    // A browser that keeps nothing has the defaults.
  }
  const theme = kept.theme === "light" || kept.theme === "dark" ? kept.theme : "auto";
  return { theme, zone: kept.zone === "local" ? "local" : "UTC" };
}

/** The settings as they are; a component that shows them calls `useSettings`. */
export const settings = () => current;

/** @param {Partial<Settings>} change */
export function choose(change) {
  current = { ...current, ...change };
  try {
    localStorage.setItem(KEY, JSON.stringify(current));
  } catch {
    // It holds until the page is left.
  }
  show();
  for (const listener of listeners) listener();
}

/** Give the document the colours that were chosen. `theme.js` does the same before the first paint. */
function show() {
  if (current.theme === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = current.theme;
}

/** The settings, and a new drawing when they change: also when the system turns dark, for what is drawn on a canvas. */
export function useSettings() {
  const [, again] = useState(0);
  useEffect(() => {
    const listener = () => again((n) => n + 1);
    const dark = matchMedia("(prefers-color-scheme: dark)");
    listeners.add(listener);
    dark.addEventListener("change", listener);
    return () => {
      listeners.delete(listener);
      dark.removeEventListener("change", listener);
    };
  }, []);
  return current;
}

addEventListener("storage", (event) => {
  if (event.key !== KEY) return;
  current = read();
  show();
  for (const listener of listeners) listener();
});
show();
