// Jobs of a bulk as a table: filtered and sorted by the server, as the address says.
import { html } from "../core/view.js";
import { frozen, useAnswer } from "../core/api.js";
import { ABSENT, clock, count, known, number, seconds, size, zone } from "../core/format.js";
import { go, jobHref, useAddress, withParams } from "../core/location.js";
import { question } from "./questions.js";
import { Answer, Empty } from "./state.js";
import { Pages, Table } from "./table.js";

const STATUS = ["waiting", "running", "retrying", "done", "failed", "cancelled", "lost", "unknown"];
/** @type {Record<string, string>} */
export const STATUS_COLOUR = { done: "good", failed: "bad", lost: "bad", cancelled: "warn", unknown: "warn" };

/** The range that is chosen, ns since the Unix epoch. @param {URLSearchParams} params @param {number} base the bulk's start, ns
 * @returns {{from_ns: number | null, to_ns: number | null}} */
export function chosenRange(params, base) {
  const at = (/** @type {string} */ name) => {
    const value = Number.parseFloat(params.get(name) ?? "");
    return Number.isFinite(value) ? Math.round(base + value * 1e9) : null;
  };
  return { from_ns: at("from"), to_ns: at("to") };
}

/** The filters of jobs that the address has, by the API's names. @param {URLSearchParams} params @param {number} base ns */
export const chosenJobs = (params, base) => ({
  search: params.get("search"), status: params.get("status"), model: params.get("model"), worker: params.get("worker"), host: params.get("host"),
  failure_domain: params.get("domain"), error_type: params.get("error"), ...chosenRange(params, base),
});

/** What is chosen beside the fields, each with what takes it away. @param {{params: URLSearchParams}} given */
export function Chosen({ params }) {
  const names = ["worker", "host", "domain", "error"].filter((name) => params.has(name));
  const ranged = params.has("from") || params.has("to");
  const end = (/** @type {string} */ name) => (params.has(name) ? seconds(Number.parseFloat(params.get(name) ?? "")) : "");
  const chip = (/** @type {string} */ text, /** @type {Record<string, null>} */ change) =>
    html`<a class="chip wrap" href=${withParams({ ...change, offset: null })} title="take this filter away">${text} <span aria-hidden="true">×</span></a>`;
  return [
    ...names.map((name) => chip(`${name} ${params.get(name)}`, { [name]: null })),
    ranged ? chip(`${end("from") || "start"} to ${end("to") || "end"} into the bulk`, { from: null, to: null }) : null,
  ];
}

/** @param {{params: URLSearchParams, models: string[], fixed: Record<string, string>}} given */
function Filters({ params, models, fixed }) {
  const choose = (/** @type {string} */ name) => (/** @type {any} */ event) => go(withParams({ [name]: event.target.value.trim(), offset: null }), { replace: name === "search" });
  /** @param {string} name @param {string[]} values */
  const select = (name, values) => html`<label>${name} <select aria-label=${name} value=${params.get(name) ?? ""} onChange=${choose(name)}>
    <option value="">any</option>${values.map((value) => html`<option value=${value} selected=${value === params.get(name)}>${value}</option>`)}</select></label>`;
  return html`<div class="row filters">
    <input type="search" aria-label="search in the ids of jobs" placeholder="search in ids" value=${params.get("search") ?? ""} onChange=${choose("search")} />
    ${!fixed.status && select("status", STATUS)}${models.length > 1 && select("model", models)}
    <${Chosen} params=${params} />
  </div>`;
}

/** Work as expected and what is beyond, of the longest of the rows. @param {{job: any, longest: number}} given */
function Beyond({ job, longest }) {
  if (!known(job.work_s) || !known(job.expected_s) || !longest) return null;
  const usual = Math.min(job.work_s, job.expected_s);
  const width = (/** @type {number} */ s) => `${(100 * s) / longest}%`;
  return html`<span class="beyond" aria-hidden="true"><i style=${{ width: width(usual), background: "var(--work)" }}></i><i style=${{ width: width(job.work_s - usual), background: "var(--fail)" }}></i></span>`;
}

/** @param {{bulk: string, ask: string, summary: any, restS: number, bars?: boolean, empty?: import("../core/view.js").Children}} given
 * `ask`: which of the questions; `bars`: draw expected work and excess */
export function Jobs({ bulk, ask, summary, restS, bars = false, empty }) {
  const { params } = useAddress();
  const [path, fixed] = question(ask, bulk);
  const chosen = frozen ? {} : chosenJobs(params, summary.start_ns);
  const sort = (!frozen && params.get("sort")) || fixed.sort;
  const limit = Number(fixed.limit);
  const offset = frozen ? 0 : Math.max(0, Number.parseInt(params.get("offset") ?? "", 10) || 0);
  const asked = useAnswer(path, { ...chosen, ...fixed, sort, offset: offset || null }, { of: bulk, restS });
  const filtered = Object.entries(chosen).some(([name, value]) => value !== null && !(name in fixed));
  return html`<div>
    ${!frozen && html`<${Filters} params=${params} models=${summary.models ?? []} fixed=${fixed} />`}
    <${Answer} asked=${asked} draw=${(/** @type {any} */ answer) => {
      if (!answer.jobs.length) {
        return html`<${Empty}>${filtered ? html`No job fits. <a href=${withParams({ status: null, model: null, search: null, worker: null, host: null, domain: null, error: null, from: null, to: null, offset: null })}>Show those of all filters</a>` : empty ?? "This bulk has no jobs."}<//>`;
      }
      return html`<${Table} caption="jobs" columns=${columns(bulk, answer.jobs, bars)} rows=${answer.jobs} keyOf=${(/** @type {any} */ job) => `${job.id} ${job.span_id}`}
          sort=${sort} onSort=${frozen ? undefined : (/** @type {string} */ by) => go(withParams({ sort: by === fixed.sort ? null : by, offset: null }))} />
        ${frozen ? html`<p class="mute">${number(answer.jobs.length)} of ${count(answer.total, "job")}</p>` : html`<${Pages} total=${answer.total} limit=${limit} what="jobs" />`}`;
    }} />
  </div>`;
}

/** @param {string} bulk @param {any[]} jobs @param {boolean} bars @returns {import("./table.js").Column[]} */
function columns(bulk, jobs, bars) {
  const longest = jobs.reduce((most, { work_s }) => Math.max(most, work_s ?? 0), 0);
  const told = (/** @type {string} */ name) => jobs.some((job) => known(job[name]));
  /** @param {string} name @param {string} title @param {(value: any) => string} as @param {string} tip */
  const measure = (name, title, as, tip) => ({ name, title, sort: name, right: true, tip, cell: (/** @type {any} */ job) => as(job[name]) });
  /** @type {(import("./table.js").Column | false)[]} */
  const all = [
    { name: "id", title: "job", sort: "id", cell: (job) => html`<a class="id" href=${jobHref(bulk, job.id)} title=${job.id}>${job.id}</a>` },
    { name: "status", title: "status", sort: "status", cell: (job) => html`<span class=${STATUS_COLOUR[job.status] ?? ""} title=${job.error_type ? `${job.failure_domain ?? "unknown"}: ${job.error_type}` : undefined}>${job.status}${job.error_type ? ` · ${job.error_type}` : ""}${job.attempts > 1 ? html` <span class="mute" title="attempts">×${job.attempts}</span>` : ""}</span>` },
    bars && told("excess_s") && { name: "bar", title: "", cell: (job) => html`<${Beyond} job=${job} longest=${longest} />` },
    measure("work_s", "work", seconds, "from its start to its end"),
    told("expected_s") && measure("expected_s", "expected", seconds, "what jobs of its model and tokens usually take in this bulk"),
    told("excess_s") && measure("excess_s", "excess", seconds, "what it took beyond that"),
    measure("wait_s", "wait", seconds, "queue wait: from its enqueue to its start, the scheduled delay left out"),
    told("input_tokens") && measure("input_tokens", "tokens in", number, "tokens of its prompts, cached ones included"),
    told("output_tokens") && measure("output_tokens", "tokens out", number, "tokens generated"),
    told("cpu_s") && measure("cpu_s", "CPU", seconds, "CPU time of its inferences"),
    told("memory_peak_bytes") && measure("memory_peak_bytes", "RAM", size, "highest memory of its process during an inference"),
    { name: "worker", title: "worker", sort: "worker", cell: (job) => (job.worker && !frozen ? html`<a href=${withParams({ worker: job.worker, offset: null })} title="jobs of this worker">${job.worker}</a>` : job.worker ?? ABSENT) },
    { name: "host", title: "host", sort: "host", cell: (job) => (job.host && !frozen ? html`<a href=${withParams({ host: job.host, offset: null })} title="jobs on this host">${job.host}</a>` : job.host ?? ABSENT) },
    new Set(jobs.map(({ model }) => model)).size > 1 && { name: "model", title: "model", sort: "model", cell: (job) => job.model ?? ABSENT },
    { name: "started_ns", title: `began, ${zone()}`, sort: "started_ns", right: true, cell: (job) => clock(job.started_ns, 1) },
  ];
  return /** @type {import("./table.js").Column[]} */ (all.filter(Boolean));
}
