// /compare?a&b: two bulks, kept runs or models side by side: what differs, with intervals, and what speaks against it.
import { Fragment, html, useEffect, useState } from "../core/view.js";
import { useAnswer } from "../core/api.js";
import { colour } from "../core/colour.js";
import { count, estimate, number, percent, seconds, size, times, value } from "../core/format.js";
import { bulkHref, go, useAddress, withParams } from "../core/location.js";
import { Answer, Empty } from "../parts/state.js";
import { Table } from "../parts/table.js";
import { Canvas, useLook, useWidth } from "../parts/timeline.js";

/** The widest ratio that the plot shows; what lies beyond leaves at its edge. */
const MOST_RATIO = 4;
const HEIGHT = 150;
const AXIS = 18;
const SIDES = { a: "line-1", b: "line-2" };

export function Page() {
  const { params } = useAddress();
  const [a, b] = [params.get("a") ?? "", params.get("b") ?? ""];
  const models = params.get("models") === "1";
  useEffect(() => void (document.title = `${a && b ? `${a} and ${b}` : "Compare"} – Bulkscope`), [a, b]);
  const asked = useAnswer(a && (b || models) ? "/compare" : null, { a, b, models: models || null });
  return html`<${Fragment}>
    <header class="head"><h1>Compare</h1></header>
    <${Choice} a=${a} b=${b} models=${models} key=${`${a} ${b} ${models}`} />
    ${a && (b || models)
      ? html`<${Answer} asked=${asked} draw=${(/** @type {any} */ found) => html`<${Found} found=${found} />`} />`
      : html`<section class="card"><${Empty}>Choose two bulks, kept runs, or models of one (<code>NAME@MODEL</code>). In the <a href="/">list of bulks</a> two can be selected.<//></section>`}
  <//>`;
}

/** @param {{a: string, b: string, models: boolean}} given */
function Choice({ a, b, models }) {
  const bulks = useAnswer("/bulks", { limit: 100 });
  const runs = useAnswer("/runs");
  const [first, setFirst] = useState(a);
  const [second, setSecond] = useState(b);
  const names = [...(runs.answer?.runs ?? runs.answer ?? []).map((/** @type {any} */ run) => run.name), ...(bulks.answer?.bulks ?? []).map((/** @type {any} */ bulk) => bulk.id)];
  const submit = (/** @type {Event} */ event) => {
    event.preventDefault();
    go(withParams({ a: first.trim(), b: models ? null : second.trim() }));
  };
  const field = (/** @type {string} */ label, /** @type {string} */ value, /** @type {(value: string) => void} */ set) =>
    html`<label class="side">${label} <input list="names" value=${value} placeholder="bulk or run" onInput=${(/** @type {any} */ event) => set(event.target.value)} /></label>`;
  return html`<form class="card row" onSubmit=${submit}>
    ${field("A", first, setFirst)} ${!models && field("B", second, setSecond)}
    <label title="the two models with most inferences of A"><input type="checkbox" checked=${models} onChange=${(/** @type {any} */ event) => go(withParams({ models: event.target.checked ? "1" : null, a: first.trim(), b: event.target.checked ? null : second.trim() }))} /> the models of A</label>
    <button class="main" type="submit">Compare</button>
    ${a && b && html`<button type="button" onClick=${() => go(withParams({ a: b, b: a }))}>Swap</button>`}
    <datalist id="names">${names.map((name) => html`<option value=${name}></option>`)}</datalist>
  </form>`;
}

/** @param {{found: any}} given */
function Found({ found }) {
  return html`<div class="stacked">
    <section class="card">
      ${found.cautions.map((/** @type {any} */ caution) => html`<p class="caution warn">Caution: ${caution.text}</p>`)}
      <p class=${`lead wrap ${found.cautions.length ? "warn" : ""}`}><strong>${found.answer}</strong></p>
    </section>
    ${found.rows.length > 0 &&
    html`<section class="card">
      <h2>B against A <span class="mute">with ${percent(found.intervals.family)} intervals for all together</span></h2>
      <${Forest} rows=${found.rows} />
      <p class="mute">${found.pairing.paired ? count(found.pairing.pairs, "pair") : found.pairing.reason} The quality of the answers is not judged.</p>
    </section>`}
    ${found.times && html`<section class="card"><h2>Time of one job${found.times.equal_tokens ? ", at equal tokens" : ""}</h2><${Spread} times=${found.times} /></section>`}
    <div class="grid">${["a", "b"].map((name) => html`<${Side} name=${name.toUpperCase()} side=${found[name]} />`)}</div>
    ${found.notes.length > 0 && html`<section class="card"><h2>Notes</h2><ul class="notes">${found.notes.map((/** @type {string} */ note) => html`<li>${note}</li>`)}</ul></section>`}
  </div>`;
}

/** @param {{rows: any[]}} given */
function Forest({ rows }) {
  /** @type {import("../parts/table.js").Column[]} */
  const columns = [
    { name: "title", title: "number", cell: (row) => row.title },
    { name: "a", title: "A", right: true, cell: (row) => estimate(row.a, value(row.a, row.unit), row.estimated) },
    { name: "b", title: "B", right: true, cell: (row) => estimate(row.b, value(row.b, row.unit), row.estimated) },
    { name: "plot", title: `less · 1 · more`, tip: "ratio of B to A with its interval; in the grey band are differences that so many jobs cannot show", cell: (row) => (row.effect && row.kind === "ratio" ? html`<${Whisker} effect=${row.effect} verdict=${row.verdict} />` : "") },
    {
      name: "effect", title: "B against A", right: true,
      cell: (row) => (row.effect ? (row.kind === "ratio" ? `${times(row.effect.value)} (${times(row.effect.low)} to ${times(row.effect.high)})` : `${percent(row.effect.value)} (${percent(row.effect.low)} to ${percent(row.effect.high)})`) : "–"),
    },
    { name: "verdict", title: "B is", cell: (row) => html`<b>${row.verdict}</b>` },
    { name: "note", title: "", long: true, cell: (row) => html`<span class="mute">${row.note}</span>` },
  ];
  return html`<${Table} caption="ratios of B to A" columns=${columns} rows=${rows} keyOf=${(/** @type {any} */ row) => row.name} />`;
}

/** Where a ratio stands between a quarter and four times, in percent of the plot. @param {number} ratio */
const place = (ratio) => 50 + (50 * Math.max(-1, Math.min(1, Math.log(Math.max(ratio, 1e-9)) / Math.log(MOST_RATIO))));

/** @param {{effect: any, verdict: string}} given */
function Whisker({ effect, verdict }) {
  const [low, high] = [place(effect.low), place(effect.high)];
  const plain = verdict === "no difference seen";
  const still = effect.smallest ? place(1 + effect.smallest) - 50 : 0;
  return html`<span class="whisker" role="img" aria-label=${`ratio ${times(effect.value)}, between ${times(effect.low)} and ${times(effect.high)}`}>
    <span class="still" style=${{ left: `${50 - still}%`, width: `${2 * still}%` }}></span><span class="one"></span>
    <span class="reach" style=${{ left: `${low}%`, width: `${Math.max(0.8, high - low)}%`, background: plain ? "var(--mute)" : "var(--accent)" }}></span>
    <span class="at" style=${{ left: `${place(effect.value)}%`, background: plain ? "var(--mute)" : "var(--accent)" }}></span>
  </span>`;
}

/** How the times of one job are spread on both sides. @param {{times: any}} given */
function Spread({ times: found }) {
  const [box, width] = useWidth();
  const look = useLook();
  const [first, last] = [Math.log(found.edges_s[0]), Math.log(found.edges_s.at(-1))];
  const x = (/** @type {number} */ s) => ((Math.log(s) - first) / (last - first)) * width;
  const most = Math.max(...found.a.share, ...found.b.share, 1e-9);
  const high = HEIGHT - AXIS;
  const draw = (/** @type {CanvasRenderingContext2D} */ g) => {
    g.clearRect(0, 0, width, HEIGHT);
    for (const [name, of] of Object.entries(SIDES)) {
      g.fillStyle = g.strokeStyle = colour(of);
      g.lineWidth = 2;
      g.beginPath();
      g.moveTo(0, high);
      found[name].share.forEach((/** @type {number} */ share, /** @type {number} */ i) => {
        const top = high - (share / most) * (high - 6);
        g.lineTo(x(found.edges_s[i]), top);
        g.lineTo(x(found.edges_s[i + 1] ?? found.edges_s[i]), top);
      });
      g.lineTo(width, high);
      g.globalAlpha = 0.18;
      g.fill();
      g.globalAlpha = 1;
      g.stroke();
    }
    g.fillStyle = colour("mute");
    g.font = "11px system-ui";
    g.textAlign = "center";
    for (let step = 1; step <= 5; step++) {
      const s = Math.exp(first + ((last - first) * step) / 6);
      g.fillText(seconds(Number(s.toPrecision(2))), x(s), HEIGHT - 4);
    }
  };
  /** @type {import("../parts/table.js").Column[]} */
  const columns = [
    { name: "side", title: "side", cell: (row) => html`<i class="dot" style=${{ background: `var(--${SIDES[/** @type {"a" | "b"} */ (row.name)]})` }}></i> ${row.name.toUpperCase()}` },
    ...["p5_s", "p25_s", "p50_s", "p75_s", "p95_s"].map((name) => ({ name, title: name.slice(0, -2), right: true, cell: (/** @type {any} */ row) => seconds(row[name]) })),
  ];
  return html`<div ref=${box}>
    <${Canvas} width=${width} height=${HEIGHT} draw=${draw} on=${[found, look]} name="spread" label=${`shares of jobs by their time: half of A's take under ${seconds(found.a.p50_s)}, of B's under ${seconds(found.b.p50_s)}`} />
    <${Table} caption="times of one job" columns=${columns} rows=${["a", "b"].map((name) => ({ name, ...found[name] }))} keyOf=${(/** @type {any} */ row) => row.name} />
  </div>`;
}

/** @param {{name: string, side: any}} given */
function Side({ name, side }) {
  /** @type {[string, any][]} */
  const pairs = [
    ["models", side.models.join(", ") || "–"],
    ["jobs", `${number(side.ended)} of ${number(side.sent)} ended, ${number(side.failed)} failed`],
    ["makespan", seconds(side.makespan_s)],
    ["workers", `${number(side.workers)} on ${side.hosts.join(", ") || "–"}`],
    ["tokens a job", `${number(side.input_tokens_mean)} in, ${number(side.output_tokens_mean)} out`],
    ["highest peak RAM of a worker", size(side.memory_peak_bytes)],
    ["CPU pressure", percent(side.pressure)],
  ];
  return html`<section class="card">
    <h2>${name}: ${side.label}</h2>
    ${side.bulks.length > 0 && html`<p>${side.bulks.slice(0, 20).map((/** @type {string} */ id) => html`<a class="id" href=${bulkHref(id)} title=${id}>${id}</a> `)}</p>`}
    <dl class="pairs">${pairs.map(([what, text]) => html`<dt>${what}</dt><dd>${text}</dd>`)}</dl>
  </section>`;
}
