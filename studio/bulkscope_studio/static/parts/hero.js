// A bulk over its time: jobs by state, what each worker did, and its machines, on one axis. Everything comes in bins of
// about a pixel, so that 3 and 300,000 jobs cost the same to draw.
import { Fragment, html, useMemo } from "../core/view.js";
import { frozen, ofBulk, useAnswer } from "../core/api.js";
import { colour } from "../core/colour.js";
import { clock, count, known, number, percent, rate, seconds, size, zone } from "../core/format.js";
import { go, useAddress, withParams } from "../core/location.js";
import { question } from "./questions.js";
import { Answer } from "./state.js";
import { Table } from "./table.js";
import { Canvas, Tip, keyed, scaled, ticks, useLook, usePointer, useWidth, zoom, zoomed } from "./timeline.js";

/** @typedef {import("./timeline.js").Range} Range */
/** @typedef {{host: string, workers: string[], slots: number, jobs: number, busy: number[], failed: Record<string, number>}} Lane */
/** @typedef {{bulk: string, from_ns: number, to_ns: number, bins: number, bin_s: number, jobs: Record<string, number[]>, lanes: Lane[]}} OverTime */
/** @typedef {{host: string, cpu_share: (number | null)[], cpu_pressure_share: (number | null)[], memory_used_bytes: (number | null)[],
 * memory_limit_bytes: (number | null)[]}} Host */
/** @typedef {{from_ns: number, to_ns: number, bins: number, bin_s: number, hosts: Host[], more_hosts: number,
 * tokens: Record<string, (number | null)[] | null>}} Machine */
/** @typedef {{x: (s: number) => number, left: number, width: number, range: Range, base: number}} Scale */

const LANES = 96;
const MOST_BINS = 2000;
const JOBS_PX = 150;
const AXIS_PX = 20;
const STRIP_PX = 40;
/** All strips of workers together, and one of them, px. */
const LANES_PX = 420;
const LANE_PX = { least: 3, most: 18 };
/** From the bottom: what is over, what goes on, what is to come. */
const STATES = [["done", "done"], ["failed", "fail"], ["running", "work"], ["waiting", "wait"]];
const LINES = ["line-1", "line-2", "line-3", "line-4", "line-5", "line-6"];
/** Shades of a strip that is partly busy. */
const SHADES = 8;
/** Hosts that the tooltip lists. */
const TOLD = 6;

/** @param {{bulk: string, summary: any, restS?: number}} given `summary` is the bulk's row of /bulks, `restS` the least time
 * between two questions while its records come */
export function Hero({ bulk, summary, restS = 3 }) {
  const { params } = useAddress();
  const [box, width] = useWidth();
  const left = width < 600 ? 60 : 92;
  // As many as pixels, in steps: a window that is a little wider needs no new answer.
  const bins = Math.min(MOST_BINS, Math.max(20, Math.floor((width - left) / 20) * 20));
  const how = { of: bulk, restS };
  // A saved page has one number of bins, which are drawn as wide as its range asks for.
  const [path, all] = frozen ? question("overtime", bulk) : [ofBulk(bulk, "overtime"), { bins, lanes: LANES }];
  const [machinePath, ofMachine] = frozen ? question("machine", bulk) : [ofBulk(bulk, "machine"), { bins }];
  const whole = useAnswer(width ? path : null, all, how);
  const base = whole.answer?.from_ns ?? 0;
  const length = whole.answer ? (whole.answer.to_ns - base) / 1e9 : 0;
  const zoomedTo = whole.answer ? zoomed(params, length) : null;
  const range = zoomedTo ?? { from: 0, to: length };
  const asked = zoomedTo && !frozen ? { from_ns: Math.round(base + range.from * 1e9), to_ns: Math.round(base + range.to * 1e9) } : null;
  const part = useAnswer(asked && path, { ...all, ...asked }, how);
  const machines = useAnswer(whole.answer && machinePath, { ...ofMachine, ...asked }, how);
  // Until finer bins are there, those of the whole are drawn wider.
  const fine = asked !== null && part.answer?.from_ns === asked.from_ns && part.answer?.to_ns === asked.to_ns;
  const data = fine ? part.answer : whole.answer;
  return html`<section class="card hero" aria-busy=${asked !== null && !fine}>
    <div ref=${box}>
      <${Answer} asked=${whole} draw=${() => html`<${Charts} data=${data} machine=${machines.answer} range=${range} base=${base} length=${length}
        zoomed=${zoomedTo !== null} width=${width} left=${left} worker=${params.get("worker")} awaited=${machines.loading} running=${summary?.state === "running"} />`} />
      ${part.error && html`<p class="bad" role="alert">${part.error.message}</p>`}
    </div>
  </section>`;
}

/** @param {{data: OverTime, machine: Machine | null, range: Range, base: number, length: number, zoomed: boolean, width: number, left: number,
 * worker: string | null, awaited: boolean, running: boolean}} given */
function Charts({ data, machine, range, base, length, zoomed, width, left, worker, awaited, running }) {
  const look = useLook();
  const wide = Math.max(1, width - left);
  /** @type {Scale} */
  const scale = { x: (s) => left + ((s - range.from) / (range.to - range.from)) * wide, left, width: wide, range, base };
  const rows = useMemo(() => layout(data.lanes), [data]);
  const lanesFrom = JOBS_PX + AXIS_PX + KEY_PX;
  const lane = (/** @type {number} */ y) => rows.tops.findIndex((top) => y - lanesFrom >= top && y - lanesFrom < top + rows.height);
  const move = (/** @type {Range | null} */ to, how = {}) => zoom(to, length, how);
  const { at, dragged, on } = usePointer({
    left, width: wide, range, onZoom: move,
    onClick: (y) => {
      const hit = data.lanes[lane(y)];
      if (!hit) return;
      // Several may share a strip: a click takes the first, the next click the next, and after the last none.
      go(withParams({ worker: hit.workers[hit.workers.indexOf(worker ?? "") + 1] ?? null, offset: null }));
    },
  });
  const keys = (/** @type {KeyboardEvent} */ event) => {
    if (event.target !== event.currentTarget || event.ctrlKey || event.metaKey || event.altKey) return;
    const to = keyed(event.key, range);
    if (to === undefined) return;
    event.preventDefault();
    move(to, { replace: true });
  };
  const on_ = [data, range.from, range.to, look];
  const workers = data.lanes.reduce((sum, { workers }) => sum + workers.length, 0);
  const hosts = new Set(data.lanes.map(({ host }) => host)).size;
  // Bins of the whole bulk stand in for finer ones, which may still come: numbers are those of the range all the same.
  const shown = inRange(data, range, base);
  const end = Object.fromEntries(STATES.map(([state]) => [state, data.jobs[state][shown.to - 1] ?? 0]));
  const said = STATES.map(([state]) => `${number(end[state])} ${state}`).join(", ");
  const failed = data.lanes.reduce((sum, lane) => sum + failedIn(lane, shown), 0);
  const pointed = at && at.x >= left && at.x <= left + wide ? range.from + ((at.x - left) / wide) * (range.to - range.from) : null;
  return html`<${Fragment}>
    <div class="head">
      <h2>Jobs over time</h2>
      <div class="key">${[...STATES].map(([state, of]) => html`<span><i style=${{ background: `var(--${of})` }}></i>${state} <b>${number(end[state])}</b></span>`)}</div>
      <div class="end">
        <span class=${zoomed ? "mute" : "mute wide"}>${zoomed ? `${seconds(range.from)} to ${seconds(range.to)} of ${seconds(length)}` : frozen ? "" : "drag: zoom · double click: all"}</span>
        <button aria-label="earlier" title="earlier (arrow left)" disabled=${!zoomed} onClick=${() => move(keyed("ArrowLeft", range) ?? null)}>‹</button>
        <button aria-label="later" title="later (arrow right)" disabled=${!zoomed} onClick=${() => move(keyed("ArrowRight", range) ?? null)}>›</button>
        <button aria-label="zoom in" title="zoom in (+)" onClick=${() => move(scaled(range, 0.5))}>+</button>
        <button aria-label="zoom out" title="zoom out (-)" disabled=${!zoomed} onClick=${() => move(scaled(range, 2))}>−</button>
        <button title="show the whole bulk (0)" disabled=${!zoomed} onClick=${() => move(null)}>All</button>
      </div>
    </div>
    <div class="axis" tabindex="0" role="group" aria-label="the bulk over time; arrows move, plus and minus zoom, 0 shows all" onKeyDown=${keys} ...${on}>
      <${Canvas} name="jobs" width=${width} height=${JOBS_PX + AXIS_PX} on=${on_} draw=${(/** @type {any} */ g) => drawJobs(g, data, scale)}
        label=${`Jobs by state from ${clock(base + range.from * 1e9)} to ${clock(base + range.to * 1e9)} ${zone()}, at its end: ${said}${running ? ", and it goes on" : ""}`} />
      <div class="title" style=${{ height: `${KEY_PX}px` }}><b>${count(workers, "worker")} on ${count(hosts, "host")}</b>
        <span class="key"><span><i style=${{ background: "var(--work)" }}></i>busy</span><span><i style=${{ background: "var(--idle)" }}></i>free</span>
          <span><i style=${{ background: "var(--fail)" }}></i>an attempt failed</span></span>
        ${worker ? html`<a class="chip" href=${withParams({ worker: null, offset: null })} title="all workers">${worker} <span aria-hidden="true">×</span></a>` : html`<span class="mute wide">click a strip: its jobs</span>`}</div>
      <${Canvas} name="lanes" width=${width} height=${rows.total} on=${[...on_, worker]} draw=${(/** @type {any} */ g) => drawLanes(g, data, scale, rows, worker)}
        label=${`${count(workers, "worker")} on ${count(hosts, "host")}, when each was busy; ${count(failed, "attempt")} failed in this time`} />
      ${machine && html`<${Machines} machine=${machine} scale=${scale} width=${width} look=${look} />`}
      ${!machine && awaited && html`<div style=${{ height: `${KEY_PX + 4 * (STRIP_PX + 4)}px` }}></div>`}
      ${dragged && html`<div class="brush" style=${{ left: `${dragged.x}px`, width: `${dragged.width}px` }}></div>`}
      ${pointed !== null && html`<div class="cross" style=${{ left: `${at?.x}px` }}></div>`}
      ${pointed !== null && at && !dragged && html`<${Tip} x=${at.x} y=${at.y} width=${width}>${told(pointed, data, machine, data.lanes[lane(at.y)], base)}<//>`}
    </div>
    <details><summary>as a table</summary><${AsTable} data=${data} machine=${machine} base=${base} worker=${worker} shown=${shown} /></details>
  <//>`;
}

/** The line above the strips of workers, px. */
const KEY_PX = 26;

/** Where each strip of a worker stands: hosts apart, together at most LANES_PX high.
 * @param {Lane[]} lanes @returns {{tops: number[], height: number, total: number}} px */
export function layout(lanes) {
  const others = lanes.filter(({ host }, n) => n > 0 && host !== lanes[n - 1].host).length;
  const gap = others ? Math.min(8, Math.floor((LANES_PX - LANE_PX.least * lanes.length) / others)) : 0;
  const height = Math.min(LANE_PX.most, Math.max(LANE_PX.least, Math.floor((LANES_PX - gap * others) / Math.max(1, lanes.length))));
  /** @type {number[]} */
  const tops = [];
  let y = 0;
  lanes.forEach(({ host }, n) => {
    if (n > 0 && host !== lanes[n - 1].host) y += gap;
    tops.push(y);
    y += height;
  });
  return { tops, height, total: Math.max(y, LANE_PX.most) };
}

/** The bins of an answer that lie in the range, the last one excluded. @param {{from_ns: number, bins: number, bin_s: number}} data
 * @param {Range} range @param {number} base */
function inRange(data, range, base) {
  const first = (data.from_ns - base) / 1e9;
  return {
    from: Math.max(0, Math.floor((range.from - first) / data.bin_s + 1e-6)),
    to: Math.min(data.bins, Math.ceil((range.to - first) / data.bin_s - 1e-6)),
  };
}

/** @param {Lane} lane @param {{from: number, to: number}} bins */
const failedIn = ({ failed }, { from, to }) => Object.entries(failed).reduce((sum, [bin, many]) => (Number(bin) >= from && Number(bin) < to ? sum + many : sum), 0);

/** The bins of an answer that lie in the range, and where they begin and end: on whole pixels of the screen, one at least.
 * @param {{from_ns: number, bins: number, bin_s: number}} data @param {Scale} scale */
function binned(data, { x, left, width, range, base }) {
  const first = (data.from_ns - base) / 1e9;
  const { from, to } = inRange(data, range, base);
  const whole = (/** @type {number} */ px) => Math.round(Math.min(Math.max(px, left), left + width) * devicePixelRatio) / devicePixelRatio;
  const begin = (/** @type {number} */ bin) => Math.min(whole(x(first + bin * data.bin_s)), left + width - 1);
  return { from, to, begin, end: (/** @type {number} */ bin) => Math.max(whole(x(first + (bin + 1) * data.bin_s)), begin(bin) + 1 / devicePixelRatio) };
}

/** @param {CanvasRenderingContext2D} g @param {Scale} scale @param {number} height @param {boolean} named */
function drawAxis(g, { x, left, width, range, base }, height, named) {
  g.strokeStyle = colour("line");
  g.fillStyle = colour("mute");
  g.font = "11px system-ui, sans-serif";
  g.textAlign = "center";
  g.textBaseline = "alphabetic";
  g.lineWidth = 1;
  for (const { at, text } of ticks(range, base, width)) {
    const px = Math.round(x(at)) + 0.5;
    g.globalAlpha = 0.7;
    g.beginPath();
    g.moveTo(px, 0);
    g.lineTo(px, height);
    g.stroke();
    g.globalAlpha = 1;
    const half = g.measureText(text).width / 2;
    if (named) g.fillText(text, Math.min(Math.max(px, half), left + width - half), height + 14);
  }
}

/** Text left of the axis. @param {CanvasRenderingContext2D} g @param {string} text @param {number} y @param {number} room px @param {string} align */
function aside(g, text, y, room, align = "left") {
  g.font = "11px system-ui, sans-serif";
  g.textBaseline = "middle";
  g.textAlign = align === "left" ? "left" : "right";
  let shown = text;
  while (shown.length > 1 && g.measureText(shown).width > room) shown = `${shown.slice(0, -2)}…`;
  g.fillText(shown, align === "left" ? 0 : room, y);
}

/** @param {CanvasRenderingContext2D} g @param {OverTime} data @param {Scale} scale */
function drawJobs(g, data, scale) {
  const { from, to, begin, end } = binned(data, scale);
  let most = 1;
  for (let bin = from; bin < to; bin++) most = Math.max(most, STATES.reduce((sum, [state]) => sum + data.jobs[state][bin], 0));
  const colours = STATES.map(([, of]) => colour(of));
  const below = new Float64Array(data.bins);
  STATES.forEach(([state], n) => {
    g.fillStyle = colours[n];
    const values = data.jobs[state];
    for (let bin = from; bin < to; bin++) {
      if (!values[bin]) continue;
      // What is there is seen: 1 of 300,000 is less than a pixel.
      const high = Math.max(1, (values[bin] / most) * (JOBS_PX - 6));
      g.fillRect(begin(bin), JOBS_PX - below[bin] - high, end(bin) - begin(bin), high);
      below[bin] += high;
    }
  });
  drawAxis(g, scale, JOBS_PX, true);
  g.fillStyle = colour("mute");
  aside(g, number(most), 8, scale.left - 8, "right");
  aside(g, "0 jobs", JOBS_PX - 6, scale.left - 8, "right");
}

/** @param {CanvasRenderingContext2D} g @param {OverTime} data @param {Scale} scale @param {ReturnType<typeof layout>} rows @param {string | null} worker */
function drawLanes(g, data, scale, { tops, height, total }, worker) {
  const { from, to, begin, end } = binned(data, scale);
  const [idle, work, fail, mute, accent] = ["idle", "work", "fail", "mute", "accent"].map(colour);
  const high = height > 4 ? height - 1.5 : height - 1;
  const lit = data.lanes.some(({ workers }) => workers.includes(worker ?? ""));
  let named = -20;
  data.lanes.forEach((lane, n) => {
    const y = tops[n];
    const mine = lane.workers.includes(worker ?? "");
    const strength = lit && !mine ? 0.35 : 1;
    g.globalAlpha = 1;
    g.fillStyle = idle;
    g.fillRect(scale.left, y, scale.width, high);
    g.fillStyle = work;
    for (let bin = from; bin < to; bin++) {
      const shade = shadeOf(lane, bin);
      if (!shade) continue;
      let last = bin;
      while (last + 1 < to && shadeOf(lane, last + 1) === shade) last++;
      g.globalAlpha = strength * (0.3 + (0.7 * shade) / SHADES);
      g.fillRect(begin(bin), y, end(last) - begin(bin), high);
      bin = last;
    }
    g.globalAlpha = strength;
    g.fillStyle = fail;
    for (const at of Object.keys(lane.failed)) {
      const bin = Number(at);
      if (bin >= from && bin < to) g.fillRect(Math.max(scale.left, end(bin) - Math.max(2, end(bin) - begin(bin))), y, Math.max(2, end(bin) - begin(bin)), high);
    }
    g.globalAlpha = 1;
    if (mine) {
      g.fillStyle = accent;
      g.fillRect(scale.left - 6, y, 4, Math.max(high, 2));
    }
    if ((n === 0 || lane.host !== data.lanes[n - 1].host) && y - named >= 12) {
      g.fillStyle = mute;
      aside(g, lane.host || "unknown", Math.min(y + Math.max(6, high / 2), total - 5), scale.left - 8);
      named = y;
    }
  });
}

/** How busy a strip is in a bin: 0 (free) to SHADES (all slots). What is busy at all has a shade.
 * @param {Lane} lane @param {number} bin */
const shadeOf = (lane, bin) => (lane.busy[bin] > 0 ? Math.max(1, Math.min(SHADES, Math.round((SHADES * lane.busy[bin]) / Math.max(1, lane.slots)))) : 0);

/** CPU, pressure and RAM of each host, and tokens/s, each a thin strip.
 * @param {{machine: Machine, scale: Scale, width: number, look: string}} given */
function Machines({ machine, scale, width, look }) {
  /** @type {(values: (number | null)[][], least: number) => number} */
  const most = (values, least) => values.reduce((all, of) => of.reduce((/** @type {number} */ max, value) => Math.max(max, value ?? 0), all), least);
  const of = (/** @type {keyof Host} */ name) => machine.hosts.map((host) => /** @type {(number | null)[]} */ (host[name]));
  const limit = most(of("memory_limit_bytes"), 0) || most(of("memory_used_bytes"), 1);
  const pressure = most(of("cpu_pressure_share"), 0.1);
  const output = machine.tokens.output_per_s;
  /** @type {{name: string, title: string, short: string, top: string, series: (number | null)[][], most: number}[]} */
  const strips = [
    { name: "cpu", title: "CPU", short: "CPU", top: "100 %", series: of("cpu_share"), most: 1 },
    { name: "pressure", title: "CPU pressure", short: "pressure", top: percent(pressure), series: of("cpu_pressure_share"), most: pressure },
    { name: "ram", title: "RAM", short: "RAM", top: size(limit), series: of("memory_used_bytes"), most: limit },
    ...(output ? [{ name: "tokens", title: "output tokens/s", short: "tokens/s", top: number(most([output], 1)), series: [output], most: most([output], 1) }] : []),
  ].filter(({ series }) => series.some((values) => values.some(known)));
  if (!strips.length) return null;
  const hosts = machine.hosts;
  return html`<div class="title" style=${{ height: `${KEY_PX}px` }}><b>Machine</b>
      <span class="key">${hosts.slice(0, TOLD).map(({ host }, n) => html`<span><i style=${{ background: `var(--${lineOf(n)})` }}></i>${host || "unknown"}</span>`)}
        ${hosts.length + machine.more_hosts > TOLD && html`<span>and ${count(hosts.length + machine.more_hosts - TOLD, "host")} more</span>`}</span></div>
    ${strips.map(
      ({ name, title, short, top, series, most }) => html`<${Canvas} key=${name} name=${name} width=${width} height=${STRIP_PX + 4} on=${[machine, scale.range.from, scale.range.to, look]}
        label=${`${title}, by host, at most ${top}; highest ${percent(Math.max(0, ...series.map((values) => values.reduce((/** @type {number} */ a, b) => Math.max(a, b ?? 0), 0))) / most)} of it`}
        draw=${(/** @type {any} */ g) => drawStrip(g, machine, scale, short, top, series, most)} />`,
    )}`;
}

const lineOf = (/** @type {number} */ n) => LINES[Math.min(n, LINES.length - 1)];

/** @param {CanvasRenderingContext2D} g @param {Machine} data @param {Scale} scale @param {string} title @param {string} top
 * @param {(number | null)[][]} series @param {number} most */
function drawStrip(g, data, scale, title, top, series, most) {
  const { from, to, begin, end } = binned(data, scale);
  g.fillStyle = colour("soft");
  g.fillRect(scale.left, 0, scale.width, STRIP_PX);
  drawAxis(g, scale, STRIP_PX, false);
  g.lineWidth = 1.5;
  g.lineJoin = "round";
  series.forEach((values, n) => {
    g.strokeStyle = colour(lineOf(n));
    g.beginPath();
    for (let bin = from, open = false; bin < to; bin++) {
      const value = values[bin];
      // A bin without a value is a gap, never a line to the next one.
      if (!known(value)) open = false;
      else {
        const y = STRIP_PX - 1 - (Math.min(value, most) / most) * (STRIP_PX - 2);
        if (!open) g.moveTo(begin(bin), y);
        g.lineTo(begin(bin), y);
        g.lineTo(end(bin), y);
        open = true;
      }
    }
    g.stroke();
  });
  g.fillStyle = colour("ink");
  aside(g, title, 12, scale.left - 8);
  g.fillStyle = colour("mute");
  aside(g, top, 27, scale.left - 8);
}

/** @param {number} at s @param {OverTime | Machine} data @param {number} base */
const binAt = (at, data, base) => Math.min(data.bins - 1, Math.max(0, Math.floor((at - (data.from_ns - base) / 1e9) / data.bin_s)));

/** What the pointer is at, in words. @param {number} at s @param {OverTime} data @param {Machine | null} machine @param {Lane | undefined} lane
 * @param {number} base */
function told(at, data, machine, lane, base) {
  const bin = binAt(at, data, base);
  const of = machine ? binAt(at, machine, base) : 0;
  return html`<b>${seconds(at)} into the bulk</b> <span class="mute">${clock(base + at * 1e9, data.bin_s < 1 ? 1 : 0)} ${zone()}</span>
    <table><tbody>
      ${[...STATES].reverse().map(([state, name]) => html`<tr><td><i class="dot" style=${{ background: `var(--${name})` }}></i>${state}</td><td class="n">${number(data.jobs[state][bin])}</td></tr>`)}
    </tbody></table>
    ${lane && html`<div class="wrap"><b>${lane.workers.slice(0, 3).join(", ")}${lane.workers.length > 3 ? ` and ${lane.workers.length - 3} more` : ""}</b>
      ${" "}on ${lane.host || "an unknown host"}: busy ${number(lane.busy[bin])} of ${count(lane.slots, "slot")}${lane.failed[bin] ? `, ${count(lane.failed[bin], "attempt")} failed` : ""}</div>`}
    ${machine && machine.hosts.length > 0 && html`<table><thead><tr><th scope="col">host</th><th class="n">CPU</th><th class="n">pressure</th><th class="n">RAM</th></tr></thead><tbody>
      ${machine.hosts.slice(0, TOLD).map((host, n) => html`<tr><td><i class="dot" style=${{ background: `var(--${lineOf(n)})` }}></i>${host.host || "unknown"}</td>
        <td class="n">${percent(host.cpu_share[of])}</td><td class="n">${percent(host.cpu_pressure_share[of])}</td><td class="n">${size(host.memory_used_bytes[of])}</td></tr>`)}
    </tbody></table>`}
    ${machine?.tokens.output_per_s && html`<div>output ${rate(machine.tokens.output_per_s[of], "tokens/s")} · input ${rate(machine.tokens.input_per_s?.[of], "tokens/s")}</div>`}`;
}

/** The same in 12 rows, and the workers. @param {{data: OverTime, machine: Machine | null, base: number, worker: string | null,
 * shown: {from: number, to: number}}} given */
function AsTable({ data, machine, base, worker, shown }) {
  const bins = shown.to - shown.from;
  const many = Math.min(12, bins);
  const rows = Array.from({ length: many }, (_, n) => shown.from + Math.floor(((n + 1) * bins) / many) - 1);
  const at = (/** @type {number} */ bin) => (data.from_ns - base) / 1e9 + (bin + 1) * data.bin_s;
  const columns = [
    { name: "at", title: "into the bulk", right: true, cell: (/** @type {number} */ bin) => seconds(at(bin)) },
    { name: "clock", title: `at, ${zone()}`, cell: (/** @type {number} */ bin) => clock(base + at(bin) * 1e9) },
    ...STATES.map(([state]) => ({ name: state, title: state, right: true, cell: (/** @type {number} */ bin) => number(data.jobs[state][bin]) })),
    ...(machine?.tokens.output_per_s ? [{ name: "tokens", title: "output tokens/s", right: true, cell: (/** @type {number} */ bin) => number(machine.tokens.output_per_s?.[binAt(at(bin) - data.bin_s / 2, machine, base)]) }] : []),
  ];
  const workers = [
    { name: "host", title: "host", cell: (/** @type {Lane} */ lane) => lane.host || "unknown" },
    { name: "worker", title: "worker", cell: (/** @type {Lane} */ lane) => lane.workers.map((name) => html`<a class="id" href=${withParams({ worker: name === worker ? null : name, offset: null })} aria-current=${name === worker ? "true" : undefined}>${name}</a> `) },
    { name: "slots", title: "slots", right: true, cell: (/** @type {Lane} */ lane) => number(lane.slots) },
    { name: "attempts", title: "attempts", right: true, tip: "in the whole bulk", cell: (/** @type {Lane} */ lane) => number(lane.jobs) },
    { name: "failed", title: "failed in this time", right: true, cell: (/** @type {Lane} */ lane) => number(failedIn(lane, shown)) },
  ];
  return html`<${Fragment}>
    <${Table} caption="jobs at the end of each part of the time shown" columns=${columns} rows=${rows} keyOf=${String} />
    <${Table} caption="workers, and the attempts of each" columns=${workers} rows=${data.lanes} keyOf=${(/** @type {Lane} */ lane) => `${lane.host} ${lane.workers.join(" ")}`} />
  <//>`;
}
