// Find any id: a bulk, run, job, trace, span or worker. Hits are listed while one types; "/" comes here from anywhere.
import { html, useEffect, useRef, useState } from "../core/view.js";
import { useAnswer } from "../core/api.js";
import { bulkHref, go, jobHref, traceHref } from "../core/location.js";

/** @typedef {{kind: "bulk" | "run" | "job" | "trace" | "span" | "worker", id: string, bulk: string | null, trace_id: string | null}} Hit */

const MOST = 12;
/** So long a pause, in ms, before what was typed is looked for: a search reads the ids of all spans. */
const PAUSE_MS = 150;

/** @param {Hit} hit */
function hrefOf({ kind, id, bulk, trace_id }) {
  if (kind === "bulk") return bulkHref(id);
  if (kind === "run") return `/compare?a=${encodeURIComponent(id)}`;
  if (kind === "worker") return `/?worker=${encodeURIComponent(id)}`;
  if (kind === "trace") return traceHref(id);
  if (kind === "span") return traceHref(trace_id ?? "", id);
  return bulk === null ? traceHref(trace_id ?? "") : jobHref(bulk, id);
}

export function Find() {
  const [text, setText] = useState("");
  const [asked, setAsked] = useState("");
  const [open, setOpen] = useState(false);
  const [at, setAt] = useState(-1);
  /** The text for which Enter was pressed before its hits were there. */
  const [entered, setEntered] = useState("");
  const field = useRef(/** @type {HTMLInputElement | null} */ (null));
  const box = useRef(/** @type {HTMLFormElement | null} */ (null));
  const wanted = text.trim();
  useEffect(() => {
    const timer = setTimeout(() => setAsked(wanted), PAUSE_MS);
    return () => clearTimeout(timer);
  }, [wanted]);
  const { answer, error, loading } = useAnswer(asked && open ? "/search" : null, { text: asked, limit: MOST });
  const there = asked === wanted && !loading && answer?.text === wanted;
  /** @type {Hit[]} */
  const hits = there ? answer.found : [];
  const to = (/** @type {Hit} */ hit) => {
    setOpen(false);
    setText("");
    field.current?.blur();
    go(hrefOf(hit));
    scrollTo(0, 0);
  };
  const enter = () => {
    const exact = hits.filter(({ id }) => id === wanted);
    if (hits[at]) to(hits[at]);
    else if (hits.length === 1 || exact.length === 1) to(exact[0] ?? hits[0]);
    else if (hits.length) setAt(0);
  };
  useEffect(() => setAt(-1), [wanted]);
  useEffect(() => {
    if (!there || entered !== wanted || !wanted) return;
    setEntered("");
    enter();
  }, [there, entered]);
  useEffect(() => {
    const key = (/** @type {KeyboardEvent} */ event) => {
      const typing = event.target instanceof Element && event.target.closest("input, textarea, select, [contenteditable]");
      if (event.key !== "/" || typing || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      field.current?.focus();
    };
    const out = (/** @type {Event} */ event) => {
      if (!box.current?.contains(/** @type {Node} */ (event.target))) setOpen(false);
    };
    document.addEventListener("keydown", key);
    document.addEventListener("pointerdown", out);
    return () => {
      document.removeEventListener("keydown", key);
      document.removeEventListener("pointerdown", out);
    };
  }, []);
  const moved = (/** @type {KeyboardEvent} */ event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (event.key === "Escape") setOpen(false);
    if (!step || !hits.length) return;
    event.preventDefault();
    setAt((at + step + hits.length) % hits.length);
  };
  const shown = open && wanted !== "" && (there || error !== null);
  return html`<form class="find" role="search" ref=${box} onSubmit=${(/** @type {Event} */ event) => {
    event.preventDefault();
    if (there) enter();
    else setEntered(wanted);
  }}>
    <input ref=${field} type="search" role="combobox" autocomplete="off" aria-expanded=${shown} aria-controls="found" aria-autocomplete="list"
      aria-activedescendant=${hits[at] ? `found-${at}` : undefined}
      aria-label="find a bulk, job, trace or worker by its id" placeholder="/  find a bulk, job, trace or worker by its id"
      value=${text} onInput=${(/** @type {any} */ event) => { setText(event.target.value); setOpen(true); setEntered(""); }} onFocus=${() => setOpen(true)} onKeyDown=${moved} />
    <div class="found" hidden=${!shown}>
      <div id="found" role="listbox" aria-label="what was found">
        ${hits.map((hit, i) => html`<a role="option" id=${`found-${i}`} aria-selected=${i === at} tabindex="-1" href=${hrefOf(hit)}
          onClick=${(/** @type {MouseEvent} */ event) => {
            if (event.metaKey || event.ctrlKey || event.shiftKey) return;
            event.preventDefault();
            to(hit);
          }}><span class="mute">${hit.kind}</span><span class="id" title=${hit.id}>${hit.id}</span>${hit.bulk && hit.kind !== "bulk" && html`<span class="id mute" title=${hit.bulk}>${hit.bulk}</span>`}</a>`)}
      </div>
      <div role="status" class="mute">${error ? error.message : there && !hits.length ? html`Nothing is called or begins with “${wanted}”.` : hits.length === MOST ? "and perhaps more: type on" : ""}</div>
    </div>
  </form>`;
}
