// Failed attempts by domain and type of error, each with its first one as example.
import { html } from "../core/view.js";
import { ABSENT, clock, moment, number, seconds, size, zone } from "../core/format.js";
import { bulkHref, jobHref, traceHref, withParams } from "../core/location.js";
import { Table } from "./table.js";

/** @param {{failures: any[], params?: URLSearchParams | null}} given
 * with `params` they are of one bulk, and a click filters the jobs of the page by the error */
export function Failures({ failures, params = null }) {
  const chosen = (/** @type {any} */ row) => params?.get("error") === row.error_type && params?.get("domain") === row.failure_domain;
  // Attempts that were all tried again have left no failed job.
  const final = (/** @type {any} */ row) => row.attempts > row.retried_attempts;
  const at = params ? clock : moment;
  const log = (/** @type {any} */ e) => `/logs?bulk=${encodeURIComponent(e.bulk)}&job=${encodeURIComponent(e.job)}`;
  /** @type {import("./table.js").Column[]} */
  const columns = [
    { name: "domain", title: "domain", cell: (row) => row.failure_domain },
    { name: "error", title: "error", cell: (row) =>
      params && final(row) ? html`<a href=${withParams(chosen(row) ? { domain: null, error: null, offset: null } : { domain: row.failure_domain, error: row.error_type, offset: null })} title="the jobs that failed so">${row.error_type}</a>` : row.error_type },
    { name: "attempts", title: "attempts", right: true, tip: "failed attempts", cell: (row) => number(row.attempts) },
    { name: "again", title: "tried again", right: true, cell: (row) => number(row.retried_attempts) },
    { name: "jobs", title: "jobs", right: true, tip: "jobs of these attempts", cell: (row) => number(row.jobs) },
    ...(params ? [] : [{ name: "bulks", title: "bulks", right: true, cell: (/** @type {any} */ row) => number(row.bulks) }]),
    { name: "workers", title: "workers", right: true, cell: (row) => number(row.workers) },
    { name: "first", title: `first, ${zone()}`, cell: (row) => at(row.first_ns) },
    { name: "last", title: "last", cell: (row) => at(row.last_ns) },
    { name: "example", title: "the first of them", long: true, cell: ({ example: e }) => html`${e.bulk && e.job ? html`<a class="id" href=${jobHref(e.bulk, e.job)}>${e.job}</a>` : "a job without a bulk"}${!params && e.bulk && html` of <a class="id" href=${bulkHref(e.bulk)}>${e.bulk}</a>`} on ${e.worker ?? "an unknown worker"}
      ${" · "}<a href=${traceHref(e.trace_id, e.span_id)}>trace</a> · ${e.bulk && e.job && html`<a href=${log(e)}>log</a>`}${e.message ? html`<br /><span class="mute">${e.message}</span>` : ""}` },
  ];
  return html`<${Table} caption="failed attempts by error" columns=${columns} rows=${failures} keyOf=${(/** @type {any} */ row) => `${row.failure_domain} ${row.error_type}`} selected=${failures.filter(chosen).map((row) => `${row.failure_domain} ${row.error_type}`)[0] ?? null} />`;
}

/** Attempts that were lost with their workers, as the last heartbeat of each described it. @param {{bulk: string, lost: any[]}} given */
export function Lost({ bulk, lost }) {
  /** @type {import("./table.js").Column[]} */
  const columns = [
    { name: "job", title: "job", cell: (row) => html`<a class="id" href=${jobHref(bulk, row.job_id)}>${row.job_id}</a>` },
    { name: "attempt", title: "attempt", right: true, cell: (row) => number(row.attempt) },
    { name: "domain", title: "cause", cell: (row) => `${row.domain ?? "unknown"}${row.likely ? " (likely)" : ""}` },
    { name: "worker", title: "worker", cell: (row) => row.worker ?? ABSENT },
    { name: "model", title: "model", cell: (row) => (row.model ? `${row.model}${row.model_likely ? " (likely)" : ""}` : ABSENT) },
    { name: "elapsed", title: "last heard of", right: true, tip: "after its start", cell: (row) => seconds(row.elapsed_s) },
    { name: "memory", title: "RAM then", right: true, cell: (row) => size(row.memory_bytes) },
    { name: "limit", title: "limit", right: true, cell: (row) => size(row.memory_limit_bytes) },
  ];
  return html`<${Table} caption="attempts lost with their workers" columns=${columns} rows=${lost} keyOf=${(/** @type {any} */ row) => `${row.job_id} ${row.attempt}`} />`;
}
