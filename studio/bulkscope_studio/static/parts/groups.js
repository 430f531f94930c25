// The numbers of each worker, host and model of a bulk, as its report has them.
import { Fragment, html } from "../core/view.js";
import { frozen, useAnswer } from "../core/api.js";
import { ABSENT, number, percent, seconds, size, unlessExact } from "../core/format.js";
import { go, useAddress, withParams } from "../core/location.js";
import { question } from "./questions.js";
import { Answer, Empty } from "./state.js";
import { Pages, Table } from "./table.js";

/** The columns that workers and models have in common; `sort` is the API's name for the order of workers.
 * @returns {import("./table.js").Column[]} */
function measures() {
  /** @param {string} name @param {string} title @param {(group: any) => string} cell @param {string} tip */
  const of = (name, title, cell, tip = "") => ({ name, title, sort: name, right: true, tip, cell });
  return [
    of("done_jobs", "done", ({ jobs }) => number(jobs.done), "jobs whose last attempt was good"),
    of("failed_jobs", "failed", ({ jobs }) => number(jobs.failed), "jobs whose last attempt failed"),
    of("retries", "retries", ({ jobs }) => number(jobs.retries), "attempts that failed and were tried again"),
    of("jobs_per_s", "jobs/s", ({ jobs }) => number(jobs.rate_per_s), "jobs done over the time from their first enqueue to their last end"),
    of("wait_p95_s", "wait p95", ({ jobs }) => seconds(jobs.wait_s?.p95), "queue wait"),
    of("work_p50_s", "work p50", ({ jobs }) => seconds(jobs.process_s?.p50)),
    of("work_p95_s", "work p95", ({ jobs }) => seconds(jobs.process_s?.p95)),
    of("tokens_per_s", "tokens/s", ({ inferences }) => number(inferences.tokens_per_s), "output tokens over inference time"),
    of("output_tokens", "tokens out", ({ inferences }) => number(inferences.output_tokens), "tokens generated"),
    of("cpu_s", "CPU", ({ inferences: i }) => unlessExact(i.cpu_s, seconds(i.cpu_s), i.cpu_exact_share), "CPU time of the inferences"),
    of("memory_peak_bytes", "peak RAM", ({ inferences: i }) => unlessExact(i.memory_peak_bytes, size(i.memory_peak_bytes), i.memory_exact_share), "highest memory of a process during an inference"),
  ];
}

/** @param {string} name the parameter @param {string} value @param {string} title */
const toJobs = (name, value, title) => (frozen ? value : html`<a class="id" href=${withParams({ tab: "jobs", [name]: value, sort: null, offset: null })} title=${title}>${value}</a>`);

/** @param {{bulk: string, report: any, restS: number}} given */
export function Workers({ bulk, report, restS }) {
  const { params } = useAddress();
  const [path, fixed] = question("workers", bulk);
  const sort = (!frozen && params.get("sort")) || fixed.sort;
  const offset = frozen ? null : params.get("offset");
  const asked = useAnswer(path, { ...fixed, sort, offset }, { of: bulk, restS });
  /** @type {import("./table.js").Column[]} */
  const columns = [
    { name: "name", title: "worker", sort: "name", cell: (row) => toJobs("worker", row.name, "its jobs") },
    { name: "host", title: "host", sort: "host", cell: (row) => (row.host ? toJobs("host", row.host, "jobs on this host") : ABSENT) },
    { name: "slots", title: "slots", sort: "slots", right: true, tip: "as many jobs as it had at once", cell: ({ jobs }) => number(jobs.places) },
    ...measures(),
  ];
  return html`<${Fragment}>
    <${Answer} asked=${asked} draw=${(/** @type {any} */ answer) => answer.total
      ? html`<${Table} caption="workers" columns=${columns} rows=${answer.workers} keyOf=${(/** @type {any} */ row) => row.name} sort=${sort} selected=${params.get("worker")}
          onSort=${frozen ? undefined : (/** @type {string} */ by) => go(withParams({ sort: by === fixed.sort ? null : by, offset: null }))} />
        ${!frozen && html`<${Pages} total=${answer.total} limit=${Number(fixed.limit)} what="workers" />`}`
      : html`<${Empty}>No worker has ended a job of this bulk yet.<//>`} />
    ${report?.hosts.length > 0 && html`<h3>Hosts while the bulk ran</h3><${Table} caption="hosts" rows=${report.hosts} keyOf=${(/** @type {any} */ row) => row.name} columns=${HOSTS} />`}
  <//>`;
}

/** @type {import("./table.js").Column[]} */
const HOSTS = [
  { name: "host", title: "host", cell: (row) => toJobs("host", row.name, "jobs on this host") },
  ...[["cpu_mean_share", "CPU mean"], ["cpu_max_share", "CPU max"], ["memory_mean_share", "memory mean"], ["memory_max_share", "memory max"]].map(([name, title]) => ({
    name, title, right: true, cell: (/** @type {any} */ row) => percent(row[name]),
  })),
];

/** @param {{report: any}} given */
export function Models({ report }) {
  if (!report.models.length) return html`<${Empty}>No inference was recorded, so there is no model to speak of: docs/own-code.md says how to record those of your own code.<//>`;
  const quantiles = (/** @type {any} */ of) => (of ? `${seconds(of.p50)} · ${seconds(of.p95)}` : ABSENT);
  /** @type {import("./table.js").Column[]} */
  const columns = [
    { name: "name", title: "model", cell: (row) => toJobs("model", row.name, "its jobs") },
    { name: "inferences", title: "inferences", right: true, cell: ({ inferences }) => number(inferences.count) },
    ...measures(),
    ...[["ttft_s", "first token p50 · p95"], ["prefill_s", "prefill"], ["decode_s", "decode"]].map(([name, title]) => ({ name, title, right: true, cell: (/** @type {any} */ { inferences }) => quantiles(inferences[name]) })),
    { name: "decode_rate", title: "decode tokens/s", right: true, cell: ({ inferences }) => number(inferences.decode_tokens_per_s) },
    { name: "input", title: "tokens in", right: true, cell: ({ inferences }) => number(inferences.input_tokens) },
    { name: "cached", title: "cached", right: true, tip: "of the tokens in", cell: ({ inferences }) => number(inferences.cached_tokens) },
  ];
  return html`<${Table} caption="models" columns=${columns} rows=${report.models} keyOf=${(/** @type {any} */ row) => row.name} />`;
}
