// /trace/ID: all spans of a trace over its time, those of each parent below it. Of thousands only what is seen is drawn.
import { Fragment, html, useEffect, useMemo, useRef, useState } from "../core/view.js";
import { useAnswer } from "../core/api.js";
import { colour } from "../core/colour.js";
import { clock, count, moment, number, seconds } from "../core/format.js";
import { bulkHref, go, idOf, jobHref, useAddress, useParam, withParams } from "../core/location.js";
import { Pairs } from "./job.js";
import { Answer } from "../parts/state.js";
import { Canvas, keyed, ticks, useLook, usePointer, useWidth, zoom, zoomed } from "../parts/timeline.js";

/** @typedef {{id: string, span: any, parent: Node | null, children: Node[], depth: number, from: number, to: number, wait: number}} Node
 * `from`, `to`: s after the trace's begin; `wait`: s before it */

const ROW = 24;
const MINIMAP = 56;
/** Rows beyond what is seen that are drawn too, so that scrolling shows no gap. */
const MARGIN = 20;
const COLOURS = { SERVER: "line-3", PRODUCER: "line-5", CONSUMER: "work", CLIENT: "line-4", INTERNAL: "prefill" };

export function Page() {
  const id = idOf("/trace");
  const asked = useAnswer(`/traces/${encodeURIComponent(id)}`);
  useEffect(() => void (document.title = `trace ${id.slice(0, 8)} – Bulkscope`), [id]);
  return html`<${Fragment}>
    <header class="head"><h1>Trace <span class="id" title=${id}>${id}</span></h1></header>
    <${Answer} asked=${asked} draw=${(/** @type {any} */ found) => html`<${Trace} found=${found} />`} />
  <//>`;
}

/** Spans as trees, roots and children by their begin. One whose parent is not there is a root.
 * @param {any[]} spans @returns {{roots: Node[], baseNs: number, length: number}} */
export function treeOf(spans) {
  const begins = spans.map((span) => span.started_ns - 1e9 * Math.max(0, span.wait_s ?? 0));
  const baseNs = begins.reduce((least, at) => Math.min(least, at), Infinity);
  const after = (/** @type {number} */ ns) => (ns - baseNs) / 1e9;
  /** @type {Map<string, Node>} */
  const nodes = new Map();
  for (const span of spans) {
    nodes.set(span.span_id, {
      id: span.span_id, span, parent: null, children: [], depth: 0,
      from: after(span.started_ns), to: after(Math.max(span.started_ns, span.ended_ns ?? span.started_ns)), wait: Math.max(0, span.wait_s ?? 0),
    });
  }
  /** @type {Node[]} */
  const roots = [];
  for (const node of nodes.values()) {
    const parent = nodes.get(node.span.parent_span_id) ?? null;
    // Ids that name each other as parents, as a faulty sender's do, would be a circle.
    let above = parent;
    while (above && above !== node) above = above.parent;
    node.parent = above === node ? null : parent;
    (node.parent?.children ?? roots).push(node);
  }
  const sort = (/** @type {Node[]} */ all) => all.sort((a, b) => a.from - a.wait - (b.from - b.wait));
  /** @type {Node[]} */
  const rest = sort(roots).slice();
  for (let node = rest.pop(); node; node = rest.pop()) {
    sort(node.children);
    for (const child of node.children) {
      child.depth = node.depth + 1;
      rest.push(child);
    }
  }
  const length = [...nodes.values()].reduce((most, node) => Math.max(most, node.to), 0);
  return { roots, baseNs, length: Math.max(length, 1e-6) };
}

/** The rows in their order: those below a closed one are not there; with a text, those that have it, and what is above.
 * @param {Node[]} roots @param {Set<string>} closed @param {string} text @returns {Node[]} */
export function rowsOf(roots, closed, text) {
  const wanted = text.toLowerCase();
  const has = (/** @type {Node} */ { span }) => [span.name, span.service, span.job, span.model, span.worker, span.span_id, span.error_type].some((each) => each?.toLowerCase().includes(wanted));
  /** @type {Set<Node> | null} */
  let shown = null;
  if (wanted) {
    shown = new Set();
    const all = [...roots];
    for (let node = all.pop(); node; node = all.pop()) {
      all.push(...node.children);
      if (has(node)) for (let each = /** @type {Node | null} */ (node); each; each = each.parent) shown.add(each);
    }
  }
  /** @type {Node[]} */
  const found = [];
  const rest = roots.slice().reverse();
  for (let node = rest.pop(); node; node = rest.pop()) {
    if (shown && !shown.has(node)) continue;
    found.push(node);
    if (!closed.has(node.id) || shown) rest.push(...node.children.slice().reverse());
  }
  return found;
}

/** @param {{found: any}} given */
function Trace({ found }) {
  const { params } = useAddress();
  const [text, setText] = useParam("find");
  const [chosen] = useParam("span");
  const { roots, baseNs, length } = useMemo(() => treeOf(found.spans), [found]);
  const [closed, setClosed] = useState(/** @type {Set<string>} */ (new Set()));
  const rows = useMemo(() => rowsOf(roots, closed, text), [roots, closed, text]);
  const range = zoomed(params, length) ?? { from: 0, to: length };
  const choose = (/** @type {string | null} */ id) => go(withParams({ span: id }), { replace: true });
  const toggle = (/** @type {Node} */ node, /** @type {boolean} */ close) => {
    const next = new Set(closed);
    if (close) next.add(node.id);
    else next.delete(node.id);
    setClosed(next);
  };
  const parents = useMemo(() => found.spans.length ? rowsOf(roots, new Set(), "").filter((node) => node.children.length && node.depth > 0).map((node) => node.id) : [], [roots]);
  const failed = found.spans.filter((/** @type {any} */ span) => span.status === "ERROR").length;
  return html`<div class="stacked">
    <section class="card">
      <div class="row">
        <b>${count(found.total, "span")}</b> over <b>${seconds(length)}</b> from ${moment(baseNs)}
        ${failed > 0 && html`<span class="bad">${failed} failed</span>`}
        ${found.total > found.spans.length && html`<span class="warn">the first ${number(found.spans.length)} of them are shown</span>`}
        <input type="search" aria-label="find spans by name, job, model, worker or id" placeholder="find spans" value=${text} onInput=${(/** @type {any} */ event) => setText(event.target.value, { replace: true })} />
        <button onClick=${() => setClosed(new Set(parents))}>Close all</button>
        <button onClick=${() => setClosed(new Set())}>Open all</button>
        ${zoomed(params, length) && html`<button onClick=${() => zoom(null, length)}>All of its time</button>`}
      </div>
      <${Minimap} rows=${rows} range=${range} length=${length} baseNs=${baseNs} />
      <${Rows} rows=${rows} range=${range} length=${length} closed=${closed} toggle=${toggle} chosen=${chosen} choose=${choose} />
    </section>
    ${chosen && html`<${Detail} trace=${found.trace} id=${chosen} close=${() => choose(null)} key=${chosen} />`}
  </div>`;
}

/** All rows at once, a line each; a drag over it zooms. @param {{rows: Node[], range: {from: number, to: number}, length: number, baseNs: number}} given */
function Minimap({ rows, range, length, baseNs }) {
  const [box, width] = useWidth();
  const look = useLook();
  const whole = { from: 0, to: length };
  const pointer = usePointer({ left: 0, width, range: whole, onZoom: (wanted) => zoom(wanted, length) });
  const x = (/** @type {number} */ s) => (s / length) * width;
  const draw = (/** @type {CanvasRenderingContext2D} */ g) => {
    const [failed, mute, line] = [colour("fail"), colour("mute"), colour("line")];
    const colours = Object.fromEntries(Object.entries(COLOURS).map(([kind, name]) => [kind, colour(name)]));
    g.clearRect(0, 0, width, MINIMAP);
    const high = Math.max(0.4, Math.min(4, (MINIMAP - 14) / Math.max(1, rows.length)));
    rows.forEach((node, i) => {
      g.fillStyle = node.span.status === "ERROR" ? failed : (colours[node.span.kind] ?? mute);
      g.fillRect(x(node.from), (i * (MINIMAP - 14)) / rows.length, Math.max(0.7, x(node.to) - x(node.from)), high);
    });
    g.fillStyle = mute;
    g.font = "11px system-ui";
    for (const { at, text } of ticks(whole, baseNs, width)) g.fillText(text, Math.min(x(at) + 2, width - 40), MINIMAP - 2);
    g.fillStyle = line;
    g.fillRect(0, MINIMAP - 13, width, 1);
  };
  return html`<div ref=${box} class="minimap" tabindex="0" role="group" aria-label="range of time: arrows move, + and - zoom, 0 shows all" ...${pointer.on}
    onKeyDown=${(/** @type {KeyboardEvent} */ event) => {
      const next = keyed(event.key, range);
      if (next === undefined) return;
      event.preventDefault();
      zoom(next, length, { replace: true });
    }}>
    <${Canvas} width=${width} height=${MINIMAP} draw=${draw} on=${[rows, look]} label=${`${rows.length} spans over ${seconds(length)}`} name="minimap" />
    <span class="shade" style=${{ left: "0", width: `${x(range.from)}px` }}></span>
    <span class="shade" style=${{ left: `${x(range.to)}px`, right: "0" }}></span>
    ${pointer.dragged && html`<span class="drag" style=${{ left: `${pointer.dragged.x}px`, width: `${pointer.dragged.width}px` }}></span>`}
  </div>`;
}

/** @param {{rows: Node[], range: {from: number, to: number}, length: number, closed: Set<string>, toggle: (node: Node, close: boolean) => void,
 * chosen: string, choose: (id: string | null) => void}} given */
function Rows({ rows, range, closed, toggle, chosen, choose }) {
  const box = useRef(/** @type {HTMLDivElement | null} */ (null));
  const [top, setTop] = useState(0);
  const [height, setHeight] = useState(600);
  const at = rows.findIndex((node) => node.id === chosen);
  const seen = (/** @type {number} */ i) => {
    const here = box.current;
    if (!here || i < 0) return;
    if (i * ROW < here.scrollTop) here.scrollTop = i * ROW;
    else if ((i + 1) * ROW > here.scrollTop + here.clientHeight) here.scrollTop = (i + 1) * ROW - here.clientHeight;
  };
  useEffect(() => {
    if (box.current) setHeight(box.current.clientHeight);
    seen(at); // an address that names a span leads to it
  }, [chosen]);
  const first = Math.max(0, Math.floor(top / ROW) - MARGIN);
  const last = Math.min(rows.length, Math.ceil((top + height) / ROW) + MARGIN);
  /** @param {KeyboardEvent} event */
  const moved = (event) => {
    const node = rows[at];
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: rows.length - 1, PageDown: at + 20, PageUp: at - 20 }[event.key];
    if (to !== undefined) choose(rows[Math.min(rows.length - 1, Math.max(0, to))].id);
    else if (event.key === "Escape") choose(null);
    else if (event.key === "ArrowRight" && node?.children.length) toggle(node, false);
    else if (event.key === "ArrowLeft" && node?.children.length && !closed.has(node.id)) toggle(node, true);
    else if (event.key === "ArrowLeft" && node?.parent) choose(node.parent.id);
    else return;
    event.preventDefault();
  };
  if (!rows.length) return html`<p class="state mute">No span fits.</p>`;
  return html`<div class="spans" ref=${box} role="tree" aria-label="spans" tabindex="0" aria-activedescendant=${at >= first && at < last ? `span-${chosen}` : undefined}
    style=${{ height: `${Math.min(rows.length * ROW + 2, 620)}px` }}
    onScroll=${(/** @type {any} */ event) => setTop(event.target.scrollTop)} onKeyDown=${moved}>
    <div style=${{ height: `${rows.length * ROW}px` }} role="presentation">
      ${rows.slice(first, last).map((node, i) => html`<${Row} key=${node.id} node=${node} y=${(first + i) * ROW} range=${range} open=${node.children.length ? !closed.has(node.id) : null} chosen=${node.id === chosen} toggle=${toggle} choose=${choose} />`)}
    </div>
  </div>`;
}

/** @param {{node: Node, y: number, range: {from: number, to: number}, open: boolean | null, chosen: boolean, toggle: (node: Node, close: boolean) => void, choose: (id: string | null) => void}} given */
function Row({ node, y, range, open, chosen, toggle, choose }) {
  const { span, from, to, wait } = node;
  const share = (/** @type {number} */ s) => `${(100 * s) / (range.to - range.from)}%`;
  const left = (/** @type {number} */ s) => `${(100 * (s - range.from)) / (range.to - range.from)}%`;
  const bad = span.status === "ERROR";
  const said = `${span.name}${span.job ? `, job ${span.job}` : ""}${bad ? ", failed" : ""}: ${seconds(to - from)}${wait > 0 ? ` after a wait of ${seconds(wait)}` : ""}`;
  return html`<div id=${`span-${node.id}`} class="span" role="treeitem" aria-level=${node.depth + 1} aria-selected=${chosen} aria-expanded=${open ?? undefined} title=${said}
    style=${{ top: `${y}px` }} onClick=${() => choose(chosen ? null : node.id)}>
    <span class="what" style=${{ paddingLeft: `${Math.min(node.depth, 12) * 12}px` }}>
      <span class="fold" aria-hidden="true" onClick=${(/** @type {Event} */ event) => {
        if (open === null) return;
        event.stopPropagation();
        toggle(node, open);
      }}>${open === null ? "" : open ? "▾" : "▸"}</span>${span.name} <small class="mute">${span.model ?? span.job ?? span.service ?? ""}</small>
    </span>
    <span class="lane">
      ${wait > 0 && html`<span class="waited" style=${{ left: left(from - wait), width: share(wait) }}></span>`}
      <span class="ran" style=${{ left: left(from), width: share(to - from), background: `var(--${bad ? "fail" : (COLOURS[/** @type {keyof typeof COLOURS} */ (span.kind)] ?? "mute")})` }}></span>
    </span>
    <span class="long">${seconds(to - from)}</span>
  </div>`;
}

/** @param {{trace: string, id: string, close: () => void}} given */
function Detail({ trace, id, close }) {
  const asked = useAnswer(`/traces/${encodeURIComponent(trace)}/spans/${encodeURIComponent(id)}`);
  return html`<section class="card" aria-label="the chosen span">
    <div class="head"><h2>${asked.answer?.name ?? "Span"} <span class="id">${id}</span></h2><div class="end"><button onClick=${close}>Close</button></div></div>
    <${Answer} asked=${asked} draw=${(/** @type {any} */ span) => html`
      <p class="row">${clock(span.start_ns, 3)} to ${clock(span.end_ns, 3)}
        ${span.bulk_id && html`<span>bulk <a class="id" href=${bulkHref(span.bulk_id)}>${span.bulk_id}</a></span>`}
        ${span.bulk_id && span.job_id && html`<span>job <a class="id" href=${jobHref(span.bulk_id, span.job_id)}>${span.job_id}</a></span>`}
        <a href=${`/logs?trace=${encodeURIComponent(trace)}`}>log of the trace</a></p>
      <${Pairs} of=${span} />`} />
  </section>`;
}
