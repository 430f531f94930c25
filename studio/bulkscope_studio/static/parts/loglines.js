// The log of a bulk, newest first.
import { html } from "../core/view.js";
import { frozen, useAnswer } from "../core/api.js";
import { clock, zone } from "../core/format.js";
import { go, jobHref, traceHref, useAddress, withParams } from "../core/location.js";
import { Chosen, chosenRange } from "./jobs.js";
import { question } from "./questions.js";
import { Answer, Empty } from "./state.js";
import { Table } from "./table.js";

const LEAST = ["debug", "info", "warn", "error", "fatal"];

/** @param {{bulk: string, summary: any, restS: number}} given */
export function LogLines({ bulk, summary, restS }) {
  const { params } = useAddress();
  const [path, fixed] = question("log", bulk);
  const severity = params.get("severity") ?? "";
  const text = params.get("text") ?? "";
  const range = chosenRange(params, summary.start_ns);
  const asked = useAnswer(path, frozen ? fixed : { ...fixed, severity, text, ...range }, { of: bulk, restS });
  const choose = (/** @type {string} */ name) => (/** @type {any} */ event) => go(withParams({ [name]: event.target.value }), { replace: name === "text" });
  const ranged = new URLSearchParams([...params].filter(([name]) => name === "from" || name === "to"));
  /** @type {import("./table.js").Column[]} */
  const columns = [
    { name: "time", title: `time, ${zone()}`, cell: (line) => clock(line.time_ns, 3) },
    { name: "severity", title: "severity", cell: (line) => html`<span class=${/err|fatal/i.test(line.severity ?? "") ? "bad" : /warn/i.test(line.severity ?? "") ? "warn" : "mute"}>${line.severity ?? ""}</span>` },
    { name: "service", title: "service", cell: (line) => line.service ?? "" },
    { name: "job", title: "job", cell: (line) => (line.job_id ? html`<a class="id" href=${jobHref(bulk, line.job_id)}>${line.job_id}</a>` : "") },
    { name: "body", title: "message", long: true, cell: (line) => line.body ?? line.event ?? "" },
    { name: "trace", title: "", cell: (line) => (line.trace_id ? html`<a href=${traceHref(line.trace_id, line.span_id ?? "")}>trace</a>` : "") },
  ];
  return html`<div>
    ${!frozen && html`<div class="row filters">
      <input type="search" aria-label="search in the log" placeholder="search in the log" value=${text} onChange=${choose("text")} />
      <label>from severity <select aria-label="from severity" value=${severity} onChange=${choose("severity")}><option value="">any</option>${LEAST.map((name) => html`<option value=${name} selected=${name === severity}>${name}</option>`)}</select></label>
      <${Chosen} params=${ranged} /><a href=${`/logs?bulk=${encodeURIComponent(bulk)}`}>all of it, with its tail</a></div>`}
    <${Answer} asked=${asked} draw=${(/** @type {any} */ answer) => answer.logs.length
      ? html`<${Table} caption="log" columns=${columns} rows=${answer.logs} keyOf=${(/** @type {any} */ line) => `${line.time_ns} ${line.span_id} ${line.body}`} />${answer.more ? html`<p class="mute">There are more: choose a range, or see all of it.</p>` : ""}`
      : html`<${Empty}>No log record ${severity || text || ranged.size ? "fits" : "of this bulk was recorded"}.<//>`} />
  </div>`;
}
