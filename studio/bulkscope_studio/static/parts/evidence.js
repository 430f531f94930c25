// All that was looked for in a bulk, what was found, and the thresholds; and its thirteen numbers.
import { Fragment, html } from "../core/view.js";
import { useAnswer } from "../core/api.js";
import { question } from "./questions.js";
import { Answer } from "./state.js";
import { Thirteen } from "./numbers.js";

/** @type {Record<string, [string, string]>} */
const FINDING = { true: ["✗ holds", "bad"], false: ["✓ fine", "good"], null: ["? unknown", "mute"] };
/** @type {Record<string, string>} */
const SPEAKS = { true: "for", false: "against", null: "?" };

/** @param {{bulk: string, found: any, report: any}} given */
export function Evidence({ bulk, found, report }) {
  const definitions = useAnswer(...question("numbers", bulk));
  return html`<${Fragment}>
    ${found && html`<h3>Findings, in the order in which they are looked at</h3>
      ${found.findings.map((/** @type {any} */ each) => {
        const [mark, colour] = FINDING[String(each.holds)];
        return html`<details class="finding" key=${each.code} open=${each.code === found.verdict.code}>
          <summary><b class=${colour}>${mark}</b> <span class="ink">${each.title}</span> <span class="wrap">${each.text}</span></summary>
          <table><thead class="hidden"><tr><th scope="col">speaks</th><th scope="col">evidence</th></tr></thead>
            <tbody>${each.evidence.map((/** @type {any} */ item) => html`<tr><td class="mute">${SPEAKS[String(item.holds)]}</td>
              <td class="long">${item.link && !item.link.startsWith("/bulk/") && item.link !== "/" ? html`<a href=${item.link}>${item.text}</a>` : item.text}</td></tr>`)}</tbody></table>
        </details>`;
      })}`}
    <h3>The thirteen numbers</h3>
    ${report && html`<${Answer} asked=${definitions} draw=${(/** @type {any} */ answer) => html`<${Thirteen} report=${report} definitions=${answer} />`} />
      <p class="mute">Quantiles: ${report.quantiles}.${report.little ? ` Little's law: ${report.little.ok ? "the records agree with it" : "the records deviate from it"}.` : ""}</p>`}
  <//>`;
}
