// How far a bulk that has not ended is, how fast it goes and when it ends: what `bulkscope watch` says.
import { html } from "../core/view.js";
import { useAnswer, ofBulk } from "../core/api.js";
import { between, clock, count, estimate, moment, number, rough, seconds, zone } from "../core/format.js";
import { Meter } from "./bars.js";

/** @typedef {{value: number, low: number, high: number}} Interval */

const GOING = ["running", "waiting", "retrying", "lost", "unknown"];
/** An end within so many seconds is told by the time of day alone. */
const SAME_DAY_S = 20 * 3600;

/** When it ends, with the interval. @param {{left_s: Interval, end_ns: Interval}} ending */
export function ends({ left_s, end_ns }) {
  const at = (/** @type {number} */ ns) => (left_s.high < SAME_DAY_S ? clock(ns) : moment(ns));
  const [low, high] = [at(end_ns.low), at(end_ns.high)];
  return {
    left: `${estimate(left_s.value, rough(left_s.value))} (${between(left_s.low, left_s.high, rough)})`,
    at: `${at(end_ns.value)} ${zone()}${low === high ? "" : ` (${low} to ${high})`}`,
  };
}

/** `title` stands above where the page is not of this bulk alone.
 * @param {{bulk: string, restS: number, title?: import("../core/view.js").Children}} given */
export function Progress({ bulk, restS, title = null }) {
  const { answer } = useAnswer(ofBulk(bulk, "ending"), {}, { of: bulk, everyS: 5, restS });
  if (!answer || answer.state === "complete") return null;
  const p = answer.progress;
  const ended = p.done + p.failed + p.cancelled;
  const states = GOING.filter((name) => p[name]).map((name) => `${number(p[name])} ${name}`);
  const of = `${number(ended)} of ${count(p.sent, "job")}`;
  const known = answer.left_s !== null;
  const when = known ? ends(answer) : null;
  return html`<section class="card" aria-label=${title ? `progress of ${bulk}` : "progress"}>
    ${title && html`<div class="row">${title}</div>`}
    <div class="row"><b>${of}</b><${Meter} done=${p.done} failed=${p.failed} of=${p.sent} label=${`${of} have ended, ${number(p.failed)} of them failed`} />
      ${p.failed > 0 && html`<span class="bad">${number(p.failed)} failed</span>`}<span class="mute">${states.join(", ")}</span>
      ${answer.rate_per_s && html`<span title="jobs per second while all slots are busy">${estimate(answer.rate_per_s.value, number(Number(answer.rate_per_s.value.toPrecision(2))))} jobs/s on ${count(answer.slots, "slot")}</span>`}
    </div>
    ${when
      ? html`<p>Ends in <b>${when.left}</b>, at ${when.at} <span class="mute">95 % interval${answer.ahead ? `; ${count(answer.ahead, "job")} of other bulks first` : ""}</span></p>`
      : html`<p class="wrap">Its end is not known: ${answer.why ?? `nothing was heard of it for ${seconds((answer.now_ns - (answer.ended_ns ?? answer.now_ns)) / 1e9)}`}</p>`}
    ${answer.notes.map((/** @type {string} */ note) => html`<p class="mute wrap">${note}</p>`)}
  </section>`;
}
