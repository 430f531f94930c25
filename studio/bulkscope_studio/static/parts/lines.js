// Log records as a table: of a bulk, of a job, or of all. What a record has besides its text is folded.
import { html } from "../core/view.js";
import { clock, moment, zone } from "../core/format.js";
import { bulkHref, jobHref, traceHref } from "../core/location.js";
import { Table } from "./table.js";

/** The least severities that a log can be asked for. */
export const SEVERITIES = ["debug", "info", "warn", "error", "fatal"];

/** @param {string | null} severity */
const tone = (severity) => (/err|fatal/i.test(severity ?? "") ? "bad" : /warn/i.test(severity ?? "") ? "warn" : "mute");

/** @param {any} line */
function Message({ line }) {
  const more = Object.entries(line.attributes ?? {});
  return html`<span class="wrap">${line.body ?? line.event ?? ""}${line.cut && html` <span class="mute">… (cut)</span>`}</span>
    ${more.length > 0 &&
    html`<details><summary class="mute">${more.length} more</summary>
      <dl class="pairs">${more.map(([name, value]) => html`<dt>${name}</dt><dd class="wrap">${typeof value === "string" ? value : JSON.stringify(value)}</dd>`)}</dl>
    </details>`}`;
}

/** @param {{lines: any[], bulk?: string | null, job?: string | null, days?: boolean}} given
 * `bulk` and `job` are those of all lines, which no line then needs to name; `days`: of more than one day */
export function Lines({ lines, bulk = null, job = null, days = false }) {
  /** @type {(import("./table.js").Column | false)[]} */
  const columns = [
    { name: "time", title: `time, ${zone()}`, cell: (line) => html`<span title=${moment(line.time_ns)}>${days ? `${moment(line.time_ns).slice(0, 10)} ` : ""}${clock(line.time_ns, 3)}</span>` },
    { name: "severity", title: "severity", cell: (line) => html`<span class=${tone(line.severity)}>${line.severity ?? ""}</span>` },
    { name: "service", title: "service", cell: (line) => html`<span title=${line.worker ?? undefined}>${line.service ?? ""}</span>` },
    bulk === null && { name: "bulk", title: "bulk", cell: (line) => (line.bulk ? html`<a class="id" href=${bulkHref(line.bulk)} title=${line.bulk}>${line.bulk}</a>` : "") },
    job === null && {
      name: "job", title: "job",
      cell: (line) => (line.job && line.bulk ? html`<a class="id" href=${jobHref(line.bulk, line.job)} title=${line.job}>${line.job}</a>` : (line.job ?? "")),
    },
    { name: "message", title: "message", long: true, cell: (line) => html`<${Message} line=${line} />` },
    { name: "trace", title: "", cell: (line) => (line.trace_id ? html`<a href=${traceHref(line.trace_id, line.span_id ?? "")}>trace</a>` : "") },
  ];
  return html`<${Table} caption="log records, newest first" columns=${columns.filter(Boolean)} rows=${lines.map((line, i) => ({ ...line, key: i }))} keyOf=${(/** @type {any} */ line) => String(line.key)} />`;
}
