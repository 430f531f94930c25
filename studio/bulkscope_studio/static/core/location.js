// The address is the state of the page: which page, and its range, filters, order, tab and selection.
import { useCallback, useEffect, useState } from "./view.js";

/** @type {Set<() => void>} */
const listeners = new Set();
const told = () => {
  for (const listener of listeners) listener();
};
addEventListener("popstate", told);

/** Go to an address of this studio. @param {string} href @param {{replace?: boolean}} how */
export function go(href, { replace = false } = {}) {
  if (replace) history.replaceState(null, "", href);
  else history.pushState(null, "", href);
  told();
}

/** The address, and a new drawing when it changes. */
export function useAddress() {
  const [, again] = useState(0);
  useEffect(() => {
    const listener = () => again((n) => n + 1);
    listeners.add(listener);
    return () => void listeners.delete(listener);
  }, []);
  return { path: location.pathname, params: new URLSearchParams(location.search) };
}

/** The address with some parameters changed; null, undefined, "" and false take one away, a list stands once for each.
 * @param {Record<string, string | number | boolean | string[] | null | undefined>} change */
export function withParams(change) {
  const params = new URLSearchParams(location.search);
  for (const [name, value] of Object.entries(change)) {
    params.delete(name);
    if (value === null || value === undefined || value === "" || value === false) continue;
    for (const each of Array.isArray(value) ? value : [value]) params.append(name, String(each));
  }
  const text = params.toString();
  return location.pathname + (text ? `?${text}` : "");
}

/** A parameter of the address, and what sets it: with one step back to the state before, or in its place (`replace`).
 * @param {string} name @param {string} otherwise the value that no address needs to name
 * @returns {[string, (value: string | null, how?: {replace?: boolean}) => void]} */
export function useParam(name, otherwise = "") {
  const { params } = useAddress();
  const set = useCallback(
    (/** @type {string | null} */ value, /** @type {{replace?: boolean}} */ how = {}) =>
      go(withParams({ [name]: value === otherwise ? null : value }), how),
    [name, otherwise],
  );
  return [params.get(name) ?? otherwise, set];
}

/** An id in a path. Browsers take "." and ".." for steps, so these two travel as a parameter.
 * @param {string} base @param {string} id @param {string} query */
export function idPath(base, id, query = "") {
  if (id === "." || id === ".." || id === "") return `${base}/?id=${encodeURIComponent(id)}${query && `&${query}`}`;
  return `${base}/${encodeURIComponent(id)}${query && `?${query}`}`;
}

/** @param {string} id @param {string} query */
export const bulkHref = (id, query = "") => idPath("/bulk", id, query);
/** @param {string} bulk @param {string} job */
export const jobHref = (bulk, job) => idPath("/job", job, `bulk=${encodeURIComponent(bulk)}`);
/** @param {string} trace @param {string} span */
export const traceHref = (trace, span = "") => idPath("/trace", trace, span && `span=${encodeURIComponent(span)}`);

/** The id that a path of `idPath` names. @param {string} base */
export function idOf(base) {
  const rest = location.pathname.slice(base.length + 1);
  if (rest === "") return new URLSearchParams(location.search).get("id") ?? "";
  try {
    return decodeURIComponent(rest);
  } catch {
    return rest; // "%" alone is no escape
  }
}

/** Follow links to our own pages without loading the document again. @param {MouseEvent} event */
export function followed(event) {
  const link = event.target instanceof Element ? event.target.closest("a") : null;
  if (!link || event.defaultPrevented || event.button || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
  if (link.origin !== location.origin || link.target || link.hasAttribute("download") || link.pathname.startsWith("/api")) return;
  if (link.pathname === location.pathname && link.search === location.search && link.hash) return;
  if (link.dataset.document !== undefined) return; // the server's own document, such as report.html
  event.preventDefault();
  const elsewhere = link.pathname !== location.pathname;
  go(link.pathname + link.search + link.hash);
  if (elsewhere) scrollTo(0, 0);
}
