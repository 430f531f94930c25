// Questions to /api/v1. The browser keeps answers and asks with their ETag, so that an unchanged one costs no body.
import { useEffect, useRef, useState } from "./view.js";
import { listen } from "./events.js";

/** @typedef {Record<string, string | number | boolean | null | undefined | (string | number)[]>} Params */

const ROOT = "/api/v1";

/** A question that was not answered: what is wrong, and what to do. */
export class Refused extends Error {
  /** @param {string} said @param {string} todo @param {number} status 0 where the studio could not be reached
   * @param {string[]} nearest ids like the one that is not there */
  constructor(said, todo, status, nearest = []) {
    super(said);
    this.todo = todo;
    this.status = status;
    this.nearest = nearest;
  }
}

/** Answers that a document brings with it, as a frozen report does; null where the studio is asked.
 * @type {Record<string, unknown> | null} */
export const frozen = (() => {
  const text = document.getElementById("frozen")?.textContent;
  return text ? JSON.parse(text) : null;
})();

/** @param {string} path below /api/v1 @param {Params} params */
export function address(path, params = {}) {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(params)) {
    if (value === null || value === undefined || value === "") continue;
    for (const each of Array.isArray(value) ? value : [value]) query.append(name, String(each));
  }
  const text = query.toString();
  return ROOT + path + (text ? `?${text}` : "");
}

/** The path of a question about a bulk. @param {string} id @param {string} what */
export const ofBulk = (id, what) => `/bulks/${encodeURIComponent(id)}/${what}`;

/** Ask, and return the answer. Raises `Refused`; an `AbortError` where `signal` says so.
 * @param {string} path @param {Params} params @param {{signal?: AbortSignal, method?: string, body?: unknown}} how
 * @returns {Promise<any>} */
export async function ask(path, params = {}, { signal, method = "GET", body } = {}) {
  const url = address(path, params);
  if (frozen) {
    if (url in frozen) return frozen[url];
    throw new Refused("this is a saved page, and holds no more than what it shows", "open the bulk in the studio", 0);
  }
  let response;
  try {
    response = await fetch(url, {
      method,
      signal,
      cache: "no-cache",
      body: body === undefined ? undefined : JSON.stringify(body),
      headers: body === undefined ? {} : { "content-type": "application/json" },
    });
  } catch (error) {
    if (error instanceof DOMException && error.name === "AbortError") throw error;
    throw new Refused("the studio does not answer", "this page comes back by itself when it runs again", 0);
  }
  const type = response.headers.get("content-type") ?? "";
  const found = type.startsWith("application/json") ? await response.json() : null;
  if (response.ok) return found;
  if (response.status === 401) location.reload(); // the browser asks for the password
  throw new Refused(found?.error ?? `the studio answered ${response.status}`, found?.do ?? "see the studio's log", response.status, found?.nearest ?? []);
}

/** @template T @typedef {{answer: T | null, error: Refused | null, loading: boolean, again: () => void}} Asked */

/** Ask while a component is shown: again when the question changes, when a bulk in `of` has changed ("*": any), after
 * the studio was away, and every `everyS` seconds; not while the tab is hidden. The answer before stays until the next is
 * there. A `path` of null asks nothing.
 * @param {string | null} path @param {Params} params @param {{of?: string | null, everyS?: number, restS?: number}} how
 * `restS`: the least time between two questions that nobody but events asked for
 * @returns {Asked<any>} */
export function useAnswer(path, params = {}, { of = null, everyS = 0, restS = 2 } = {}) {
  const url = path === null ? null : address(path, params);
  const [state, setState] = useState(/** @type {{url: string | null, answer: any, error: Refused | null}} */ ({ url: null, answer: null, error: null }));
  const [turn, setTurn] = useState(0);
  const last = useRef(0);
  // Not what the effect below depends on: it would forget a question that is due when the rest changes.
  const rest = useRef(restS);
  rest.current = restS;
  useEffect(() => {
    if (path === null) return;
    const stop = new AbortController();
    last.current = Date.now();
    ask(path, params, { signal: stop.signal }).then(
      (answer) => setState({ url, answer, error: null }),
      (error) => {
        if (stop.signal.aborted) return;
        const refused = error instanceof Refused ? error : new Refused(String(error), "see the browser's console", 0);
        // What is shown stays while the studio is away; another question's answer does not.
        setState((before) => ({ url, answer: before.url === url && refused.status === 0 ? before.answer : null, error: refused }));
      },
    );
    return () => stop.abort();
  }, [url, turn]);
  useEffect(() => {
    if (url === null || frozen) return;
    let due = 0;
    const again = () => {
      if (due || document.hidden) return;
      due = setTimeout(() => {
        due = 0;
        if (!document.hidden) setTurn((n) => n + 1);
      }, Math.max(0, last.current + 1e3 * rest.current - Date.now()));
    };
    const timer = everyS ? setInterval(again, 1e3 * everyS) : 0;
    const shown = () => {
      if (!document.hidden && everyS) again();
    };
    document.addEventListener("visibilitychange", shown);
    const end = listen(of, again);
    return () => {
      clearTimeout(due);
      clearInterval(timer);
      document.removeEventListener("visibilitychange", shown);
      end();
    };
  }, [url, of, everyS]);
  const mine = state.url === url;
  return {
    answer: state.answer,
    error: mine ? state.error : null,
    loading: url !== null && !mine,
    again: () => setTurn((n) => n + 1),
  };
}
