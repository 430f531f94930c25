// The time that a page looks at: the last minutes or days, or from one moment to another. It is in the address.
import { html } from "../core/view.js";
import { clock, moment } from "../core/format.js";
import { go, useAddress, withParams } from "../core/location.js";

/** @type {Record<string, [string, number]>} how a range is called, and its seconds */
const LAST = {
  "15m": ["last 15 min", 900], "1h": ["last hour", 3600], "6h": ["last 6 h", 6 * 3600], "24h": ["last 24 h", 86400],
  "7d": ["last 7 d", 7 * 86400], "30d": ["last 30 d", 30 * 86400],
};
/** The begin of "the last hour" moves on by these, so that the same question is not another one at each drawing. */
const STEP_S = 60;

/** The range as the API takes it. @param {URLSearchParams} params @returns {{since_ns: string | null, until_ns: string | null}} */
export function rangeOf(params) {
  const last = LAST[params.get("range") ?? ""];
  if (!last) return { since_ns: params.get("since_ns"), until_ns: params.get("until_ns") };
  const since = Math.floor((Date.now() / 1e3 - last[1]) / STEP_S) * STEP_S;
  return { since_ns: `${since}000000000`, until_ns: null };
}

/** How the range is called, in a sentence. @param {URLSearchParams} params */
export function rangeName(params) {
  const last = LAST[params.get("range") ?? ""];
  if (last) return `in the ${last[0]}`;
  const [since, until] = [params.get("since_ns"), params.get("until_ns")];
  if (!since && !until) return "at any time";
  if (since && until) return `from ${moment(Number(since))} to ${clock(Number(until))}`;
  return since ? `since ${moment(Number(since))}` : `until ${moment(Number(until))}`;
}

/** `clear` names parameters that another range makes meaningless, as the page of a list.
 * @param {{clear?: string[]}} given */
export function Range({ clear = [] }) {
  const { params } = useAddress();
  const exact = params.has("since_ns") || params.has("until_ns");
  const chosen = exact ? "exact" : (params.get("range") ?? "");
  const change = (/** @type {any} */ event) => {
    const none = Object.fromEntries(clear.map((name) => [name, null]));
    go(withParams({ ...none, range: event.target.value, since_ns: null, until_ns: null }));
  };
  return html`<label><span class="mute">time</span>
    <select aria-label="time range" value=${chosen} onChange=${change}>
      <option value="">all time</option>
      ${Object.entries(LAST).map(([name, [title]]) => html`<option value=${name}>${title}</option>`)}
      ${exact && html`<option value="exact">${rangeName(params)}</option>`}
    </select>
  </label>`;
}
