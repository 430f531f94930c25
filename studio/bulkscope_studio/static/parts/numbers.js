// The numbers of a bulk's report: the most asked ones as a strip, each a link to the jobs behind it, and all thirteen with
// their definitions.
import { html } from "../core/view.js";
import { frozen } from "../core/api.js";
import { ABSENT, count, known, number, percent, seconds, size, unlessExact } from "../core/format.js";
import { withParams } from "../core/location.js";

/** @param {any} of a distribution, or null @param {string} name @returns {number | null} */
const at = (of, name) => of?.[name] ?? null;
/** @param {any} of a distribution */
const quantiles = (of) => (of ? ["p50", "p95", "max"].map((name) => seconds(of[name])).join(" / ") : ABSENT);

/** @typedef {{name: string, text: import("../core/view.js").Children, small?: string, tip?: string, to: Record<string, string | null>, bad?: boolean}} Figure */

/** @param {any} report @param {any} summary @param {any} found the explanation, or null @returns {Figure[]} */
function figures(report, summary, found) {
  const { jobs, inferences: inf } = report.total;
  const p = report.progress;
  const pair = (/** @type {any} */ of) => ({ text: seconds(at(of, "p50")), small: `· ${seconds(at(of, "p95"))}` });
  const w = found?.workers;
  const whole = w ? w.own_s + w.others_s + w.dispatch_s + w.idle_s : 0;
  /** @type {(Figure | null | false)[]} */
  const all = [
    { name: summary.state === "running" ? "took so far" : "took", text: seconds(summary.took_s), small: found?.makespan ? `at least ${seconds(found.makespan.floor)}` : "",
      tip: "from the first request to the last end, and what the same work needs at least on as many slots; the jobs that ended last", to: { tab: "jobs", sort: "-ended_ns" } },
    { name: "done", text: number(p.done), small: `of ${number(p.sent)} sent`, tip: "jobs whose last attempt was good", to: { tab: "jobs", status: "done" } },
    { name: "failed", text: number(p.failed), small: jobs.retries ? count(jobs.retries, "retry", "retries") : "", bad: p.failed > 0, tip: "jobs whose last attempt failed, and attempts that were tried again", to: { tab: "failed" } },
    { name: "jobs/s", text: number(jobs.rate_per_s), tip: "jobs done over the makespan; by worker", to: { tab: "workers" } },
    { name: "wait p50 · p95", ...pair(jobs.wait_s), tip: "queue wait of each attempt", to: { tab: "wait" } },
    { name: "work p50 · p95", ...pair(jobs.process_s), tip: "work of each attempt", to: { tab: "work" } },
    inf.ttft_s && { name: "first token", ...pair(inf.ttft_s), tip: "from the start of an inference to its first token, p50 · p95", to: { tab: "jobs", sort: "-ttft_s" } },
    inf.count > 0 && { name: "tokens/s", text: number(inf.tokens_per_s), small: known(inf.decode_tokens_per_s) ? `decode ${number(inf.decode_tokens_per_s)}` : "",
      tip: "output tokens over inference time, a sum over a sum; by model", to: { tab: "models" } },
    inf.count > 0 && { name: "tokens in · out", text: number(inf.input_tokens), small: `· ${number(inf.output_tokens)}`, tip: "tokens used and generated", to: { tab: "jobs", sort: "-output_tokens" } },
    whole > 0 && { name: "busy", text: percent((w.own_s + w.others_s) / whole), small: `of ${count(w.places, "slot")}`, tip: "share of the time in which slots worked, for this bulk or another", to: { tab: "workers" } },
    inf.count > 0 && { name: "CPU", text: unlessExact(inf.cpu_s, seconds(inf.cpu_s), inf.cpu_exact_share), small: known(inf.cpu_pressure_share) ? `pressure ${percent(inf.cpu_pressure_share)}` : "",
      tip: "CPU time of all inferences, and the share of the time in which work waited for a CPU", to: { tab: "jobs", sort: "-cpu_s" } },
    inf.count > 0 && { name: "peak RAM", text: unlessExact(inf.memory_peak_bytes, size(inf.memory_peak_bytes), inf.memory_exact_share), small: known(inf.memory_limit_bytes) ? `limit ${size(inf.memory_limit_bytes)}` : "",
      tip: "highest memory of a process during an inference", to: { tab: "jobs", sort: "-memory_peak_bytes" } },
    ...["cancelled", "lost", "unknown", "running", "waiting", "retrying"].map((name) => p[name] > 0 && { name, text: number(p[name]), to: { tab: "jobs", status: name }, bad: name === "lost" }),
    ...["not_sent", "duplicate"].map((name) => p[name] > 0 && { name: name.replace("_", " "), text: number(p[name]), tip: "not among those that were sent", to: { tab: "evidence" } }),
  ];
  return /** @type {Figure[]} */ (all.filter(Boolean));
}

const FILTERS = ["tab", "sort", "offset", "status", "search", "worker", "host", "model", "domain", "error", "from", "to"];

/** An address of jobs of the whole bulk, which a number counts: every filter that it does not name goes.
 * @param {Record<string, string | null>} to */
export const ofAll = (to) => withParams({ ...Object.fromEntries(FILTERS.map((name) => [name, null])), ...to });

/** @param {{report: any, summary: any, found: any}} given */
export function Numbers({ report, summary, found }) {
  return html`<section class="card numbers strip" aria-label="key numbers">
    ${figures(report, summary, found).map(({ name, text, small, tip, to, bad }) => {
      const said = html`<span class="what">${name}</span><br /><b class=${bad ? "bad" : ""}>${text}</b> <small>${small}</small>`;
      // A saved page does not hold all jobs.
      return frozen && to.tab === "jobs" ? html`<div key=${name} title=${tip}>${said}</div>` : html`<a key=${name} href=${ofAll(to)} title=${tip}>${said}</a>`;
    })}
  </section>`;
}

/** The values of the thirteen numbers, by their number, as `bulkscope report` has them. @param {any} report
 * @returns {Record<number, [string, string][]>} */
function values(report) {
  const { jobs, inferences: inf } = report.total;
  const r = report.requests;
  const counts = (/** @type {Record<string, number>} */ of) => Object.entries(of).map(([name, n]) => `${name} ${number(n)}`).join(", ") || "none";
  return {
    1: [["requests", number(r.count) + (known(r.rate_per_s) ? `, ${number(r.rate_per_s)}/s` : "")]],
    2: [["outcomes", counts(r.outcomes)]],
    3: [["p50 / p95 / max", quantiles(r.latency_s)], ["enqueueing", seconds(r.enqueue_s)]],
    4: [["done", number(jobs.done)], ["jobs/s", number(jobs.rate_per_s)], ["makespan", seconds(jobs.makespan_s)]],
    5: [["failed jobs", number(jobs.failed)], ["by domain", counts(jobs.failures_by_domain)], ["errors of attempts", counts(jobs.errors)], ["retries", number(jobs.retries)]],
    6: [["wait p50 / p95 / max", quantiles(jobs.wait_s)], ["negative waits", number(jobs.negative_waits)], ["work p50 / p95 / max", quantiles(jobs.process_s)], ["scheduled delay", seconds(jobs.delay_s)]],
    7: [["inferences", number(inf.count)], ["p50 / p95 / max", quantiles(inf.duration_s)], ["first token", quantiles(inf.ttft_s)], ["prefill", quantiles(inf.prefill_s)], ["decode", quantiles(inf.decode_s)]],
    8: [["CPU time", unlessExact(inf.cpu_s, seconds(inf.cpu_s), inf.cpu_exact_share)], ["an output token", unlessExact(inf.cpu_s_per_output_token, seconds(inf.cpu_s_per_output_token), inf.cpu_exact_share)], ["share of its cores", percent(at(inf.cpu_utilization, "mean"))], ["pressure", percent(inf.cpu_pressure_share)], ["throttled", seconds(inf.cpu_throttled_s)]],
    9: [["at start", size(inf.memory_start_bytes)], ["peak", unlessExact(inf.memory_peak_bytes, size(inf.memory_peak_bytes), inf.memory_exact_share)], ["growth", unlessExact(inf.memory_growth_max_bytes, size(inf.memory_growth_max_bytes), inf.memory_exact_share)], ["limit", size(inf.memory_limit_bytes)]],
    10: [["output tokens", number(inf.output_tokens)]],
    11: [["input tokens", number(inf.input_tokens)], ["of these cached", number(inf.cached_tokens)]],
    12: [["tokens/s", number(inf.tokens_per_s)], ["decode", number(inf.decode_tokens_per_s)]],
    13: [["mean", percent(at(jobs.wait_ratio, "mean"))], ["median", percent(at(jobs.wait_ratio, "p50"))]],
  };
}

/** @param {{report: any, definitions: {number: number, name: string, definition: string}[]}} given */
export function Thirteen({ report, definitions }) {
  const of = values(report);
  return html`<div class="scroll" tabindex="0" role="region" aria-label="the thirteen numbers">
    <table><thead><tr><th scope="col" class="n"><span class="hidden">number</span></th><th scope="col">name</th><th scope="col">value</th><th scope="col">definition</th></tr></thead>
      <tbody>${definitions.map(({ number: n, name, definition }) => html`<tr><td class="n">${n}</td><td>${name}</td>
        <td>${(of[n] ?? []).map(([label, text]) => html`<div><span class="mute">${label}</span> <b>${text}</b></div>`)}</td><td class="long">${definition.replaceAll("`", "")}</td></tr>`)}</tbody></table>
  </div>`;
}
