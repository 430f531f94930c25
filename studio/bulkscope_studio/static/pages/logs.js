// /logs: log records of all services, newest first; how many there are over the time; and their tail as they come.
import { Fragment, html, useEffect, useState } from "../core/view.js";
import { ask, useAnswer } from "../core/api.js";
import { colour } from "../core/colour.js";
import { listen } from "../core/events.js";
import { clock, count, moment, number } from "../core/format.js";
import { go, useAddress, useParam, withParams } from "../core/location.js";
import { Lines, SEVERITIES } from "../parts/lines.js";
import { Answer, Empty } from "../parts/state.js";
import { Canvas, Tip, ticks, useLook, usePointer, useWidth } from "../parts/timeline.js";

const LIMIT = 100;
/** Of a tail: older lines leave at the bottom. */
const MOST_TAIL = 500;
/** So many are asked for each time. */
const NEWEST = 200;
const HEIGHT = 84;
const AXIS = 16;
/** Classes of the histogram from the bottom, with their colours. */
const CLASSES = { unknown: "idle", trace: "idle", debug: "idle", info: "prefill", warn: "wait", error: "fail", fatal: "fail" };
const FILTERS = ["text", "service", "host", "bulk", "job", "trace", "severity"];

export function Page() {
  const { params } = useAddress();
  const [tail, setTail] = useParam("tail");
  useEffect(() => void (document.title = "Logs – Bulkscope"), []);
  const filters = Object.fromEntries(FILTERS.map((name) => [name, params.get(name) ?? ""]));
  const heartbeats = params.get("heartbeats") === "1";
  const range = { from_ns: params.get("from"), to_ns: params.get("to") };
  const asked = { ...filters, heartbeats: heartbeats || null };
  const set = (/** @type {string} */ name) => (/** @type {any} */ event) => go(withParams({ [name]: event.target.value.trim(), offset: null, to: name === "to" ? undefined : params.get("to") }));
  const field = (/** @type {string} */ name, /** @type {string} */ placeholder = name) =>
    html`<input type="search" aria-label=${name} placeholder=${placeholder} value=${filters[name]} onChange=${set(name)} />`;
  return html`<${Fragment}>
    <header class="head"><h1>Logs</h1>
      <div class="end"><button aria-pressed=${tail === "1"} onClick=${() => setTail(tail === "1" ? null : "1")}>${tail === "1" ? "Stop following" : "Follow the tail"}</button></div>
    </header>
    <section class="card">
      <div class="row filters">
        ${field("text", "text")} ${field("bulk")} ${field("job")} ${field("service")} ${field("host")} ${filters.trace && field("trace")}
        <label>from severity <select value=${filters.severity} onChange=${set("severity")}>
          <option value="">any</option>${SEVERITIES.map((name) => html`<option value=${name} selected=${name === filters.severity}>${name}</option>`)}
        </select></label>
        <label><input type="checkbox" checked=${heartbeats} onChange=${(/** @type {any} */ event) => go(withParams({ heartbeats: event.target.checked ? "1" : null }))} /> heartbeats</label>
        ${range.from_ns && html`<button onClick=${() => go(withParams({ from: null, to: null, offset: null }))} title="the chosen time ends">${moment(Number(range.from_ns))} to ${clock(Number(range.to_ns))} ✕</button>`}
      </div>
      ${tail !== "1" && html`<${Histogram} asked=${{ ...asked, ...range }} />`}
      ${tail === "1" ? html`<${Tail} asked=${asked} />` : html`<${Found} asked=${{ ...asked, ...range }} />`}
    </section>
  <//>`;
}

/** @param {{asked: import("../core/api.js").Params}} given */
function Found({ asked }) {
  const [text, setOffset] = useParam("offset", "0");
  const offset = Math.max(0, Number.parseInt(text, 10) || 0);
  const found = useAnswer("/logs", { ...asked, limit: LIMIT, offset: offset || null });
  const narrow = Object.values(asked).some(Boolean);
  return html`<${Answer} asked=${found} draw=${(/** @type {{logs: any[], more: boolean}} */ { logs, more }) =>
    logs.length === 0
      ? html`<${Empty}>${narrow || offset ? "No record fits." : html`No log record was taken yet. Records of services that run under <code>bulkscope run</code> come here by themselves.`}<//>`
      : html`<${Lines} lines=${logs} bulk=${asked.bulk || null} job=${asked.job || null} days=${true} />
          <nav class="pages" aria-label="parts of the log">
            <span class="mute">${number(offset + 1)} to ${number(offset + logs.length)}, newest first</span>
            <button disabled=${offset === 0} onClick=${() => setOffset(String(Math.max(0, offset - LIMIT)))}>Newer</button>
            <button disabled=${!more} onClick=${() => setOffset(String(offset + LIMIT))}>Older</button>
          </nav>`} />`;
}

/** @param {any} line */
const keyOf = (line) => [line.time_ns, line.trace_id, line.span_id, line.worker, line.body].join(" ");

/** What comes from now on, newest on top. @param {{asked: import("../core/api.js").Params}} given */
function Tail({ asked }) {
  const [lines, setLines] = useState(/** @type {any[]} */ ([]));
  const [held, setHeld] = useState(false);
  const key = JSON.stringify(asked);
  useEffect(() => {
    if (held) return;
    const stop = new AbortController();
    let running = false;
    const more = async () => {
      if (running || document.hidden) return;
      running = true;
      try {
        // The newest, not what is later than the last one: records of another service come later with earlier times.
        const found = await ask("/logs", { ...asked, limit: NEWEST }, { signal: stop.signal });
        setLines((before) => {
          const there = new Set(before.map(keyOf));
          const fresh = found.logs.filter((/** @type {any} */ line) => !there.has(keyOf(line)));
          return fresh.length ? [...fresh, ...before].sort((a, b) => b.time_ns - a.time_ns).slice(0, MOST_TAIL) : before;
        });
      } catch {
        // The frame says that the studio is away; the next turn asks again.
      }
      running = false;
    };
    more();
    const timer = setInterval(more, 2000); // not each record is of a bulk, of which alone events tell
    const end = listen("*", more);
    return () => {
      stop.abort();
      clearInterval(timer);
      end();
    };
  }, [key, held]);
  useEffect(() => setLines([]), [key]);
  return html`<div role="log" aria-live="off" aria-label="records as they come">
    <p class="row"><span class="mute">${held ? "held" : "following: the newest on top"}</span> <button onClick=${() => setHeld(!held)}>${held ? "Go on" : "Hold"}</button></p>
    ${lines.length ? html`<${Lines} lines=${lines} bulk=${asked.bulk || null} job=${asked.job || null} days=${true} />` : html`<${Empty}>Nothing has come yet.<//>`}
  </div>`;
}

/** Records over the time, by severity; a drag chooses a time. @param {{asked: import("../core/api.js").Params}} given */
function Histogram({ asked }) {
  const [box, width] = useWidth();
  const look = useLook();
  const bins = Math.max(20, Math.min(200, Math.floor(width / 6)));
  const { answer } = useAnswer(width ? "/logs/histogram" : null, { ...asked, bins });
  const length = answer ? (answer.to_ns - answer.from_ns) / 1e9 : 1;
  const range = { from: 0, to: length };
  const pointer = usePointer({
    left: 0, width, range,
    onZoom: (wanted) => answer && go(withParams(wanted === null ? { from: null, to: null, offset: null } : { from: Math.floor(answer.from_ns + wanted.from * 1e9), to: Math.ceil(answer.from_ns + wanted.to * 1e9), offset: null })),
  });
  const names = Object.keys(CLASSES);
  const of = (/** @type {number} */ bin) => names.map((name) => /** @type {[string, number]} */ ([name, answer?.records[name]?.[bin] ?? 0])).filter(([, n]) => n > 0);
  const sums = answer ? answer.records.info.map((/** @type {number} */ _, /** @type {number} */ bin) => of(bin).reduce((sum, [, n]) => sum + n, 0)) : [];
  const most = Math.max(1, ...sums);
  const draw = (/** @type {CanvasRenderingContext2D} */ g) => {
    g.clearRect(0, 0, width, HEIGHT);
    if (!answer) return;
    const colours = Object.fromEntries(Object.entries(CLASSES).map(([name, of]) => [name, colour(of)]));
    const [wide, high] = [width / answer.bins, HEIGHT - AXIS];
    for (let bin = 0; bin < answer.bins; bin++) {
      let y = high;
      for (const [name, n] of of(bin)) {
        const h = Math.max(1, (n / most) * (high - 2));
        g.fillStyle = colours[name];
        g.fillRect(bin * wide, y - h, Math.max(1, wide - 1), h);
        y -= h;
      }
    }
    g.fillStyle = colour("mute");
    g.font = "11px system-ui";
    for (const { at, text } of ticks(range, answer.from_ns, width)) g.fillText(text, Math.min((at / length) * width, width - 44), HEIGHT - 3);
  };
  const bin = pointer.at && answer ? Math.min(answer.bins - 1, Math.max(0, Math.floor((pointer.at.x / width) * answer.bins))) : null;
  const totals = answer ? names.map((name) => [name, answer.records[name].reduce((/** @type {number} */ a, /** @type {number} */ b) => a + b, 0)]).filter(([, n]) => n > 0) : [];
  const said = answer ? `${count(answer.total, "record")}: ${totals.map(([name, n]) => `${name} ${number(/** @type {number} */ (n))}`).join(", ")}` : "";
  return html`<div>
    <p class="mute" role="status">${said || " "}</p>
    <div ref=${box} class="minimap" ...${pointer.on}>
      <${Canvas} width=${width} height=${HEIGHT} draw=${draw} on=${[answer, look]} label=${`log records over the time. ${said}`} name="histogram" />
      ${pointer.dragged && html`<span class="drag" style=${{ left: `${pointer.dragged.x}px`, width: `${pointer.dragged.width}px` }}></span>`}
      ${bin !== null && pointer.at && !pointer.dragged && html`<${Tip} x=${pointer.at.x} y=${pointer.at.y} width=${width}>
        ${clock(answer.from_ns + (bin * length * 1e9) / answer.bins, 1)}: ${of(bin).map(([name, n]) => `${name} ${number(n)}`).join(", ") || "none"}<//>`}
    </div>
  </div>`;
}
