// Numbers, durations, sizes and moments as text: the same text as `bulkscope_studio.text.wording` gives the terminal
// (a test compares both). What is absent (null, undefined, NaN) is "–", never 0.
import { settings } from "./settings.js";

export const ABSENT = "–";

/** @typedef {number | null | undefined} Maybe */

/** @param {Maybe} value @returns {value is number} */
export const known = (value) => value !== null && value !== undefined && Number.isFinite(value);

/** @param {Maybe} value */
const unknown = (value) =>
  value === null || value === undefined || Number.isNaN(value) ? ABSENT : value > 0 ? "∞" : "-∞";

/** Ties go to the even digit, as in Python, and no zero has a sign. @param {Intl.NumberFormatOptions} options */
const writer = (options) => new Intl.NumberFormat("en-US", /** @type {any} */ ({ roundingMode: "halfEven", signDisplay: "negative", ...options }));
const GROUPED = writer({ maximumFractionDigits: 0 });
const WHOLE = writer({ maximumFractionDigits: 0, useGrouping: false });
const TENTHS = writer({ maximumFractionDigits: 1, minimumFractionDigits: 1, useGrouping: false });
const MILLIONTHS = writer({ maximumFractionDigits: 6, useGrouping: false });

/** `value` to so many significant digits. @param {number} value */
const to = (value, digits = 3) => Number(value.toPrecision(digits));

/** Three significant digits, whole numbers whole; six decimal places at most. @param {Maybe} value */
export function number(value) {
  if (!known(value)) return unknown(value);
  if (Math.abs(value) < 1e-6) return "0";
  if (Number.isInteger(value) || Math.abs(value) >= 999.5) return GROUPED.format(value);
  return Math.abs(value) < 1e-4 ? MILLIONTHS.format(value) : String(to(value));
}

/** A duration given in seconds. @param {Maybe} value */
export function seconds(value) {
  if (!known(value)) return unknown(value);
  const size = Math.abs(value);
  if (size < 1e-6) return "0 s";
  if (size >= 7200) return `${TENTHS.format(value / 3600)} h`;
  if (size >= 120) return `${TENTHS.format(value / 60)} min`;
  // What would be written as 1,000 of a unit is 1 of the next.
  if (size >= 0.9995) return `${number(to(value))} s`;
  return size >= 0.9995e-3 ? `${number(to(value * 1e3))} ms` : `${number(value * 1e6)} µs`;
}

/** A share 0 to 1. Only 1 is written as 100 %, and only 0 as 0 %. @param {Maybe} share */
export function percent(share) {
  if (!known(share)) return unknown(share);
  if (Math.abs(share) > 0 && Math.abs(share) < 0.001) return share > 0 ? "under 0.1 %" : "0 %";
  if (share > 0.99 && share < 1) return share > 0.999 ? "over 99.9 %" : `${to(100 * share)} %`;
  return `${Math.abs(share) >= 0.1 || share === 0 ? WHOLE.format(100 * share) : to(100 * share, 2)} %`;
}

/** Bytes in binary units. @param {Maybe} value */
export function size(value) {
  if (!known(value)) return unknown(value);
  /** @type {[string, number][]} */
  const units = [["PiB", 2 ** 50], ["TiB", 2 ** 40], ["GiB", 2 ** 30], ["MiB", 2 ** 20], ["KiB", 2 ** 10]];
  for (const [unit, scale] of units) {
    if (Math.abs(value) >= scale) return `${number(to(value / scale))} ${unit}`;
  }
  return `${WHOLE.format(value)} B`;
}

/** A number with its unit, as the API names it: `share`, `s`, `By`, `1`, `1/s`, or what stands behind it. @param {Maybe} amount @param {string} unit */
export function value(amount, unit) {
  const words = /** @type {Record<string, (amount: Maybe) => string>} */ ({ share: percent, s: seconds, By: size, 1: number })[unit];
  if (words) return words(amount);
  if (!known(amount)) return ABSENT;
  return unit === "1/s" ? `${number(amount)}/s` : `${number(amount)} ${unit}`;
}

/** How many times as much, near 1 by three decimal places; beyond a thousandfold it is not told apart. @param {Maybe} factor */
export function times(factor) {
  if (!known(factor)) return unknown(factor);
  if (factor >= 1000 || factor < 0.001) return factor >= 1000 ? "over 1000" : "under 0.001";
  return Math.abs(factor - 1) < 0.05 ? factor.toFixed(3) : factor >= 0.1 ? factor.toFixed(2) : String(to(factor, 2));
}

/** A duration in seconds by two digits: the interval beside it is wider than a third one. @param {Maybe} value */
export const rough = (value) => (known(value) ? seconds(Number(value.toPrecision(2))) : ABSENT);

/** A range, once where both ends are written alike. @param {Maybe} low @param {Maybe} high @param {(value: Maybe) => string} words */
export function between(low, high, words = number) {
  const [first, last] = [words(low), words(high)];
  return first === last ? first : `${first} to ${last}`;
}

/** @param {Maybe} value @param {string} unit what stands behind the number: jobs/s, tokens/s */
export const rate = (value, unit) => (known(value) ? `${number(value)} ${unit}` : unknown(value));

/** `1 job`, `2 jobs`. @param {Maybe} value @param {string} one @param {string} more */
export const count = (value, one, more = `${one}s`) =>
  known(value) ? `${number(value)} ${number(value) === "1" ? one : more}` : ABSENT;

/** @param {Maybe} value @param {string} text the number as text; with the sign of an estimate where it is one @param {boolean} estimated */
export const estimate = (value, text, estimated = true) => (estimated && known(value) ? `~${text}` : text);

/** An estimate unless all that is summed up was measured exactly. @param {Maybe} value @param {string} text @param {Maybe} share of it that was */
export const unlessExact = (value, text, share) => estimate(value, text, known(share) && share < 1);

/** The name of the zone in which moments are written. */
export const zone = () => (settings().zone === "UTC" ? "UTC" : Intl.DateTimeFormat().resolvedOptions().timeZone);

/** @param {Date} date */
const parts = (date) => {
  const two = (/** @type {number} */ n) => String(n).padStart(2, "0");
  return settings().zone === "UTC"
    ? { day: date.toISOString().slice(0, 10), time: date.toISOString().slice(11, 19) }
    : {
        day: `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}`,
        time: `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`,
      };
};

/** Day and time of a moment in ns since the Unix epoch, in the zone that was chosen. @param {Maybe} ns */
export function moment(ns) {
  if (!known(ns)) return ABSENT;
  const { day, time } = parts(new Date(ns / 1e6));
  return `${day} ${time}`;
}

/** The time of day alone, with `digits` of the second's fraction. @param {Maybe} ns @param {number} digits */
export function clock(ns, digits = 0) {
  if (!known(ns)) return ABSENT;
  const { time } = parts(new Date(Math.floor(ns / 1e6)));
  if (!digits) return time;
  const fraction = Math.floor((ns / 1e9 - Math.floor(ns / 1e9)) * 10 ** digits);
  return `${time}.${String(fraction).padStart(digits, "0")}`;
}

/** How long ago, in one unit: `3 min ago`. @param {Maybe} ns */
export function ago(ns) {
  if (!known(ns)) return ABSENT;
  const past = Date.now() / 1e3 - ns / 1e9;
  if (past < 10) return "now";
  for (const [unit, length] of /** @type {[string, number][]} */ ([["d", 86400], ["h", 3600], ["min", 60]])) {
    if (past >= length) return `${Math.floor(past / length)} ${unit} ago`;
  }
  return `${Math.floor(past)} s ago`;
}
