// The queue and the machine now, or at another time: load, what waits, how long, and the hosts, on one axis.
import { Fragment, html, useEffect } from "../core/view.js";
import { useAnswer } from "../core/api.js";
import { ago, clock, count, known, moment, number, percent, rate, seconds, size, zone } from "../core/format.js";
import { bulkHref, go, useAddress, useParam, withParams } from "../core/location.js";
import { Plots } from "../parts/plot.js";
import { Empty, Failed } from "../parts/state.js";

/** @typedef {import("../core/format.js").Maybe} Maybe */
/** @typedef {import("../parts/plot.js").Plot} Plot */
/** @typedef {import("../parts/plot.js").Series} Series */

/** Ranges that end now, s. */
const RANGES = [["15m", "15 min", 900], ["1h", "1 h", 3600], ["6h", "6 h", 21600], ["24h", "24 h", 86400]];
const BINS = 180;
const NARROW_BINS = 90;
const LINES = ["line-1", "line-2", "line-3", "line-4", "line-5", "line-6"];

export function Page() {
  useEffect(() => void (document.title = "Live – Bulkscope"), []);
  const { params } = useAddress();
  const [chosen] = useParam("range", "15m");
  const [host, setHost] = useParam("host");
  const [service, setService] = useParam("service");
  const facets = useAnswer("/facets").answer;
  const past = pastRange(params);
  const [, , lastS] = RANGES.find(([name]) => name === chosen) ?? RANGES[0];
  const when = past ? { from_ns: Math.round(past.from * 1e9), to_ns: Math.round(past.to * 1e9) } : { last_s: lastS };
  // A past range never changes; a present one is asked again while it is seen, half as often as it has a new bin.
  const everyS = past ? 0 : Math.min(30, Math.max(5, Number(lastS) / BINS / 2));
  const asked = useAnswer("/live", { ...when, bins: innerWidth < 640 ? NARROW_BINS : BINS, host, service }, { everyS });
  const { answer, error } = asked;
  return html`<${Fragment}>
    <div class="head">
      <h1>Live</h1>
      <div class="toggle" role="group" aria-label="time shown">
        ${RANGES.map(([name, title]) => html`<button aria-pressed=${!past && name === chosen} onClick=${() => go(withParams({ range: name === "15m" ? null : name, from: null, to: null }))}>${title}</button>`)}
      </div>
      ${past && html`<span class="mute">${moment(past.from * 1e9)} to ${moment(past.to * 1e9)} ${zone()}</span> <button onClick=${() => go(withParams({ from: null, to: null }))}>Back to now</button>`}
      <div class="end">
        <${Choice} name="host" value=${host} options=${names(facets?.hosts)} set=${setHost} />
        <${Choice} name="service" value=${service} options=${names(facets?.services)} set=${setService} />
      </div>
    </div>
    ${error && !answer && html`<${Failed} error=${error} again=${asked.again} />`}
    ${!answer && !error && html`<div class="state mute" role="status">loading…</div>`}
    ${answer && html`<div class=${asked.loading ? "stack-page busy" : "stack-page"} aria-busy=${asked.loading}><${Shown} live=${answer} present=${!past} host=${host} /></div>`}
  <//>`;
}

/** @param {{name: string}[] | undefined} of @returns {string[]} */
const names = (of) => (of ?? []).map(({ name }) => name);

/** The range that the address asks for, s since the epoch; null for one that ends now. @param {URLSearchParams} params */
function pastRange(params) {
  const [from, to] = [Number(params.get("from") || NaN), Number(params.get("to") || NaN)];
  return from < to ? { from, to } : null;
}

/** @param {{name: string, value: string, options: string[], set: (value: string | null) => void}} given */
function Choice({ name, value, options, set }) {
  const all = value && !options.includes(value) ? [value, ...options] : options;
  return html`<label>${name}
    <select value=${value} onChange=${(/** @type {any} */ event) => set(event.target.value || null)}>
      <option value="">all</option>
      ${all.map((each) => html`<option value=${each} selected=${each === value}>${each || "unknown"}</option>`)}
    </select>
  </label>`;
}

/** @param {{live: any, present: boolean, host: string}} given */
function Shown({ live, present, host }) {
  const { first_ns: first, last_ns: last } = live.heard;
  const zoom = (/** @type {import("../parts/timeline.js").Range | null} */ range) => {
    if (!range) return go(withParams({ from: null, to: null }));
    // What is to come is not known: a range ends now at the latest.
    const beyond = Math.max(0, live.from_ns / 1e9 + range.to - Date.now() / 1e3);
    const at = (/** @type {number} */ s) => (live.from_ns / 1e9 + s - beyond).toFixed(3);
    return go(withParams({ from: at(range.from), to: at(range.to) }));
  };
  const silent = first === null || last < live.from_ns || first > live.to_ns;
  return html`<${Fragment}>
    ${present && html`<${Saturated} live=${live} />`}
    ${present && !silent && html`<${Now} live=${live} />`}
    ${silent
      ? html`<section class="card"><${Empty}>
          <p><b>Nothing was recorded in this time.</b></p>
          ${first === null
            ? html`<p>The studio has no records yet. <a href="/">How to send some</a></p>`
            : html`<p>The last record came ${ago(last)}, at ${moment(last)} ${zone()}.</p>
              <button onClick=${() => go(withParams({ from: (last / 1e9 - 900).toFixed(0), to: (last / 1e9 + 1).toFixed(0) }))}>Show the 15 minutes before it</button>`}
        <//></section>`
      : html`<section class="card"><${Plots} axis=${live} plots=${plots(live)} marks=${marks(live)} onZoom=${zoom} label="load, queue, latency and machine over time" />
          <p class="mute">${[
            present ? "drag: zoom" : "drag: zoom · double click: back to now",
            live.more_bulks ? `${count(live.more_bulks, "bulk")} more began in this time` : "",
            live.more_hosts ? `${count(live.more_hosts, "host")} more` : "",
            host ? "what waits in queues is that of all hosts" : "",
          ].filter(Boolean).join(" · ")}</p></section>`}
  <//>`;
}

/** One sentence: is the machine full, and does work wait? @param {{live: any}} given */
function Saturated({ live }) {
  const { state, hosts, full_hosts: full } = live.saturation;
  const waits = whole(live.now.waiting);
  const waiting = known(waits) ? (waits > 0 ? `${count(waits, "job")} ${waits === 1 ? "waits" : "wait"}` : "no job waits") : "nobody tells how many jobs wait";
  const most = hosts[0];
  let said = `Not known: no host was sampled in the last minute; ${waiting}.`;
  if (state === "room") said = `No: the busiest host, ${name(most)}, uses ${percent(most.cpu_share)} of its cores${known(most.memory_share) ? ` and ${percent(most.memory_share)} of its memory` : ""}; ${waiting}.`;
  if (state === "full") {
    const of = most.full_of.map((/** @type {string} */ what) => (what === "cores" ? `uses ${percent(most.cpu_share)} of its cores` : `uses ${percent(most.memory_share)} of its memory`)).join(" and ");
    said = `Yes: ${name(most)} ${of}${full > 1 ? `, and ${count(full - 1, "host")} more ${full === 2 ? "is" : "are"} full` : ""}; ${waiting}.`;
  }
  const colour = { full: "bad", room: "good" }[/** @type {string} */ (state)] ?? "mute";
  return html`<section class="card verdict" style=${{ borderLeft: `4px solid var(--${colour})` }}>
    <h2>Is the machine saturated now?</h2>
    <p data-name="saturated">${said}</p>
  </section>`;
}

/** A gauge's mean over its samples, as jobs. @param {Maybe} value */
const whole = (value) => (known(value) ? Math.round(value) : value);
const name = (/** @type {any} */ host) => host.host || "an unnamed host";

/** Tiles: the last whole bin. @param {{live: any}} given */
function Now({ live: { now, bin_s: length } }) {
  const both = (/** @type {Maybe} */ p50, /** @type {Maybe} */ p95) => html`<b>${seconds(p50)}</b> <small>· ${seconds(p95)}</small>`;
  /** @type {[string, any, string?][]} */
  const tiles = [
    ["jobs sent", html`<b>${rate(now.arrivals_per_s, "/s")}</b>`],
    ["jobs done", html`<b>${rate(now.done_per_s, "/s")}</b>${now.failed_per_s > 0 ? html` <small class="bad">· ${number(now.failed_per_s)} /s failed</small>` : ""}`],
    ["waiting", html`<b>${number(whole(now.waiting))}</b>${known(now.oldest_waiting_s) ? html` <small>· oldest ${seconds(now.oldest_waiting_s)}</small>` : ""}`, "of all queues, as processes report them"],
    ["running", html`<b>${number(now.running)}</b>`],
    ["wait p50 · p95", both(now.wait_p50_s, now.wait_p95_s)],
    ["work p50 · p95", both(now.work_p50_s, now.work_p95_s)],
    ["API latency p50 · p95", both(now.latency_p50_s, now.latency_p95_s)],
    ["output", html`<b>${rate(now.output_tokens_per_s, "tokens/s")}</b>`],
  ];
  return html`<dl class="card numbers" aria-label=${`the ${seconds(length)} from ${clock(now.from_ns)} ${zone()}`}>
    ${tiles.map(([title, value, tip]) => html`<div title=${tip ?? `in the ${seconds(length)} from ${clock(now.from_ns)} ${zone()}`}><dt>${title}</dt><dd>${value}</dd></div>`)}
  </dl>`;
}

/** @param {any} live @returns {Plot[]} */
function plots(live) {
  const { jobs, requests, tokens, hosts } = live;
  const per = (/** @type {string} */ unit) => (/** @type {Maybe} */ value) => rate(value, unit);
  const line = (/** @type {string} */ title, /** @type {any} */ values, /** @type {string} */ colour) => ({ name: title, values, colour });
  const of = (/** @type {string} */ column) => hosts.map((/** @type {any} */ host, /** @type {number} */ n) => line(name(host), host[column], LINES[Math.min(n, LINES.length - 1)]))
    .filter((/** @type {Series} */ one) => one.values.some(known));
  const bytes = hosts.flatMap((/** @type {any} */ host) => host.memory_limit_bytes.filter(known));
  /** @type {Plot[]} */
  const all = [
    { name: "load", title: "Load", text: per("jobs/s"), short: number, about: "jobs that API requests sent, and that ended",
      series: [line("sent", jobs.arrivals_per_s, "line-5"), line("done", jobs.done_per_s, "line-3"), line("failed", jobs.failed_per_s, "line-2")] },
    { name: "queue", title: "Queue", text: (/** @type {Maybe} */ value) => count(value, "job"), short: number, about: "jobs that wait in all queues, as processes report them, and attempts that run",
      series: [line("waiting", jobs.waiting, "line-5"), line("running", jobs.running, "line-1")] },
    { name: "wait", title: "Wait", text: seconds, series: [line("p50", jobs.wait_p50_s, "line-1"), line("p95", jobs.wait_p95_s, "line-2")] },
    { name: "work", title: "Work", text: seconds, series: [line("p50", jobs.work_p50_s, "line-1"), line("p95", jobs.work_p95_s, "line-2")] },
    { name: "latency", title: "API latency", text: seconds, series: [line("p50", requests.latency_p50_s, "line-1"), line("p95", requests.latency_p95_s, "line-2")] },
    { name: "requests", title: "API requests", text: per("requests/s"), short: number,
      series: [line("asked for work", requests.requests_per_s, "line-1"), line("reads", requests.reads_per_s, "line-6"), line("refused: client", requests.client_error_per_s, "line-5"), line("refused: overload", requests.overload_per_s, "line-4"), line("failed", requests.internal_error_per_s, "line-2")] },
    { name: "tokens", title: "Tokens", text: per("tokens/s"), short: number, series: [line("output", tokens.output_per_s, "line-1"), line("input", tokens.input_per_s, "line-5")].filter(({ values }) => values) },
    { name: "cpu", title: "CPU", text: percent, most: 1, about: "share of a host's cores in use", series: of("cpu_share") },
    { name: "pressure", title: "CPU pressure", text: percent, most: 0.1, about: "share of the time in which some task waited for a core", series: of("cpu_pressure_share") },
    { name: "ram", title: "RAM", text: size, bytes: true, most: Math.max(0, ...bytes), series: of("memory_used_bytes") },
  ];
  return all.filter(({ series }) => series.some(({ values }) => values.some(known)));
}

/** @param {any} live @returns {import("../parts/plot.js").Mark[]} */
const marks = (live) =>
  live.bulks.map((/** @type {any} */ bulk) => ({
    from: (bulk.start_ns - live.from_ns) / 1e9,
    to: ((bulk.state === "running" ? live.to_ns : bulk.end_ns ?? bulk.start_ns) - live.from_ns) / 1e9,
    name: bulk.id,
    href: bulkHref(bulk.id),
    text: `${bulk.state}, began ${clock(bulk.start_ns)}`,
  }));
