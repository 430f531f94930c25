// /models: what each model did, on which hosts; and single inferences by their tokens, to find the odd ones.
import { Fragment, html, useEffect } from "../core/view.js";
import { useAnswer } from "../core/api.js";
import { colour } from "../core/colour.js";
import { count, number, percent, seconds, size, unlessExact } from "../core/format.js";
import { go, jobHref, useAddress, withParams } from "../core/location.js";
import { axes, drawAxes, useHover } from "../parts/axes.js";
import { Range, rangeOf } from "../parts/range.js";
import { Answer, Empty } from "../parts/state.js";
import { Table } from "../parts/table.js";
import { Canvas, Tip, useLook, useWidth } from "../parts/timeline.js";

const HEIGHT = 320;
const COLOURS = ["line-1", "line-2", "line-3", "line-4", "line-5", "line-6"];
/** What the points may be drawn over, and what their height is. @type {Record<string, {over: string, over_title: string, took: string, title: string}>} */
const DRAWN = {
  decode: { over: "output_tokens", over_title: "generated tokens", took: "decode_s", title: "decode" },
  prefill: { over: "computed_tokens", over_title: "prompt tokens that no cache had", took: "prefill_s", title: "prefill" },
  whole: { over: "output_tokens", over_title: "generated tokens", took: "inference_s", title: "the whole inference" },
};
/** The nearest point within so many px is the one that is meant. */
const NEAR_PX = 12;

export function Page() {
  const { params } = useAddress();
  useEffect(() => void (document.title = "Models – Bulkscope"), []);
  const asked = { bulk: params.get("bulk"), host: params.get("host"), ...rangeOf(params) };
  const found = useAnswer("/models", asked);
  const points = useAnswer("/models/points", { ...asked, model: params.get("model") });
  const names = (found.answer?.models ?? []).map((/** @type {any} */ model) => model.name);
  return html`<${Fragment}>
    <header class="head"><h1>Models</h1></header>
    <section class="card">
      <div class="row filters">
        <${Range} />
        ${asked.bulk && html`<span>of bulk <span class="id">${asked.bulk}</span> <button onClick=${() => go(withParams({ bulk: null }))}>of all</button></span>`}
        ${asked.host && html`<span>on ${asked.host} <button onClick=${() => go(withParams({ host: null }))}>on all hosts</button></span>`}
      </div>
      <${Answer} asked=${found} draw=${(/** @type {any} */ answer) => (answer.models.length ? html`<${Models} found=${answer} />` : html`<${Empty}>No inference was recorded in that time. <code>bulkscope doctor</code> says which engines of a service are seen.<//>`)} />
    </section>
    ${names.length > 0 &&
    html`<section class="card">
      <h2>Single inferences</h2>
      <${Answer} asked=${points} draw=${(/** @type {any} */ answer) => html`<${Scatter} found=${answer} names=${names} />`} />
    </section>`}
  <//>`;
}

/** @param {{found: any}} given */
function Models({ found }) {
  const rows = found.models.flatMap((/** @type {any} */ model) => [
    model,
    ...(model.hosts.length > 1 ? model.hosts.map((/** @type {any} */ host) => ({ ...host, model: model.name })) : []),
  ]);
  /** @type {import("../parts/table.js").Column[]} */
  const columns = [
    { name: "name", title: "model, and its hosts", cell: (row) => (row.model ? html`<a class="on" href=${withParams({ host: row.host })}>on ${row.host ?? "unknown"}</a>` : html`<b>${row.name ?? "unknown"}</b>`) },
    { name: "jobs", title: "jobs", right: true, cell: (row) => number(row.jobs) },
    { name: "inferences", title: "inferences", right: true, cell: (row) => number(row.count) },
    { name: "failed", title: "failed", right: true, cell: (row) => html`<span class=${row.failed ? "bad" : ""}>${number(row.failed)}</span>` },
    { name: "time", title: "time p50 · p95", right: true, cell: (row) => `${seconds(row.duration_s?.p50)} · ${seconds(row.duration_s?.p95)}` },
    { name: "ttft", title: "first token p50", right: true, cell: (row) => seconds(row.ttft_s?.p50) },
    { name: "in", title: "tokens in", right: true, cell: (row) => number(row.input_tokens) },
    { name: "out", title: "tokens out", right: true, cell: (row) => number(row.output_tokens) },
    { name: "rate", title: "tokens/s", right: true, tip: "generated tokens over the time of the inferences", cell: (row) => number(row.tokens_per_s) },
    { name: "prefill", title: "prefill tokens/s p50", right: true, cell: (row) => number(row.prefill_rate_tokens_per_s?.p50) },
    { name: "decode", title: "decode tokens/s p50", right: true, cell: (row) => number(row.decode_rate_tokens_per_s?.p50) },
    { name: "cpu", title: "CPU a token", right: true, tip: "CPU seconds a generated token", cell: (row) => unlessExact(row.cpu_s_per_output_token, seconds(row.cpu_s_per_output_token), row.cpu_exact_share) },
    { name: "ram", title: "peak RAM", right: true, cell: (row) => unlessExact(row.memory_peak_bytes, size(row.memory_peak_bytes), row.memory_exact_share) },
  ];
  return html`<${Fragment}>
    <${Table} caption="models" columns=${columns} rows=${rows} keyOf=${(/** @type {any} */ row) => `${row.model ?? ""}\n${row.host ?? ""}\n${row.name ?? ""}`} />
    ${found.sampled_share < 1 && html`<p class="mute">Times and rates are of a sample of ${percent(found.sampled_share)} of the inferences.</p>`}
    ${found.more_models > 0 && html`<p class="mute">${count(found.more_models, "model")} with fewer inferences are not shown.</p>`}
  <//>`;
}

/** @param {{found: any, names: string[]}} given */
function Scatter({ found, names }) {
  const { params } = useAddress();
  const [box, width] = useWidth();
  const look = useLook();
  const [at, hover] = useHover();
  const kind = params.get("draw") ?? "decode";
  const { over, over_title, took, title } = DRAWN[kind] ?? DRAWN.decode;
  const points = found.points.filter((/** @type {any} */ point) => Number.isFinite(point[over] ?? NaN) && Number.isFinite(point[took] ?? NaN));
  const most = (/** @type {string} */ name) => points.reduce((/** @type {number} */ high, /** @type {any} */ point) => Math.max(high, point[name]), 0) * 1.05 || 1;
  const axis = axes(width, HEIGHT, { x: most(over), y: most(took) });
  const x = (/** @type {any} */ point) => axis.x(point[over]);
  const y = (/** @type {any} */ point) => axis.y(point[took]);
  const colourOf = (/** @type {string} */ model) => COLOURS[Math.max(0, names.indexOf(model)) % COLOURS.length];
  const draw = (/** @type {CanvasRenderingContext2D} */ g) => {
    const colours = Object.fromEntries(COLOURS.map((name) => [name, colour(name)]));
    g.clearRect(0, 0, width, HEIGHT);
    drawAxes(g, axis, { x: (tokens) => number(Math.round(tokens)), y: seconds, title: over_title });
    g.globalAlpha = 0.6;
    for (const point of points) {
      g.fillStyle = colours[colourOf(point.model)];
      g.fillRect(x(point) - 1.5, y(point) - 1.5, 3, 3);
    }
    g.globalAlpha = 1;
  };
  const near = at && points.reduce((/** @type {any} */ best, /** @type {any} */ point) => {
    const distance = Math.hypot(x(point) - at.x, y(point) - at.y);
    return distance < (best?.distance ?? NEAR_PX) ? { point, distance } : best;
  }, null);
  const href = near?.point.bulk && near.point.job ? jobHref(near.point.bulk, near.point.job) : null;
  return html`<div>
    <div class="row">
      <span class="toggle" role="group" aria-label="what is drawn">${Object.entries(DRAWN).map(([name, { title: of }]) => html`<button aria-pressed=${name === kind} onClick=${() => go(withParams({ draw: name === "decode" ? null : name }), { replace: true })}>${of}</button>`)}</span>
      <span class="key">${names.slice(0, 12).map((name) => html`<button class="plain" aria-pressed=${params.get("model") === name} onClick=${() => go(withParams({ model: params.get("model") === name ? null : name }))}><i style=${{ background: `var(--${colourOf(name)})` }}></i>${name}</button>`)}</span>
      <span class="mute">${number(points.length)} of ${count(found.inferences, "inference")}, drawn evenly; click one for its job</span>
    </div>
    <div ref=${box} style=${{ position: "relative", cursor: href ? "pointer" : "default" }} ...${hover} onClick=${() => href && go(href)}>
      <${Canvas} width=${width} height=${HEIGHT} draw=${draw} on=${[found, kind, look]} name="scatter" label=${`${title} of ${number(points.length)} inferences over their ${over_title}; the table below has the slowest`} />
      ${at && near && html`<${Tip} x=${at.x} y=${at.y} width=${width}>
        <b>${near.point.job ?? "no job"}</b><div>${near.point.model} on ${near.point.host ?? "–"}</div>
        <div>${title} ${seconds(near.point[took])} for ${number(near.point[over])} ${over_title}</div><//>`}
    </div>
    <details><summary>As a table</summary><${Slowest} points=${points} over=${over} over_title=${over_title} took=${took} title=${title} /></details>
  </div>`;
}

/** The points that took longest. @param {{points: any[], over: string, over_title: string, took: string, title: string}} given */
function Slowest({ points, over, over_title, took, title }) {
  const rows = points.slice().sort((a, b) => b[took] - a[took]).slice(0, 30);
  /** @type {import("../parts/table.js").Column[]} */
  const columns = [
    { name: "job", title: "job", cell: (row) => (row.bulk && row.job ? html`<a class="id" href=${jobHref(row.bulk, row.job)} title=${row.job}>${row.job}</a>` : (row.job ?? "–")) },
    { name: "model", title: "model", cell: (row) => row.model },
    { name: "host", title: "host", cell: (row) => row.host ?? "–" },
    { name: "tokens", title: over_title, right: true, cell: (row) => number(row[over]) },
    { name: "took", title, right: true, cell: (row) => seconds(row[took]) },
  ];
  return html`<${Table} caption=${`the 30 points of longest ${title}`} columns=${columns} rows=${rows} keyOf=${(/** @type {any} */ row) => row.span_id} />`;
}
