// One stream of events for the whole page: which bulks have changed, and whether the studio is there.
// A hidden tab closes it: a browser has six connections to one server, for all its tabs together.
import { useEffect, useState } from "./view.js";

/** @typedef {{of: string | null, tell: () => void}} Listener */
/** @type {Set<Listener>} */
const listeners = new Set();
/** @type {Set<() => void>} */
const watchers = new Set();
/** @type {EventSource | null} */
let source = null;
let connected = true;
let missed = false;
let again = 0;

/** @param {boolean} now */
function is(now) {
  if (now === connected) return;
  connected = now;
  for (const watcher of watchers) watcher();
}

/** @param {(listener: Listener) => boolean} whom */
const tell = (whom) => {
  for (const listener of [...listeners]) if (whom(listener)) listener.tell();
};

function open() {
  if (source || document.hidden || document.getElementById("frozen")) return;
  source = new EventSource("/api/v1/events");
  source.addEventListener("open", () => {
    is(true);
    if (missed) tell(() => true); // nobody said what changed meanwhile
    missed = false;
  });
  const told = (/** @type {MessageEvent} */ event) => {
    const { bulks, more } = JSON.parse(event.data);
    tell(({ of }) => of !== null && (of === "*" || more || bulks.includes(of)));
  };
  source.addEventListener("changed", told);
  source.addEventListener("deleted", told);
  source.addEventListener("error", async () => {
    missed = true;
    close(); // the browser gives up after some errors, and we do not
    const there = await fetch("/api/v1/status").then((answer) => answer.status < 500, () => false);
    is(there); // with as many listeners as may be it answers all the same
    clearTimeout(again);
    again = setTimeout(open, there ? 10_000 : 1000);
  });
}

function close() {
  source?.close();
  source = null;
}

document.addEventListener("visibilitychange", () => {
  if (document.hidden) {
    missed = true;
    close();
  } else open();
});

/** Be told when a bulk has changed ("*": any; null: none), and after the studio was away.
 * @param {string | null} of @param {() => void} heard @returns {() => void} ends it */
export function listen(of, heard) {
  const listener = { of, tell: heard };
  listeners.add(listener);
  open();
  return () => void listeners.delete(listener);
}

/** Whether the studio answers. */
export function useConnected() {
  const [, draw] = useState(0);
  useEffect(() => {
    const watcher = () => draw((n) => n + 1);
    watchers.add(watcher);
    return () => void watchers.delete(watcher);
  }, []);
  return connected;
}
