// /capacity: how long jobs would wait at which load, with how many concurrency slots, and what that needs.
import { Fragment, html, useEffect, useState } from "../core/view.js";
import { useAnswer } from "../core/api.js";
import { colour } from "../core/colour.js";
import { count, number, percent, rate, seconds, size } from "../core/format.js";
import { go, useAddress, withParams } from "../core/location.js";
import { LEFT, axes, drawAxes, useHover } from "../parts/axes.js";
import { Answer, Empty } from "../parts/state.js";
import { Table } from "../parts/table.js";
import { Canvas, Tip, useLook, useWidth } from "../parts/timeline.js";

const HEIGHT = 320;
/** How far back it looks, as the API takes it; without a word it is the last hour, as of the command. */
const LAST = { "": "the last hour", "6h": "the last 6 h", "24h": "the last 24 h", "7d": "the last 7 d", "30d": "the last 30 d" };
/** The curves' colours in their order: fewer slots, present, more, asked for. */
const COLOURS = ["line-6", "line-1", "line-3", "line-4"];

/** @typedef {{value: number | null, low: number | null, high: number | null}} Interval */

/** @param {Interval | null | undefined} of @param {(value: number | null) => string} words */
const within = (of, words) => (of ? `${words(of.value)} (${words(of.low)} to ${of.high === null ? "no limit" : words(of.high)})` : "–");

export function Page() {
  const { params } = useAddress();
  useEffect(() => void (document.title = "Capacity – Bulkscope"), []);
  const bulk = params.getAll("bulk");
  const asked = {
    bulk, last: bulk.length ? null : params.get("last"), rate: params.get("rate"), workers: params.get("slots"),
    target: params.get("target"), model: params.get("model"), queue: params.get("queue"),
  };
  const curve = useAnswer("/capacity/curve", asked);
  const set = (/** @type {string} */ name) => (/** @type {any} */ event) => go(withParams({ [name]: event.target.value.trim() }));
  return html`<${Fragment}>
    <header class="head"><h1>Capacity</h1></header>
    <section class="card">
      <div class="row filters">
        ${bulk.length > 0
          ? html`<span>of ${count(bulk.length, "bulk")}: ${bulk.map((id) => html`<span class="id">${id}</span> `)}</span><button onClick=${() => go("/capacity")}>of all</button>`
          : html`<label>from <select value=${params.get("last") ?? ""} onChange=${set("last")}>
              ${Object.entries(LAST).map(([value, name]) => html`<option value=${value} selected=${value === (params.get("last") ?? "")}>${name}</option>`)}
            </select></label>`}
        <label title="the 95th percentile of the queue wait must stay under it: 30s, 2min">p95 of the wait under <input size="6" placeholder="30s" value=${params.get("target") ?? ""} onChange=${set("target")} /></label>
        ${curve.answer?.other_queues.length > 0 &&
        html`<label>queue <select value=${params.get("queue") ?? ""} onChange=${set("queue")}>
          ${[curve.answer.queues[0], ...curve.answer.other_queues].map((/** @type {string} */ name) => html`<option value=${name}>${name}</option>`)}
        </select></label>`}
      </div>
      <${Answer} asked=${curve} draw=${(/** @type {any} */ found) => (found.curves.length ? html`<${Curves} found=${found} params=${params} />` : html`<p class="wrap">${found.answer}</p><${Notes} found=${found} />`)} />
    </section>
    <${More} asked=${{ bulk, last: asked.last, rate: asked.rate, slo: asked.target, model: asked.model, workers: asked.workers }} />
  <//>`;
}

/** @param {{found: any, params: URLSearchParams}} given */
function Curves({ found, params }) {
  const today = found.today;
  const most = Math.max(...found.curves.map((/** @type {any} */ curve) => curve.most_per_s ?? 0), (today?.rate_per_s ?? 0) * 1.2);
  const slots = params.get("slots") ?? String(found.places);
  return html`<div class="stacked">
    <p class="lead wrap"><strong>${found.answer}</strong></p>
    <div class="row">
      <${Slider} name="rate" title="arrivals" unit="jobs/s" value=${Number(params.get("rate") ?? today?.rate_per_s ?? 0)} least=${0} most=${most} step=${most / 200} />
      <${Slider} name="slots" title="concurrency slots" unit="" value=${Number(slots)} least=${1} most=${Math.max(8, 4 * found.places)} step=${1} />
      ${(params.get("rate") || params.get("slots")) && html`<button onClick=${() => go(withParams({ rate: null, slots: null }))}>As observed</button>`}
    </div>
    <${Chart} found=${found} />
    <details><summary>As a table</summary><${CurveTable} found=${found} /></details>
    <${Notes} found=${found} />
  </div>`;
}

/** A slider that asks once it is let go. @param {{name: string, title: string, unit: string, value: number, least: number, most: number, step: number}} given */
function Slider({ name, title, unit, value, least, most, step }) {
  const [moved, setMoved] = useState(/** @type {number | null} */ (null));
  useEffect(() => setMoved(null), [value]);
  const shown = moved ?? value;
  return html`<label class="slider"><span>${title} <b>${number(shown)}${unit && ` ${unit}`}</b></span>
    <input type="range" min=${least} max=${most} step=${step} value=${shown} aria-valuetext=${`${number(shown)} ${unit}`}
      onInput=${(/** @type {any} */ event) => setMoved(Number(event.target.value))}
      onChange=${(/** @type {any} */ event) => go(withParams({ [name]: Number(Number(event.target.value).toPrecision(4)) }), { replace: true })} />
  </label>`;
}

/** A name for a curve. @param {any} curve */
const named = (curve) => `${count(curve.places, "slot")}${curve.present ? " (now)" : ""}`;

/** @param {{found: any}} given */
function Chart({ found }) {
  const [box, width] = useWidth();
  const [at, hover] = useHover();
  const look = useLook();
  const { curves, today, asked } = found;
  const known = curves.filter((/** @type {any} */ curve) => curve.points.length);
  const mostRate = 1.05 * Math.max(...curves.map((/** @type {any} */ curve) => curve.most_per_s ?? 0), today?.rate_per_s ?? 0);
  // As high as what a reader decides on: the target, today's wait with its interval; beyond, a curve leaves at the top.
  const seen = [asked.slo_s, today?.wait?.p95_s?.high, today?.wait?.p95_s?.value, today?.measured_wait?.p95_s].filter((each) => Number.isFinite(each));
  const mostWait = 1.5 * Math.max(...seen, ...(seen.length ? [] : known.map((/** @type {any} */ curve) => curve.points[Math.floor(curve.points.length * 0.8)]?.p95_s.value ?? 0)), 1e-3);
  const axis = axes(width, HEIGHT, { x: mostRate, y: mostWait });
  const { x, wide, high } = axis;
  const y = (/** @type {number} */ value) => axis.y(Math.min(value, mostWait * 1.05));
  const draw = (/** @type {CanvasRenderingContext2D} */ g) => {
    const [ink, fail] = [colour("ink"), colour("fail")];
    g.clearRect(0, 0, width, HEIGHT);
    drawAxes(g, axis, { x: number, y: seconds, title: "arrivals, jobs/s" });
    g.save();
    g.beginPath();
    g.rect(LEFT, 6, wide, high + 4);
    g.clip();
    curves.forEach((/** @type {any} */ curve, /** @type {number} */ i) => {
      const points = curve.points.filter((/** @type {any} */ point) => point.p95_s?.value !== null && point.p95_s);
      if (!points.length) return;
      g.fillStyle = g.strokeStyle = colour(COLOURS[i % COLOURS.length]);
      if (curve.present || curve.asked) {
        g.globalAlpha = 0.13;
        g.beginPath();
        for (const point of points) g.lineTo(x(point.rate_per_s), y(point.p95_s.low ?? point.p95_s.value));
        for (const point of points.slice().reverse()) g.lineTo(x(point.rate_per_s), point.p95_s.high === null ? 0 : y(point.p95_s.high));
        g.fill();
        g.globalAlpha = 1;
      }
      g.lineWidth = curve.present ? 2.5 : 1.5;
      g.setLineDash(curve.present || curve.asked ? [] : [5, 4]);
      g.beginPath();
      for (const point of points) g.lineTo(x(point.rate_per_s), y(point.p95_s.value));
      g.stroke();
      g.setLineDash([]);
    });
    if (Number.isFinite(asked.slo_s)) {
      g.strokeStyle = fail;
      g.lineWidth = 1.5;
      g.beginPath();
      g.moveTo(LEFT, y(asked.slo_s));
      g.lineTo(LEFT + wide, y(asked.slo_s));
      g.stroke();
    }
    const wait = today?.wait?.p95_s;
    if (wait?.value !== null && wait !== undefined) {
      g.strokeStyle = g.fillStyle = ink;
      g.lineWidth = 1.5;
      g.beginPath();
      g.moveTo(x(today.rate_per_s), y(wait.low ?? wait.value));
      g.lineTo(x(today.rate_per_s), wait.high === null ? 0 : y(wait.high));
      g.stroke();
      g.beginPath();
      g.arc(x(today.rate_per_s), y(wait.value), 5, 0, 2 * Math.PI);
      g.fill();
    }
    g.restore();
  };
  const load = at && at.x >= LEFT ? ((at.x - LEFT) / wide) * mostRate : null;
  const nearest = (/** @type {any} */ curve) => curve.points.reduce((/** @type {any} */ best, /** @type {any} */ point) => (load !== null && (!best || Math.abs(point.rate_per_s - load) < Math.abs(best.rate_per_s - load)) ? point : best), null);
  return html`<div>
    <div class="key" aria-hidden="true">
      ${curves.map((/** @type {any} */ curve, /** @type {number} */ i) => html`<span><i style=${{ background: `var(--${COLOURS[i % COLOURS.length]})` }}></i>${named(curve)}${curve.problem ? html` <span class="warn">${curve.problem}</span>` : ""}</span>`)}
      ${today && html`<span>● ${today.observed ? "the load as observed" : "the load that is asked about"}</span>`}
      ${Number.isFinite(asked.slo_s) && html`<span><i style=${{ background: "var(--fail)" }}></i>the wait that is allowed, ${seconds(asked.slo_s)}</span>`}
    </div>
    <div ref=${box} style=${{ position: "relative" }} ...${hover}>
      <${Canvas} width=${width} height=${HEIGHT} draw=${draw} on=${[found, look]} name="curve" label=${`p95 of the queue wait over the arrival rate. ${found.answer}`} />
      ${at && load !== null && html`<${Tip} x=${at.x} y=${at.y} width=${width}>
        at ${rate(load, "jobs/s")}, 95 % of the jobs wait less than
        ${known.map((/** @type {any} */ curve) => {
          const point = nearest(curve);
          return html`<div>${named(curve)}: ${load > (curve.most_per_s ?? Infinity) ? "without end: more than these slots can do" : within(point?.p95_s, seconds)}</div>`;
        })}<//>`}
    </div>
  </div>`;
}

/** @param {{found: any}} given */
function CurveTable({ found }) {
  const present = found.curves.find((/** @type {any} */ curve) => curve.present) ?? found.curves[0];
  const step = Math.max(1, Math.floor(present.points.length / 10));
  const shares = present.points.filter((/** @type {any} */ _, /** @type {number} */ i) => i % step === 0);
  /** @type {import("../parts/table.js").Column[]} */
  const columns = [
    { name: "busy", title: "slots busy", cell: (row) => percent(row.utilization_share) },
    ...found.curves.flatMap((/** @type {any} */ curve) => [
      { name: `rate ${curve.places}`, title: `${named(curve)}: jobs/s`, right: true, cell: (/** @type {any} */ row) => number(curve.points[row.i]?.rate_per_s) },
      { name: `wait ${curve.places}`, title: "p95 of the wait", right: true, cell: (/** @type {any} */ row) => within(curve.points[row.i]?.p95_s, seconds) },
    ]),
  ];
  const rows = shares.map((/** @type {any} */ point) => ({ ...point, i: present.points.indexOf(point) }));
  return html`<${Table} caption="p95 of the queue wait by load" columns=${columns} rows=${rows} keyOf=${(/** @type {any} */ row) => String(row.i)} />`;
}

/** @param {{found: any}} given */
const Notes = ({ found }) => html`<details>
  <summary>What this rests on</summary>
  <ul class="notes">
    ${(found.today?.conditions ?? []).map((/** @type {any} */ each) => html`<li><span class=${each.holds ? "good" : "warn"}>${each.holds ? "✓" : "✗"}</span> ${each.text}</li>`)}
    ${found.notes.map((/** @type {string} */ note) => html`<li>${note}</li>`)}
  </ul>
</details>`;

/** What the pools sustain and what fits into memory, as `bulkscope capacity` has it. @param {{asked: import("../core/api.js").Params}} given */
function More({ asked }) {
  // Asked for when it is opened: it costs as much again as the curves.
  const [open, setOpen] = useState(false);
  const found = useAnswer(open ? "/capacity" : null, asked);
  return html`<section class="card"><details onToggle=${(/** @type {any} */ event) => setOpen(event.target.open)}>
    <summary><h2 class="inline">What is sustained, and what fits into memory</h2></summary>
    ${open && html`<${Answer} asked=${found} draw=${(/** @type {any} */ answer) => (answer.pools.length ? answer.pools.map((/** @type {any} */ pool) => html`<${Pool} pool=${pool} />`) : html`<${Empty}>No worker was seen in that time: choose a longer one.<//>`)} />`}
  </details></section>`;
}

/** @param {{pool: any}} given */
function Pool({ pool }) {
  const { memory } = pool;
  /** @type {import("../parts/table.js").Column[]} */
  const columns = [
    { name: "model", title: "model", cell: (row) => row.model ?? "unknown" },
    { name: "slots", title: "slots", right: true, cell: (row) => number(row.now.places) },
    { name: "rate", title: "sustained rate", right: true, tip: "jobs/s with all slots busy, with its 95 % interval", cell: (row) => (row.now.problem ? html`<span class="mute">${row.now.problem}</span>` : `${within(row.now.rate_per_s, number)} jobs/s`) },
    { name: "tokens", title: "tokens/s", right: true, cell: (row) => within(row.now.tokens_per_s, number) },
    { name: "service", title: "service time", right: true, tip: "how long a job takes its slot", cell: (row) => seconds(row.now.service_s) },
    { name: "cpu", title: "CPU a job", right: true, cell: (row) => seconds(row.now.cpu_s) },
    { name: "attempts", title: "attempts", right: true, cell: (row) => number(row.now.attempts) },
  ];
  return html`<h3>${pool.queues.join(", ")}: ${count(pool.workers, "worker")}, ${count(pool.places, "slot")}</h3>
    <${Table} caption=${`what ${pool.queues.join(", ")} sustains`} columns=${columns} rows=${pool.models} keyOf=${(/** @type {any} */ row) => String(row.model)} />
    ${memory?.workers_per_limit !== null && memory?.workers_per_limit !== undefined &&
    html`<p>Memory: ${count(memory.workers_per_limit, "worker")} of ${size(memory.per_worker_bytes)} fit into each of ${count(memory.limits, "limit")} of ${size(memory.limit_bytes)} (${number(memory.workers_seen)} were seen).</p>`}`;
}
