// One bulk: why it took as long as it did, its numbers, how it went, and the jobs behind all of that.
import { Fragment, html, useEffect, useState } from "../core/view.js";
import { address, frozen, ofBulk, useAnswer } from "../core/api.js";
import { ago, count, moment, number, zone } from "../core/format.js";
import { bulkHref, go, idOf, useAddress } from "../core/location.js";
import { Evidence } from "../parts/evidence.js";
import { Failures, Lost } from "../parts/failures.js";
import { Models, Workers } from "../parts/groups.js";
import { Hero } from "../parts/hero.js";
import { Jobs, chosenJobs, chosenRange } from "../parts/jobs.js";
import { Delete, Keep, Kept } from "../parts/keep.js";
import { LogLines } from "../parts/loglines.js";
import { Dialog, Menu } from "../parts/menu.js";
import { Numbers, ofAll } from "../parts/numbers.js";
import { Progress } from "../parts/progress.js";
import { question } from "../parts/questions.js";
import { Answer, Empty, Failed } from "../parts/state.js";
import { Tabs } from "../parts/tabs.js";
import { Verdict } from "../parts/verdict.js";

/** A running bulk that goes silent says so by nothing: it is asked for every so many seconds. */
const EVERY_S = 5;
/** Answers about a bulk of 100,000 jobs take seconds of a CPU; while records come they are asked for as often as that allows. */
const REST_S = { least: 3, jobs: 5000 };

export function Page() {
  useAddress(); // another bulk, by a link or a step back
  const named = document.getElementById("frozen")?.dataset.bulk ?? idOf("/bulk");
  const asked = useAnswer(...question("summary", named), { of: named === "latest" ? "*" : named });
  const summary = asked.answer;
  const bulk = summary?.id ?? named;
  useEffect(() => void (document.title = `${bulk} – Bulkscope`), [bulk]);
  const running = summary?.state === "running" && !frozen;
  useEffect(() => {
    if (!running) return;
    const timer = setInterval(() => document.hidden || asked.again(), 1e3 * EVERY_S);
    return () => clearInterval(timer);
  }, [running, named]);
  if (!summary) return html`<h1 class="wrap">${named || "No bulk is named"}</h1>${asked.error ? html`<${Failed} error=${asked.error} again=${asked.again} />` : html`<${Empty}>loading…<//>`}`;
  return html`<${Bulk} key=${bulk} bulk=${bulk} summary=${summary} again=${asked.again} />`;
}

/** @param {{bulk: string, summary: any, again: () => void}} given `again`: ask for the summary anew */
function Bulk({ bulk, summary, again }) {
  const restS = REST_S.least + summary.sent_jobs / REST_S.jobs;
  const how = { of: bulk, restS };
  const report = useAnswer(...question("report", bulk), how);
  const explanation = useAnswer(...question("explanation", bulk), how);
  const found = explanation.answer;
  const of = { bulk, summary, restS };
  return html`<${Fragment}>
    <${Head} bulk=${bulk} summary=${summary} report=${report.answer} again=${again} />
    ${summary.state !== "complete" && summary.sent_jobs > 0 && !frozen && html`<${Progress} bulk=${bulk} restS=${restS} />`}
    <${Answer} asked=${explanation} draw=${(/** @type {any} */ answer) => html`<${Verdict} found=${answer} notes=${report.answer?.notes ?? []} />`} />
    <${Answer} asked=${report} draw=${(/** @type {any} */ answer) => html`<${Numbers} report=${answer} summary=${summary} found=${found} />`} />
    <${Hero} ...${of} />
    <${Tabs} label="jobs, workers, log and evidence" own=${["sort", "offset", "status"]} tabs=${[
      { name: "slow", title: "Slow for their size", draw: () => html`<${Jobs} ...${of} ask="slow" bars empty="This bulk has no jobs." />` },
      { name: "failed", title: html`Failed, by error${summary.failed_jobs > 0 && html` <span class="bad">${number(summary.failed_jobs)}</span>`}`, draw: () => html`<${FailedJobs} ...${of} lost=${report.answer?.lost ?? []} />` },
      { name: "work", title: "Longest work", draw: () => html`<${Jobs} ...${of} ask="work" />` },
      { name: "wait", title: "Longest wait", draw: () => html`<${Jobs} ...${of} ask="wait" />` },
      ...(frozen ? [] : [{ name: "jobs", title: "All jobs", draw: () => html`<${Jobs} ...${of} ask="jobs" />` }]),
      { name: "workers", title: "By worker", draw: () => html`<${Workers} bulk=${bulk} report=${report.answer} restS=${restS} />` },
      { name: "models", title: "By model", draw: () => report.answer && html`<${Models} report=${report.answer} />` },
      { name: "log", title: "Log", draw: () => html`<${LogLines} ...${of} />` },
      { name: "evidence", title: "Evidence", draw: () => html`<${Evidence} bulk=${bulk} found=${found} report=${report.answer} />` },
    ]} />
  <//>`;
}

/** @param {{bulk: string, summary: any, restS: number, lost: any[]}} given */
function FailedJobs({ bulk, summary, restS, lost }) {
  const { params } = useAddress();
  const range = frozen ? { from_ns: null, to_ns: null } : chosenRange(params, summary.start_ns);
  const [path, fixed] = question("failures", bulk);
  const asked = useAnswer(path, { ...fixed, since_ns: range.from_ns, until_ns: range.to_ns }, { of: bulk, restS });
  return html`<${Fragment}>
    <${Answer} asked=${asked} draw=${(/** @type {any} */ answer) => answer.failures.length ? html`<${Failures} failures=${answer.failures} params=${params} />` : html`<${Empty}>No attempt failed${range.from_ns || range.to_ns ? " in this time" : ""}.<//>`} />
    ${lost.length > 0 && html`<h3>${count(lost.length, "attempt")} lost with their workers</h3><${Lost} bulk=${bulk} lost=${lost.slice(0, MOST_LOST)} />`}
    <h3>Jobs that failed</h3>
    <${Jobs} bulk=${bulk} summary=${summary} restS=${restS} ask="failed" empty="No job of this bulk has failed." />
  <//>`;
}

/** @type {Record<string, string>} */
const STATE = { complete: "good", running: "ink", stopped: "warn" };
/** States of jobs that a reader must see at once. */
const NOTED = /** @type {const} */ ([["cancelled", "cancelled"], ["lost", "lost"], ["unknown", "unknown"], ["not_sent", "not sent"], ["duplicate", "duplicate"]]);

/** @param {{bulk: string, summary: any, report: any, again: () => void}} given */
function Head({ bulk, summary, report, again }) {
  const [run, setRun] = useState(/** @type {import("../parts/keep.js").Run | null} */ (null));
  const chip = (/** @type {string} */ text, kind = "mute", /** @type {string | null} */ href = null) =>
    href ? html`<a class=${`chip ${kind}`} href=${href}>${text}</a>` : html`<span class=${`chip ${kind}`}>${text}</span>`;
  const jobs = (/** @type {string} */ status) => ofAll({ tab: "jobs", status });
  return html`<div class="head">
    <h1 class="id" title=${bulk}>${bulk}</h1>
    ${!frozen && html`<${Copy} text=${bulk} label="copy the id" />`}
    ${chip(summary.state, STATE[summary.state])}
    ${report?.sampled && chip("sampled", "warn")}
    ${summary.failed_jobs > 0 && chip(`${number(summary.failed_jobs)} failed`, "bad", ofAll({ tab: "failed" }))}
    ${report && NOTED.map(([name, text]) => report.progress[name] > 0 && chip(`${number(report.progress[name])} ${text}`, name === "lost" ? "bad" : "warn", frozen || name === "not_sent" || name === "duplicate" ? null : jobs(name)))}
    ${(summary.models ?? []).map((/** @type {string} */ model) => html`<span class="chip mute model" title=${model}>${model}</span>`)}
    <span class="mute" title=${ago(summary.start_ns)}>${moment(summary.start_ns)} ${zone()}</span>
    ${!frozen && html`<${Actions} bulk=${bulk} summary=${summary} onKept=${again} />`}
  </div>
  ${summary.kept.length > 0 && html`<div class="row">${summary.kept.map((/** @type {import("../parts/keep.js").Run} */ each) => html`<span class="row">kept as <b class="wrap">${each.name}</b>${each.note && html`<span class="mute wrap">${each.note}</span>`}
    ${!frozen && html`<button class="plain" aria-label=${`change what is kept as ${each.name}`} onClick=${() => setRun(each)}>change</button>`}</span>`)}</div>`}
  ${run && html`<${Kept} run=${run} onClose=${() => setRun(null)} onChanged=${again} />`}
  ${report && (report.part_of.length > 0 || report.nested.length > 0) && html`<p class="row">
    ${report.part_of.map((/** @type {string} */ id) => html`<span>part of <a class="id" href=${bulkHref(id)} title=${id}>${id}</a></span>`)}
    ${report.nested.length > 0 && html`<span>nested bulks: ${report.nested.slice(0, 20).map((/** @type {string} */ id) => html`<a class="id" href=${bulkHref(id)} title=${id}>${id}</a> `)}${report.nested.length > 20 ? `and ${number(report.nested.length - 20)} more` : ""}</span>`}
  </p>`}`;
}

/** What copies a text, and what became of it. */
function useCopy() {
  const [said, setSaid] = useState("");
  const copy = async (/** @type {string} */ text) => {
    try {
      await navigator.clipboard.writeText(text);
      setSaid("copied");
    } catch {
      setSaid("this browser copies on https and 127.0.0.1 alone");
    }
  };
  return { copy, said: html`<span class="mute" role="status">${said}</span>` };
}

/** @param {{text: string, label: string}} given */
function Copy({ text, label }) {
  const { copy, said } = useCopy();
  return html`<button class="plain" aria-label=${label} onClick=${() => copy(text)}>copy</button>${said}`;
}

/** Rows of the table of lost attempts: the jobs table has all lost jobs. */
const MOST_LOST = 100;
const FORMATS = [["csv", "CSV"], ["parquet", "Parquet"], ["arrow", "Arrow"], ["jsonl", "JSON, a line a job"]];

/** @param {{bulk: string, summary: any, onKept: () => void}} given */
function Actions({ bulk, summary, onKept }) {
  const { params } = useAddress();
  const [open, setOpen] = useState(/** @type {"" | "compare" | "keep" | "delete"} */ (""));
  const { copy, said } = useCopy();
  const close = () => setOpen("");
  const chosen = chosenJobs(params, summary.start_ns);
  const filtered = Object.values(chosen).some((value) => value !== null);
  return html`<${Fragment}>
    <div class="end">
      ${said}
      <button onClick=${() => setOpen("compare")}>Compare with…</button>
      <button onClick=${() => setOpen("keep")}>Keep as…</button>
      <${Menu} title="Share">
        <button onClick=${() => copy(location.href)}>Copy the link to this view</button>
        <a data-document href=${`/bulk/${encodeURIComponent(bulk)}/report.html`} download=${`${bulk}.html`}>This page as one file (HTML)</a>
        <a href=${address(ofBulk(bulk, "report.md"))} download=${`${bulk}.md`}>Its numbers as Markdown</a>
      <//>
      <${Menu} title="Export">
        <span class="mute">${filtered ? "jobs that the filters leave" : "all its jobs"}</span>
        ${FORMATS.map(([format, title]) => html`<a href=${address(ofBulk(bulk, "jobs"), { ...chosen, format })} download>${title}</a>`)}
      <//>
      <button class="danger" onClick=${() => setOpen("delete")}>Delete…</button>
    </div>
    ${open === "compare" && html`<${Compare} bulk=${bulk} onClose=${close} />`}
    ${open === "keep" && html`<${Keep} bulks=${[bulk]} onClose=${close} onKept=${onKept} />`}
    ${open === "delete" && html`<${Delete} bulks=${[bulk]} jobs=${summary.sent_jobs} onClose=${close} onDeleted=${() => go("/")} />`}
  <//>`;
}

/** With which other bulk or kept run. @param {{bulk: string, onClose: () => void}} given */
function Compare({ bulk, onClose }) {
  const [search, setSearch] = useState("");
  const found = useAnswer("/bulks", { search, limit: 10 });
  const runs = useAnswer("/runs");
  const to = (/** @type {string} */ id) => `/compare?a=${encodeURIComponent(id)}&b=${encodeURIComponent(bulk)}`;
  const kept = (runs.answer ?? []).filter((/** @type {any} */ run) => run.name.toLowerCase().includes(search.toLowerCase()));
  return html`<${Dialog} title="Compare with" onClose=${onClose}>
    <form onSubmit=${(/** @type {Event} */ event) => event.preventDefault()}>
      <label>bulk or kept run <input type="search" autofocus value=${search} onInput=${(/** @type {any} */ event) => setSearch(event.target.value)} /></label>
      <ul class="plainlist">
        ${kept.slice(0, 10).map((/** @type {any} */ run) => html`<li key=${`run ${run.name}`}><a class="id" href=${to(run.name)}>${run.name}</a> <span class="mute">kept run</span></li>`)}
        ${(found.answer?.bulks ?? []).filter((/** @type {any} */ row) => row.id !== bulk).map((/** @type {any} */ row) => html`<li key=${row.id}><a class="id" href=${to(row.id)} title=${row.id}>${row.id}</a> <span class="mute">${ago(row.start_ns)}, ${count(row.sent_jobs, "job")}</span></li>`)}
      </ul>
      <button type="button" onClick=${onClose}>Cancel</button>
    </form>
  <//>`;
}
