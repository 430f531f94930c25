// Why a bulk took as long as it did: one sentence, what would help, and where its workers' time went.
import { html } from "../core/view.js";
import { count, seconds } from "../core/format.js";
import { withParams } from "../core/location.js";
import { Stack } from "./bars.js";

/** Findings that say that nothing is wrong, or that the work itself is what takes the time. */
const CALM = ["headroom", "at_capacity_workers", "at_capacity_cores", "at_capacity_workers_and_cores"];

/** Where the workers' time went, as `bulkscope explain` divides it; what was busy with the bulk in the parts of its jobs'
 * work, where these are known. @param {any} found the explanation @returns {{parts: import("./bars.js").Part[], whole: number}} */
export function spent(found) {
  const { time_s: t, workers: w } = found;
  const work = [["prefill", t.prefill, "prefill"], ["decode", t.decode, "work"], ["rest of the inference", t.inference_rest, "line-4"], ["work outside the inference", t.other_work, "other"]];
  const told = work.reduce((sum, [, s]) => sum + (s ?? 0), 0);
  const own = t.other_work !== null && told > 0 ? work.map(([name, s, colour]) => [name, (w.own_s * (s ?? 0)) / told, colour]) : [["busy with this bulk", w.own_s, "work"]];
  const all = [...own, ["busy with other bulks", w.others_s, "mute"], ["free while a job waited", w.dispatch_s, "wait"], ["free, no job of the bulk waited", w.idle_s, "idle"]];
  const whole = w.own_s + w.others_s + w.dispatch_s + w.idle_s;
  return { parts: all.filter(([, s]) => s > 0).map(([name, s, colour]) => ({ name, share: whole > 0 ? s / whole : 0, colour })), whole };
}

/** @param {{found: any, notes: string[]}} given `notes`: what the report says beside the explanation */
export function Verdict({ found, notes }) {
  const { verdict } = found;
  const titles = Object.fromEntries(found.findings.map((/** @type {any} */ each) => [each.code, each.title]));
  const { parts, whole } = spent(found);
  const kind = found.state !== "complete" || verdict.code === "data_unfit" ? "warn" : CALM.includes(verdict.code) ? "good" : "bad";
  const plain = (/** @type {string} */ text) => text.replace(/\.$/, "").toLowerCase();
  const said = new Set(found.notes.map(plain));
  const rest = notes.filter((note) => !said.has(plain(note)) && !plain(note).startsWith("partial:"));
  return html`<section class=${`card verdict ${kind}`} aria-label="verdict">
    <div>
      <h2>${verdict.title[0].toUpperCase()}${verdict.title.slice(1)}</h2>
      <p class="wrap">${verdict.text}</p>
      ${found.also.length > 0 && html`<p>Also found: ${found.also.map((/** @type {string} */ code) => titles[code]).join(", ")}.</p>`}
      ${found.next.length > 0 && html`<p>What would help: ${found.next.slice(0, 1).map((/** @type {any} */ each) => html`<b class="wrap">${each.text}</b>`)}</p>
        ${found.next.length > 1 && html`<details><summary>${count(found.next.length - 1, "other change")}</summary><ul>${found.next.slice(1).map((/** @type {any} */ each) => html`<li class="wrap">${each.text}</li>`)}</ul></details>`}`}
      ${[...found.notes, ...rest].map((note) => html`<p class="mute wrap">${note}</p>`)}
      <p><a href=${withParams({ tab: "evidence", sort: null, offset: null })}>All evidence</a></p>
    </div>
    ${whole > 0 && html`<div>
      <h3>Where the workers' ${seconds(whole)} went</h3>
      <${Stack} label="where the workers' time went" parts=${parts} />
      ${found.makespan && html`<p class="mute">Makespan ${seconds(found.makespan.measured)}; the same work on ${count(found.makespan.places, "concurrency slot")} needs at least ${seconds(found.makespan.floor)}.</p>`}
    </div>`}
  </section>`;
}
