// /job/ID?bulk=BULK: what one job waited for, what its work was, and its log.
import { Fragment, html, useEffect, useState } from "../core/view.js";
import { ask, ofBulk, useAnswer } from "../core/api.js";
import { clock, count, estimate, moment, number, seconds, size } from "../core/format.js";
import { bulkHref, go, idOf, jobHref, traceHref, useParam } from "../core/location.js";
import { STATUS_COLOUR } from "../parts/jobs.js";
import { Lines } from "../parts/lines.js";
import { Answer, Empty, Failed } from "../parts/state.js";
import { Table } from "../parts/table.js";

/** What a wait was for, in the words of `bulkscope explain`. @type {Record<string, string>} */
const CAUSES = {
  own: "its worker was busy with jobs of this bulk",
  others: "its worker was busy with other bulks",
  dispatch: "its worker was free, the job was not handed out yet",
  absent: "its worker was not there yet",
};
const CAUSE_COLOURS = { own: "wait", others: "other", dispatch: "fail", absent: "line-6" };
/** A wait beyond so many times the work is drawn shortened: the work would be a line, px. */
const BREAK = 20;

export function Page() {
  const id = idOf("/job");
  const [bulk] = useParam("bulk");
  useEffect(() => void (document.title = `${id} – Bulkscope`), [id]);
  return bulk ? html`<${Job} bulk=${bulk} id=${id} />` : html`<${Looked} id=${id} />`;
}

/** An address without its bulk: the bulk is looked up. @param {{id: string}} given */
function Looked({ id }) {
  const [error, setError] = useState(/** @type {any} */ (null));
  useEffect(() => {
    const stop = new AbortController();
    ask("/search", { text: id }, { signal: stop.signal }).then(
      ({ found }) => {
        const job = found.find((/** @type {any} */ each) => each.kind === "job" && each.id === id);
        if (job) go(jobHref(job.bulk, id), { replace: true });
        else setError({ message: `no job ${id}`, todo: "jobs are named by their id and their bulk's: /job/ID?bulk=BULK", nearest: [] });
      },
      (refused) => !stop.signal.aborted && setError(refused),
    );
    return () => stop.abort();
  }, [id]);
  return html`<h1 class="wrap">${id}</h1>${error ? html`<${Failed} error=${error} />` : html`<${Empty}>looking for its bulk…<//>`}`;
}

/** @param {{bulk: string, id: string}} given */
function Job({ bulk, id }) {
  const asked = useAnswer(ofBulk(bulk, "job"), { id }, { of: bulk });
  return html`<${Fragment}>
    <header class="head">
      <h1 class="wrap">${id}</h1>
      ${asked.answer && html`<${Status} job=${asked.answer.job} />`}
      <span>job of <a class="id" href=${bulkHref(bulk)} title=${bulk}>${bulk}</a></span>
    </header>
    <${Answer} asked=${asked} draw=${(/** @type {any} */ answer) => html`<${Found} bulk=${bulk} id=${id} found=${answer} />`} />
  <//>`;
}

/** @param {{job: any}} given */
const Status = ({ job }) => html`<span class=${`chip ${STATUS_COLOUR[/** @type {keyof typeof STATUS_COLOUR} */ (job.status)] ?? "mute"}`}>${job.status}</span>
  ${job.error_type && html`<span class="bad wrap">${job.error_type}${job.failure_domain ? ` (${job.failure_domain})` : ""}</span>`}`;

/** @param {{bulk: string, id: string, found: any}} given */
function Found({ bulk, id, found }) {
  const { job, attempts, inferences } = found;
  return html`<div class="stacked">
    <${Numbers} job=${job} inferences=${inferences} bulk=${bulk} />
    <section class="card">
      <h2>Where its time went</h2>
      ${attempts.length
        ? attempts.map((/** @type {any} */ attempt) => html`<${Attempt} attempt=${attempt} inferences=${inferences} several=${attempts.length > 1} />`)
        : html`<${Empty}>No worker has begun it yet.<//>`}
    </section>
    <div class="grid">
      <section class="card">
        <h2>${count(inferences.length, "inference")}</h2>
        ${inferences.length
          ? html`<${Inferences} inferences=${inferences} />`
          : html`<${Empty}>None was recorded: the job ended before it, or its engine is not instrumented.<//>`}
      </section>
      <section class="card">
        <div class="row"><h2>Its log</h2><a href=${`/logs?bulk=${encodeURIComponent(bulk)}&job=${encodeURIComponent(id)}`}>in the log, with its tail</a></div>
        ${found.logs.length ? html`<${Lines} lines=${found.logs} bulk=${bulk} job=${id} />` : html`<${Empty}>No log record names it.<//>`}
        ${found.more_logs && html`<p class="mute">There are more.</p>`}
      </section>
    </div>
    <section class="card">
      <h2>As it was recorded</h2>
      ${[...attempts, ...inferences].filter((each) => each.span_id).map((each) => html`<${Raw} of=${each} />`)}
    </section>
  </div>`;
}

/** @param {{job: any, inferences: any[], bulk: string}} given */
function Numbers({ job, inferences, bulk }) {
  const exact = inferences.every((each) => each.cpu_exact !== false);
  const sized = inferences.every((each) => each.memory_exact !== false);
  const limit = inferences.find((each) => each.memory_limit_bytes)?.memory_limit_bytes;
  /** @type {[string, any, any][]} */
  const cells = [
    ["waited", seconds(job.wait_s), job.scheduled_delay_s > 0 ? `after a scheduled delay of ${seconds(job.scheduled_delay_s)}` : ""],
    ["work", seconds(job.work_s), job.expected_s === null ? "" : `${estimate(job.expected_s, seconds(job.expected_s))} is usual for its tokens`],
    ["to the first token", seconds(job.ttft_s), ""],
    ["prefill · decode", html`${seconds(job.prefill_s)} · ${seconds(job.decode_s)}`, ""],
    ["tokens in", number(job.input_tokens), job.cached_tokens ? `${number(job.cached_tokens)} of them from the cache` : ""],
    ["tokens out", number(job.output_tokens), ""],
    ["CPU", estimate(job.cpu_s, seconds(job.cpu_s), !exact), job.cpu_wait_s === null ? "" : `${seconds(job.cpu_wait_s)} without a core`],
    ["peak RAM", estimate(job.memory_peak_bytes, size(job.memory_peak_bytes), !sized), limit ? `of ${size(limit)}` : ""],
    ["worker", html`<a class="id" href=${bulkHref(bulk, `worker=${encodeURIComponent(job.worker ?? "")}`)}>${job.worker ?? "–"}</a>`, job.model ?? ""],
  ];
  return html`<dl class="card numbers">${cells.map(([what, value, more]) => html`<div><dt>${what}</dt><dd><b>${value}</b> ${more && html`<br /><small>${more}</small>`}</dd></div>`)}</dl>`;
}

/** The parts of an attempt in their order, each with its seconds. @param {any} attempt @param {any[]} inferences */
export function partsOf(attempt, inferences) {
  const after = (/** @type {number} */ a, /** @type {number} */ b) => Math.max(0, (b - a) / 1e9);
  const causes = attempt.wait_by_cause_s ?? {};
  /** @type {{name: string, s: number, colour: string, wait: boolean}[]} */
  const parts = [{ name: "scheduled delay", s: attempt.scheduled_delay_s ?? 0, colour: "soft", wait: true }];
  for (const [cause, name] of Object.entries(CAUSES)) parts.push({ name: `waited: ${name}`, s: causes[cause] ?? 0, colour: CAUSE_COLOURS[/** @type {keyof typeof CAUSE_COLOURS} */ (cause)], wait: true });
  const known = Object.values(causes).reduce((sum, s) => sum + (s ?? 0), 0);
  parts.push({ name: "waited, cause not known", s: Math.max(0, (attempt.wait_s ?? 0) - known), colour: "mute", wait: true });
  let at = attempt.started_ns;
  const own = inferences.filter((each) => each.started_ns >= attempt.started_ns && (attempt.ended_ns === null || each.started_ns <= attempt.ended_ns) && each.worker === attempt.worker);
  for (const each of own.sort((a, b) => a.started_ns - b.started_ns)) {
    parts.push({ name: "work outside the inference", s: after(at, each.started_ns), colour: "other", wait: false });
    const whole = after(each.started_ns, each.ended_ns);
    const [prefill, decode] = [each.prefill_s ?? 0, each.decode_s ?? 0];
    if (prefill + decode > 0) {
      parts.push({ name: "prefill", s: prefill, colour: "prefill", wait: false });
      parts.push({ name: "decode", s: decode, colour: "work", wait: false });
    }
    parts.push({ name: prefill + decode > 0 ? "inference, the rest" : "inference", s: Math.max(0, whole - prefill - decode), colour: "line-4", wait: false });
    at = Math.max(at, each.ended_ns);
  }
  if (attempt.ended_ns !== null) parts.push({ name: "work outside the inference", s: after(at, attempt.ended_ns), colour: "other", wait: false });
  return parts.filter((part) => part.s > 1e-6);
}

/** @param {{attempt: any, inferences: any[], several: boolean}} given */
function Attempt({ attempt, inferences, several }) {
  const parts = partsOf(attempt, inferences);
  const sum = (/** @type {boolean} */ wait) => parts.filter((part) => part.wait === wait).reduce((all, part) => all + part.s, 0);
  const [wait, work] = [sum(true), sum(false)];
  const cut = work > 0 && wait > BREAK * work;
  // The wait has a third of the bar where the work would else be too small to see.
  const width = (/** @type {{s: number, wait: boolean}} */ part) => (cut ? (part.wait ? (part.s / wait) / 3 : (2 * part.s) / work / 3) : part.s / (wait + work));
  const state = attempt.done ? "done" : attempt.retried ? "tried again" : attempt.ended_ns === null ? "has not ended" : "failed";
  const said = `attempt ${attempt.attempt ?? ""}: waited ${seconds(attempt.wait_s)}, worked ${seconds(attempt.work_s)}: ${parts.map((part) => `${part.name} ${seconds(part.s)}`).join(", ")}`;
  return html`<div class="attempt">
    <div class="row">
      ${several && html`<h3>Attempt ${attempt.attempt ?? ""}: ${state}</h3>`}
      <span class="mute">enqueued ${clock(attempt.enqueued_ns, 3)} · begun ${clock(attempt.started_ns, 3)} · ended ${clock(attempt.ended_ns, 3)}</span>
      ${several && html`<span class="id" title=${attempt.worker}>${attempt.worker ?? ""}</span>`}
      ${attempt.error_type && html`<span class="bad wrap">${attempt.error_type} (${attempt.failure_domain ?? "unknown"})</span>`}
      ${attempt.trace_id && html`<a href=${traceHref(attempt.trace_id, attempt.span_id ?? "")}>its trace</a>`}
    </div>
    <div class=${`stack ${cut ? "cut" : ""}`} role="img" aria-label=${said}>
      ${parts.map((part) => html`<span title=${`${part.name} ${seconds(part.s)}`} class=${part.wait ? "waits" : ""} style=${{ width: `${100 * width(part)}%`, background: `var(--${part.colour})` }}></span>`)}
    </div>
    <div class="key">
      ${parts.map((part) => html`<span><i style=${{ background: `var(--${part.colour})` }}></i>${part.name} <b>${seconds(part.s)}</b></span>`)}
      ${cut && html`<span class="mute">(the wait is drawn shortened)</span>`}
    </div>
  </div>`;
}

/** @param {{inferences: any[]}} given */
function Inferences({ inferences }) {
  /** @type {import("../parts/table.js").Column[]} */
  const columns = [
    { name: "model", title: "model", cell: (each) => html`<span class=${each.ok === false ? "bad" : ""}>${each.model ?? "–"}${each.ok === false ? " failed" : ""}</span>` },
    { name: "begun", title: "begun", cell: (each) => html`<span title=${moment(each.started_ns)}>${clock(each.started_ns, 3)}</span>` },
    { name: "took", title: "took", right: true, cell: (each) => seconds(each.inference_s) },
    { name: "prefill", title: "prefill", right: true, cell: (each) => seconds(each.prefill_s) },
    { name: "decode", title: "decode", right: true, cell: (each) => seconds(each.decode_s) },
    { name: "in", title: "tokens in", right: true, cell: (each) => number(each.input_tokens) },
    { name: "out", title: "tokens out", right: true, cell: (each) => number(each.output_tokens) },
    { name: "cpu", title: "CPU", right: true, cell: (each) => estimate(each.cpu_s, seconds(each.cpu_s), each.cpu_exact === false) },
    { name: "ram", title: "peak RAM", right: true, cell: (each) => estimate(each.memory_peak_bytes, size(each.memory_peak_bytes), each.memory_exact === false) },
    { name: "trace", title: "", cell: (each) => html`<a href=${traceHref(each.trace_id, each.span_id)}>trace</a>` },
  ];
  return html`<${Table} caption="inferences" columns=${columns} rows=${inferences} keyOf=${(/** @type {any} */ each) => each.span_id} />`;
}

/** A span whole, asked for when it is opened. @param {{of: any}} given */
function Raw({ of }) {
  const [open, setOpen] = useState(false);
  const asked = useAnswer(open ? `/traces/${encodeURIComponent(of.trace_id)}/spans/${encodeURIComponent(of.span_id)}` : null);
  return html`<details onToggle=${(/** @type {any} */ event) => setOpen(event.target.open)}>
    <summary>${of.inference_s === undefined ? `attempt ${of.attempt ?? ""}` : `inference of ${of.model ?? "an unknown model"}`}, span ${of.span_id}</summary>
    ${open && html`<${Answer} asked=${asked} draw=${(/** @type {any} */ span) => html`<${Pairs} of=${span} />`} />`}
  </details>`;
}

/** What a record holds, name by name; what is absent is left out. @param {{of: Record<string, any>}} given */
export function Pairs({ of }) {
  const rows = Object.entries(of).flatMap(([name, value]) =>
    value === null || value === undefined ? [] : typeof value === "object" && !Array.isArray(value) ? Object.entries(value).map(([inner, each]) => [`${name} · ${inner}`, each]) : [[name, value]],
  );
  return html`<dl class="pairs">
    ${rows.map(([name, value]) => html`<dt>${name}</dt><dd class="wrap">${name.endsWith("_ns") ? `${moment(value)} (${value} ns)` : typeof value === "string" ? value : JSON.stringify(value)}</dd>`)}
  </dl>`;
}
