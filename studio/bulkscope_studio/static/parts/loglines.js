// The log of a bulk: its newest records in the chosen time, and the way to all of them.
import { html } from "../core/view.js";
import { frozen, useAnswer } from "../core/api.js";
import { go, useAddress, withParams } from "../core/location.js";
import { Chosen, chosenRange } from "./jobs.js";
import { Lines, SEVERITIES } from "./lines.js";
import { question } from "./questions.js";
import { Answer, Empty } from "./state.js";

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
  const all = new URLSearchParams({ bulk, ...(severity && { severity }), ...(text && { text }), ...(range.from_ns && { from: String(range.from_ns) }), ...(range.to_ns && { to: String(range.to_ns) }) });
  return html`<div>
    ${!frozen && html`<div class="row filters">
      <input type="search" aria-label="search in the log" placeholder="search in the log" value=${text} onChange=${choose("text")} />
      <label>from severity <select aria-label="from severity" value=${severity} onChange=${choose("severity")}><option value="">any</option>${SEVERITIES.map((name) => html`<option value=${name} selected=${name === severity}>${name}</option>`)}</select></label>
      <${Chosen} params=${ranged} /><a href=${`/logs?${all}`}>all of it, and its tail</a></div>`}
    <${Answer} asked=${asked} draw=${(/** @type {any} */ answer) => answer.logs.length
      ? html`<${Lines} lines=${answer.logs} bulk=${bulk} days=${summary.took_s > 43_200} />${answer.more && html`<p class="mute">There are more: choose a time, or see all of it.</p>`}`
      : html`<${Empty}>No log record ${severity || text || ranged.size ? "fits" : "of this bulk was recorded"}.<//>`} />
  </div>`;
}
