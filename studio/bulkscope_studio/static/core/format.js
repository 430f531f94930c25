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

/** @param {number} value @param {number} digits */
const grouped = (value, digits = 0) => {
  const text = new Intl.NumberFormat("en-US", { maximumFractionDigits: digits, minimumFractionDigits: digits, roundingMode: "halfEven" }).format(value);
  return text === "-0" ? "0" : text;
};

/** @param {number} value @param {number} digits */
const significant = (value, digits) => {
  const text = value.toPrecision(digits);
  return text.includes("e") ? String(Number(text)) : text.includes(".") ? text.replace(/\.?0+$/, "") : text;
};

/** Three significant digits, whole numbers whole; six decimal places at most. @param {Maybe} value */
export function number(value) {
  if (!known(value)) return unknown(value);
  if (Math.abs(value) < 1e-6) return "0";
  if (Number.isInteger(value) || Math.abs(value) >= 1000) return grouped(value);
  return Math.abs(value) < 1e-4 ? value.toFixed(6).replace(/0+$/, "").replace(/\.$/, "") : significant(value, 3);
}

/** A duration given in seconds. @param {Maybe} value */
export function seconds(value) {
  if (!known(value)) return unknown(value);
  const size = Math.abs(value);
  if (size < 1e-6) return "0 s";
  if (size >= 7200) return `${(value / 3600).toFixed(1)} h`;
  if (size >= 120) return `${(value / 60).toFixed(1)} min`;
  if (size >= 1) return `${number(value)} s`;
  return size >= 1e-3 ? `${number(value * 1e3)} ms` : `${number(value * 1e6)} µs`;
}

/** A share 0 to 1. Only 1 is written as 100 %, and only 0 as 0 %. @param {Maybe} share */
export function percent(share) {
  if (!known(share)) return unknown(share);
  if (Math.abs(share) > 0 && Math.abs(share) < 0.001) return share > 0 ? "under 0.1 %" : "0 %";
  if (share > 0.99 && share < 1) return share > 0.999 ? "over 99.9 %" : `${significant(100 * share, 3)} %`;
  return Math.abs(share) >= 0.1 || share === 0 ? `${grouped(100 * share)} %` : `${significant(100 * share, 2)} %`;
}

/** Bytes in binary units. @param {Maybe} value */
export function size(value) {
  if (!known(value)) return unknown(value);
  /** @type {[string, number][]} */
  const units = [["PiB", 2 ** 50], ["TiB", 2 ** 40], ["GiB", 2 ** 30], ["MiB", 2 ** 20], ["KiB", 2 ** 10]];
  for (const [unit, scale] of units) {
    if (Math.abs(value) >= scale) return `${number(Number((value / scale).toPrecision(3)))} ${unit}`;
  }
  return `${grouped(value)} B`;
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
