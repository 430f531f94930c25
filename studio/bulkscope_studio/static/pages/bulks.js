// The bulks: what runs now, the list of all that fit the filters, and what failed in the chosen time, by its error.
import { Fragment, html, useEffect, useState } from "../core/view.js";
import { address, ofBulk, useAnswer } from "../core/api.js";
import { ABSENT, ago, count, known, moment, number, seconds } from "../core/format.js";
import { bulkHref, go, useAddress, withParams } from "../core/location.js";
import { Meter } from "../parts/bars.js";
import { Copied } from "../parts/copied.js";
import { Failures } from "../parts/failures.js";
import { Delete, Keep } from "../parts/keep.js";
import { Menu } from "../parts/menu.js";
import { Progress } from "../parts/progress.js";
import { Range, rangeName, rangeOf } from "../parts/range.js";
import { Spark } from "../parts/spark.js";
import { Answer, Empty } from "../parts/state.js";
import { Pages, Table } from "../parts/table.js";
import { Tabs } from "../parts/tabs.js";

/** @typedef {{id: string, start_ns: number, end_ns: number, took_s: number, sent_jobs: number, done_jobs: number, failed_jobs: number,
 * cancelled_jobs: number, failure_domains: string | null, models: string[], wait_p95_s: number | null, work_p95_s: number | null,
 * tokens_per_s: number | null, state: "complete" | "running" | "stopped", verdict: {code: string, title: string} | null,
 * kept: {name: string, note: string}[], spark_jobs?: number[]}} Bulk a row of /api/v1/bulks */

const LIMIT = 50;
const NEWEST = "-start_ns";
const SPARKS = 24;
/** So many running bulks have a card; the list has all. */
const CARDS = 6;
/** Filters by their names in the address, which are those of the API. */
const FILTERS = ["search", "model", "service", "host", "worker", "state", "verdict", "failed"];
const STATES = [{ name: "complete" }, { name: "running" }, { name: "stopped" }];
const FORMATS = [["csv", "CSV"], ["parquet", "Parquet"], ["jsonl", "JSON Lines"]];

/** Go to the first page of what another filter or order leaves. @param {Record<string, string | boolean | null>} change */
const set = (change, how = {}) => go(withParams({ offset: null, ...change }), how);

export function Page() {
  useEffect(() => void (document.title = "Bulks – Bulkscope"), []);
  const { params } = useAddress();
  const filters = Object.fromEntries(FILTERS.map((name) => [name, params.get(name)]));
  const range = rangeOf(params);
  const sort = params.get("sort") ?? NEWEST;
  const asked = { ...filters, ...range, sort, limit: LIMIT, offset: params.get("offset"), spark: SPARKS };
  const [running, setRunning] = useState(false);
  // Records tell that a bulk has changed; that it has become silent nothing tells.
  const list = useAnswer("/bulks", asked, { of: "*", everyS: running ? 10 : 0 });
  const pending = list.answer?.verdicts_pending ?? 0;
  useEffect(() => {
    setRunning(Boolean(list.answer?.bulks.some((/** @type {Bulk} */ row) => row.state === "running")));
    if (!pending) return;
    const timer = setTimeout(list.again, 200);
    return () => clearTimeout(timer);
  }, [list.answer]);
  const all = !Object.values({ ...filters, ...range }).some(Boolean);
  if (all && list.answer?.total === 0) return html`<h1>Bulks</h1><${First} />`;
  return html`<${Fragment}>
    <div class="head"><h1>Bulks</h1>
      <div class="end"><${Menu} title="Export the list">${FORMATS.map(([format, title]) => html`<a class="button" download
        href=${address("/bulks", { ...filters, ...range, sort, format })}>${title}</a>`)}<//></div>
    </div>
    <${Running} />
    <${Filters} params=${params} />
    <${Tabs} label="what to list" own=${["offset"]} tabs=${[
      { name: "bulks", title: "All bulks", draw: () => html`<${Answer} asked=${list}
        draw=${(/** @type {any} */ answer) => html`<${List} answer=${answer} sort=${sort} params=${params} again=${list.again} />`} />` },
      { name: "failures", title: "Failed, by error", draw: () => html`<${Failed} range=${range} params=${params} />` },
    ]} />
  <//>`;
}

/** What runs now, the newest first. */
function Running() {
  const [some, setSome] = useState(false);
  const { answer } = useAnswer("/bulks", { state: "running", limit: CARDS }, { of: "*", everyS: some ? 10 : 0 });
  useEffect(() => setSome(Boolean(answer?.total)), [answer]);
  if (!answer?.total) return null;
  return html`<section aria-labelledby="running">
    <div class="row"><h2 id="running">Running now</h2>
      ${answer.total > CARDS && html`<a href="/?state=running">all ${number(answer.total)}</a>`}</div>
    <div class="grid">${answer.bulks.map((/** @type {Bulk} */ row) => html`<${Progress} key=${row.id} bulk=${row.id} restS=${2}
      title=${html`<h3><a class="id" href=${bulkHref(row.id)} title=${row.id}>${row.id}</a></h3>
        <span class="mute">${row.models.join(", ")} · begun ${ago(row.start_ns)}</span>`} />`)}</div>
  </section>`;
}

/** @param {{params: URLSearchParams}} given */
function Filters({ params }) {
  const facets = useAnswer("/facets", rangeOf(params)).answer;
  const verdicts = useAnswer("/verdicts").answer;
  const some = [...FILTERS, "range", "since_ns", "until_ns"].filter((name) => params.has(name));
  return html`<form class="row" role="search" aria-label="filter the bulks" onSubmit=${(/** @type {Event} */ event) => event.preventDefault()}>
    <${Search} />
    <${Range} clear=${["offset"]} />
    <${Choice} name="model" values=${facets?.models} />
    <${Choice} name="service" values=${facets?.services} />
    <${Choice} name="host" values=${facets?.hosts} />
    <${Choice} name="worker" values=${facets?.workers} />
    <${Choice} name="state" values=${STATES} />
    <${Choice} name="verdict" values=${verdicts} />
    <label><input type="checkbox" checked=${params.has("failed")} onChange=${(/** @type {any} */ event) => set({ failed: event.target.checked && "true" })} /> with failed jobs</label>
    ${some.length > 0 && html`<button type="button" class="plain" onClick=${() => set(Object.fromEntries(some.map((name) => [name, null])))}>Clear</button>`}
  </form>`;
}

/** The part of an id that is looked for; it waits until the typing pauses. */
function Search() {
  const { params } = useAddress();
  const there = params.get("search") ?? "";
  const [text, setText] = useState(there);
  useEffect(() => setText(there), [there]);
  useEffect(() => {
    if (text.trim() === there) return;
    const timer = setTimeout(() => set({ search: text.trim() }, { replace: true }), 250);
    return () => clearTimeout(timer);
  }, [text]);
  return html`<input type="search" aria-label="part of a bulk's id" placeholder="part of an id" value=${text}
    onInput=${(/** @type {any} */ event) => setText(event.target.value)} />`;
}

/** One filter: of the values that there are; of one that is set and not among them, that one.
 * @param {{name: string, values: {name: string, title?: string, bulks?: number}[] | null | undefined}} given */
function Choice({ name, values }) {
  const { params } = useAddress();
  const chosen = params.get(name) ?? "";
  const every = values ?? [];
  if (!every.length && !chosen) return null;
  return html`<label><span class="mute">${name}</span>
    <select aria-label=${name} value=${chosen} onChange=${(/** @type {any} */ event) => set({ [name]: event.target.value })}>
      <option value="">any</option>
      ${chosen && !every.some((each) => each.name === chosen) && html`<option value=${chosen}>${chosen}</option>`}
      ${every.map((each) => html`<option value=${each.name}>${each.title ?? each.name}${known(each.bulks) ? ` (${number(each.bulks)})` : ""}</option>`)}
    </select>
  </label>`;
}

/** @param {{answer: {total: number, looked_at: number | null, verdicts_pending: number, bulks: Bulk[]}, sort: string,
 * params: URLSearchParams, again: () => void}} given */
function List({ answer, sort, params, again }) {
  const chosen = params.getAll("chosen");
  const choose = (/** @type {string[]} */ ids) => go(withParams({ chosen: ids }), { replace: true });
  if (!answer.bulks.length) return html`<${Empty}>No bulk fits. Choose another time, or clear the filters.<//>`;
  const listed = answer.bulks.map(({ id }) => id);
  const whole = listed.every((id) => chosen.includes(id));
  /** @param {string[]} ids @param {boolean} on */
  const turn = (ids, on) => choose(on ? [...new Set([...chosen, ...ids])] : chosen.filter((id) => !ids.includes(id)));
  /** @type {import("../parts/table.js").Column[]} */
  const columns = [
    {
      name: "chosen", title: html`<input type="checkbox" aria-label="choose all of this page" checked=${whole} onChange=${() => turn(listed, !whole)} />`,
      cell: ({ id }) => html`<input type="checkbox" aria-label=${`choose ${id}`} checked=${chosen.includes(id)} onChange=${() => turn([id], !chosen.includes(id))} />`,
    },
    { name: "id", title: "bulk", sort: "id", cell: Name },
    { name: "start", title: "begun", sort: "start_ns", cell: ({ start_ns }) => html`<span title=${moment(start_ns)}>${ago(start_ns)}</span>` },
    { name: "verdict", title: "verdict", cell: (row) => (row.verdict ? html`<a href=${bulkHref(row.id)}>${row.verdict.title}</a>` : answer.verdicts_pending ? html`<span class="mute">…</span>` : ABSENT), tip: "what held the bulk up, or what is full while it runs" },
    { name: "jobs", title: "jobs", sort: "sent_jobs", right: true, cell: Jobs },
    { name: "failed", title: "failed", sort: "failed_jobs", right: true, cell: (row) => (row.failed_jobs ? html`<a class="bad" href=${bulkHref(row.id, "tab=failed")} title=${row.failure_domains}>${number(row.failed_jobs)}</a>` : "0"), tip: "jobs of which the last attempt failed" },
    { name: "took", title: "took", sort: "took_s", right: true, cell: ({ took_s }) => seconds(took_s), tip: "from the first record of the bulk to the last" },
    { name: "wait", title: "wait p95", sort: "wait_p95_s", right: true, cell: (row) => linked(row, "wait", row.wait_p95_s), tip: "95 % of the attempts waited no longer in the queue" },
    { name: "work", title: "work p95", sort: "work_p95_s", right: true, cell: (row) => linked(row, "work", row.work_p95_s), tip: "95 % of the attempts worked no longer" },
    { name: "tokens", title: "tokens/s", sort: "tokens_per_s", right: true, cell: ({ tokens_per_s }) => number(tokens_per_s), tip: "output tokens per second of inference" },
    ...(answer.bulks.some((row) => row.spark_jobs) ? [{ name: "spark", title: "ends of jobs", cell: Course, tip: "how many jobs ended in each part of the bulk's time" }] : []),
    { name: "models", title: "model", cell: ({ models }) => html`<span class="id" title=${models.join(", ")}>${models.join(", ") || ABSENT}</span>` },
  ];
  return html`<${Fragment}>
    <${Chosen} ids=${chosen} rows=${answer.bulks} clear=${() => choose([])} again=${again} />
    <${Table} columns=${columns} rows=${answer.bulks} keyOf=${(/** @type {Bulk} */ row) => row.id} caption="bulks" sort=${sort}
      onSort=${(/** @type {string} */ name) => set({ sort: name === NEWEST ? null : name })} chosen=${chosen} />
    ${answer.looked_at !== null && html`<p class="mute">Of the newest ${number(answer.looked_at)} that fit otherwise.</p>`}
    <${Pages} total=${answer.total} limit=${LIMIT} what="bulks" />
  <//>`;
}

/** @param {Bulk} row @param {string} tab @param {number | null} value */
const linked = (row, tab, value) => (known(value) ? html`<a href=${bulkHref(row.id, `tab=${tab}`)}>${seconds(value)}</a>` : ABSENT);

/** @param {Bulk} row */
const Name = ({ id, state, kept }) => html`<a class="id" href=${bulkHref(id)} title=${id}>${id}</a>
  ${state !== "complete" && html` <span class=${`chip ${state === "running" ? "good" : "warn"}`}>${state}</span>`}
  ${kept.map(({ name, note }) => html` <a class="chip mute" href=${`/compare?a=${encodeURIComponent(name)}`} title=${note || "kept; compare it with another"}>${name}</a>`)}`;

/** @param {Bulk} row */
function Jobs({ state, sent_jobs, done_jobs, failed_jobs, cancelled_jobs }) {
  if (state === "complete") return number(sent_jobs);
  const ended = done_jobs + failed_jobs + cancelled_jobs;
  const said = `${number(ended)} of ${number(sent_jobs)}`;
  return html`<${Meter} done=${done_jobs} failed=${failed_jobs} of=${sent_jobs} label=${`${said} jobs have ended`} /> ${said}`;
}

/** @param {Bulk} row */
const Course = ({ id, spark_jobs }) => html`<${Spark} values=${spark_jobs ?? []} label=${`jobs of ${id} that ended`} />`;

/** What can be done with the bulks that are chosen, also on other pages of the list.
 * @param {{ids: string[], rows: Bulk[], clear: () => void, again: () => void}} given */
function Chosen({ ids, rows, clear, again }) {
  const [open, setOpen] = useState("");
  const [said, setSaid] = useState("");
  const close = () => setOpen("");
  if (!ids.length) return said && html`<p role="status" class="good wrap">${said}</p>`;
  const jobs = rows.filter((row) => ids.includes(row.id)).reduce((sum, row) => sum + row.sent_jobs, 0);
  return html`<div class="row" role="group" aria-label="the chosen bulks">
    <b>${number(ids.length)} chosen</b>
    ${ids.length === 2
      ? html`<a class="button" href=${`/compare?a=${encodeURIComponent(ids[0])}&b=${encodeURIComponent(ids[1])}`}>Compare</a>`
      : html`<button disabled title="choose two bulks">Compare</button>`}
    <button onClick=${() => setOpen("keep")}>Keep as…</button>
    <${Menu} title="Export jobs">${ids.map((id) => FORMATS.map(([format, title]) => html`<a class="button" download
      href=${address(ofBulk(id, "jobs"), { format })}>${ids.length > 1 && html`<span class="id">${id}</span>`} ${title}</a>`))}<//>
    <button class="danger" onClick=${() => setOpen("delete")}>Delete…</button>
    <button class="plain" onClick=${clear}>Choose none</button>
    ${said && html`<span role="status" class="good wrap">${said}</span>`}
    ${open === "keep" && html`<${Keep} bulks=${ids} onClose=${close} onKept=${() => { setSaid("Kept."); again(); }} />`}
    ${open === "delete" && html`<${Delete} bulks=${ids} jobs=${jobs} onClose=${close} onDeleted=${() => { close(); setSaid(`${count(ids.length, "bulk")} deleted.`); clear(); again(); }} />`}
  </div>`;
}

/** @param {{range: {since_ns: string | null, until_ns: string | null}, params: URLSearchParams}} given */
function Failed({ range, params }) {
  const asked = useAnswer("/failures", range, { of: "*", restS: 5 });
  return html`<${Answer} asked=${asked} draw=${(/** @type {any} */ answer) => html`<p class="mute">Of all bulks, ${rangeName(params)}; the other filters leave it alone.</p>
    ${answer.failures.length
      ? html`<${Failures} failures=${answer.failures} /><p class="mute">${count(answer.attempts, "failed attempt")} in all</p>`
      : html`<${Empty}>No attempt has failed ${rangeName(params)}.<//>`}`} />`;
}

/** What to do where there is no bulk: the command for this studio's own port. */
function First() {
  const { answer } = useAnswer("/status");
  return html`<section class="card state">
    <h2>No bulk yet</h2>
    <p>Run your service, and its workers, under Bulkscope:</p>
    ${answer && html`<${Copied} text=${`OTEL_EXPORTER_OTLP_ENDPOINT=${answer.otlp_http} bulkscope run <your command>`} />
      <p class="mute">OpenTelemetry of other languages sends to <code>${answer.otlp_http}</code> (http/protobuf) or <code>${answer.otlp_grpc}</code> (grpc).</p>`}
    <p class="mute">This page shows a bulk as soon as its first record has come.</p>
  </section>`;
}
