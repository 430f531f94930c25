// Time series by uPlot, several on one axis: one pointer and one brush for all, gaps stay gaps. Only pages that show
// series load this module, and with it uPlot and its style.
import { html, useEffect, useMemo, useRef } from "../core/view.js";
import { colour } from "../core/colour.js";
import { clock, known, moment, zone } from "../core/format.js";
import { Table } from "./table.js";
import { Tip, keyed, ticks, useLook, usePointer, useWidth } from "./timeline.js";
import UPlot from "../lib/uPlot.js";

/** @typedef {import("./timeline.js").Range} Range */
/** @typedef {(number | null)[]} Values one a bin; null where nothing was recorded */
/** @typedef {{name: string, values: Values, colour: string}} Series `colour` as app.css names it */
/** @typedef {{name: string, title: string, text: (value: number | null | undefined) => string, series: Series[], short?: (value: number) => string,
 * most?: number, bytes?: boolean, about?: string}} Plot `text` writes a value with its unit, `short` beside the axis; `most`: how high the axis is at least; `about` explains it */
/** @typedef {{from_ns: number, to_ns: number, bins: number, bin_s: number}} Axis as the API has it */
/** @typedef {{from: number, to: number, name: string, href: string, text: string}} Mark s after the begin of the axis */

const style = document.createElement("link");
style.rel = "stylesheet";
style.href = new URL("../lib/uPlot.css", import.meta.url).href;
document.head.append(style);

const HEIGHT_PX = 96;
const AXIS_PX = 20;
const FONT = "11px system-ui, sans-serif";
/** Half of a label of the time axis, px: one at the very end has no room. */
const LABEL_PX = 28;
const BYTES = Array.from({ length: 42 }, (_, n) => 2 ** n);
/** Marks stand in as many rows, those that overlap apart. */
const MARK_ROWS = 3;
const MARK_PX = 16;

/** @param {{axis: Axis, plots: Plot[], marks?: Mark[], onZoom: (range: Range | null) => void, label: string}} given
 * `onZoom` gets seconds after the begin of the axis, null for all */
export function Plots({ axis, plots, marks = [], onZoom, label }) {
  const [box, width] = useWidth();
  const left = width < 600 ? 56 : 74;
  const wide = Math.max(1, width - left);
  const length = (axis.to_ns - axis.from_ns) / 1e9;
  const range = useMemo(() => ({ from: 0, to: length }), [length]);
  const { at, dragged, over, on } = usePointer({ left, width: wide, range, onZoom });
  const within = at !== null && at.x >= left && at.x <= left + wide;
  const time = at && within ? ((at.x - left) / wide) * length : null;
  const bin = time === null ? null : Math.min(axis.bins - 1, Math.floor(time / axis.bin_s));
  const keys = (/** @type {KeyboardEvent} */ event) => {
    if (event.target !== event.currentTarget || event.ctrlKey || event.metaKey || event.altKey) return;
    const to = keyed(event.key, range);
    if (to === undefined) return;
    event.preventDefault();
    onZoom(to);
  };
  const shown = plots.filter(({ series }) => series.length);
  return html`<div ref=${box}>
    <div class="axis" tabindex="0" role="group" aria-label=${`${label}; arrows move, plus and minus zoom, 0 goes back`} onKeyDown=${keys} ...${on}>
      ${marks.length > 0 && html`<${Marks} marks=${marks} left=${left} width=${wide} length=${length} />`}
      ${shown.map((plot, n) => html`<${One} key=${plot.name} plot=${plot} axis=${axis} left=${left} width=${width} bin=${bin} named=${n === shown.length - 1 || n % 4 === 3} />`)}
      ${dragged && html`<div class="brush" style=${{ left: `${dragged.x}px`, width: `${dragged.width}px` }}></div>`}
      ${within && html`<div class="cross" style=${{ left: `${at.x}px` }}></div>`}
      ${within && bin !== null && !dragged && html`<${Tip} x=${at.x} y=${at.y} width=${width}>
        <b>${clock(axis.from_ns + bin * axis.bin_s * 1e9)} ${zone()}</b>
        ${shown.filter(({ name }) => name === over).map(({ title, text, series }) => html`<table><caption>${title}</caption><tbody>${series.map(
          (one) => html`<tr><td><i class="dot" style=${{ background: `var(--${one.colour})` }}></i>${one.name}</td><td class="n">${text(one.values[bin])}</td></tr>`)}</tbody></table>`)}<//>`}
    </div>
    <details><summary>as a table</summary><${AsTable} axis=${axis} plots=${shown} /></details>
  </div>`;
}

/** What a bin holds of each series, as words under its title. @param {{plot: Plot, axis: Axis, left: number, width: number, bin: number | null, named: boolean}} given */
function One({ plot, axis, left, width, bin, named }) {
  const { title, text, series, about } = plot;
  const most = Math.max(0, ...series.map(({ values }) => highest(values)));
  const said = series.some(({ values }) => values.some(known)) ? `${title}: at most ${text(most)}` : `${title}: nothing recorded`;
  return html`<section class="plot" data-name=${plot.name}>
    <div class="title"><h3 title=${about}>${title}</h3><span class="key">
      ${(series.length > 1 || series[0].name !== title) && series.map((one) => html`<span><i style=${{ background: `var(--${one.colour})` }}></i>${one.name} <b>${bin === null ? "" : text(one.values[bin])}</b></span>`)}
      ${series.length === 1 && series[0].name === title && bin !== null && html`<b>${text(series[0].values[bin])}</b>`}</span></div>
    <div role="img" aria-label=${said}><${Lines} plot=${plot} axis=${axis} left=${left} width=${width} named=${named} /></div>
  </section>`;
}

const highest = (/** @type {Values} */ values) => values.reduce((/** @type {number} */ most, value) => Math.max(most, value ?? 0), 0);

/** @param {{plot: Plot, axis: Axis, left: number, width: number, named: boolean}} given */
function Lines({ plot, axis, left, width, named }) {
  const box = useRef(/** @type {HTMLDivElement | null} */ (null));
  const drawn = useRef(/** @type {{plot: any, now: {plot: Plot, axis: Axis}} | null} */ (null));
  const look = useLook();
  const names = plot.series.map(({ name, colour: of }) => `${name} ${of}`).join();
  // The axis and its series stay where a few seconds later the same is drawn with newer values.
  useEffect(() => {
    if (!box.current || !width) return;
    const now = { plot, axis };
    const chart = new UPlot(options(now, left, width, named), data(now), box.current);
    drawn.current = { plot: chart, now };
    return () => {
      drawn.current = null;
      chart.destroy();
    };
  }, [names, left, width, named, look]);
  useEffect(() => {
    if (!drawn.current || drawn.current.now.plot === plot) return;
    Object.assign(drawn.current.now, { plot, axis });
    drawn.current.plot.setData(data(drawn.current.now));
  }, [plot, axis]);
  return html`<div ref=${box} style=${{ height: `${HEIGHT_PX + (named ? AXIS_PX : 0)}px` }}></div>`;
}

/** @param {{plot: Plot, axis: Axis}} now @returns {any} the middles of the bins, and the values */
const data = ({ plot, axis }) => [Float64Array.from({ length: axis.bins }, (_, bin) => (bin + 0.5) * axis.bin_s), ...plot.series.map(({ values }) => values)];

/** What uPlot is to draw; `now` is asked at each drawing. @param {{plot: Plot, axis: Axis}} now @param {number} left @param {number} width @param {boolean} named
 * @returns {any} */
function options(now, left, width, named) {
  const [line, mute] = [colour("line"), colour("mute")];
  const grid = { stroke: line, width: 1 };
  const length = () => (now.axis.to_ns - now.axis.from_ns) / 1e9;
  const round = () => ticks({ from: 0, to: length() }, now.axis.from_ns, width - left);
  return {
    width,
    height: HEIGHT_PX + (named ? AXIS_PX : 0),
    padding: [6, 0, named ? 0 : 4, 0],
    legend: { show: false },
    cursor: { show: false },
    scales: {
      x: { time: false, range: () => [0, length()] },
      y: { range: (/** @type {any} */ _, /** @type {number} */ __, /** @type {number | null} */ most) => [0, Math.max((most ?? 0) * 1.08, now.plot.most ?? 0) || 1] },
    },
    axes: [
      { stroke: mute, font: FONT, grid, ticks: { show: false }, size: named ? AXIS_PX : 0, gap: 4, splits: () => round().map(({ at }) => at), values: () => round().map(({ at, text }) => (named && at < length() * (1 - LABEL_PX / (width - left)) ? text : "")) },
      { stroke: mute, font: FONT, grid, ticks: { show: false }, size: left, gap: 6, space: 34, ...(now.plot.bytes ? { incrs: BYTES } : {}), values: (/** @type {any} */ _, /** @type {number[]} */ splits) => splits.map(now.plot.short ?? now.plot.text) },
    ],
    series: [
      {},
      ...now.plot.series.map(({ name, colour: of }) => ({
        label: name,
        stroke: colour(of),
        width: 1.5,
        spanGaps: false,
        // Between two gaps there is no line, and yet something was recorded.
        points: { show: true, size: 4, fill: colour(of), filter: (/** @type {any} */ chart, /** @type {number} */ n) => alone(chart.data[n]) },
      })),
    ],
  };
}

/** Where values stand alone. @param {Values} values */
const alone = (values) => values.flatMap((value, n) => (known(value) && !known(values[n - 1]) && !known(values[n + 1]) ? [n] : []));

/** Bulks, or whatever has a begin and an end, above the series. @param {{marks: Mark[], left: number, width: number, length: number}} given */
function Marks({ marks, left, width, length }) {
  const free = Array(MARK_ROWS).fill(-Infinity);
  const placed = [...marks].sort((a, b) => a.from - b.from).map((mark) => {
    const from = Math.max(0, mark.from);
    const to = Math.max(from, Math.min(length, mark.to));
    const x = left + (from / length) * width;
    const wide = Math.max(4, ((to - from) / length) * width - 1);
    const row = Math.max(0, free.findIndex((end) => end <= x));
    free[row] = x + wide;
    return { ...mark, x: Math.min(x, left + width - 4), wide, row };
  });
  const rows = 1 + Math.max(...placed.map(({ row }) => row));
  return html`<nav class="marks" aria-label="bulks of this time" style=${{ height: `${rows * MARK_PX}px` }}>
    ${placed.map(({ name, href, text, x, wide, row }) => html`<a key=${href} href=${href} title=${`${name}: ${text}`} aria-label=${name}
      style=${{ left: `${x}px`, width: `${wide}px`, top: `${row * MARK_PX}px` }}>${wide > 40 ? name : ""}</a>`)}
  </nav>`;
}

/** Twelve bins of all. @param {{axis: Axis, plots: Plot[]}} given */
function AsTable({ axis, plots }) {
  const many = Math.min(12, axis.bins);
  const rows = Array.from({ length: many }, (_, n) => Math.floor(((n + 1) * axis.bins) / many) - 1);
  const columns = [
    { name: "at", title: `from, ${zone()}`, cell: (/** @type {number} */ bin) => moment(axis.from_ns + bin * axis.bin_s * 1e9) },
    ...plots.flatMap(({ name, title, text, series }) =>
      series.map((one) => ({ name: `${name} ${one.name}`, title: one.name === title ? title : `${title}, ${one.name}`, right: true, cell: (/** @type {number} */ bin) => text(one.values[bin]) }))),
  ];
  return html`<${Table} caption=${`every ${Math.round(axis.bins / many)}th of ${axis.bins} bins`} columns=${columns} rows=${rows} keyOf=${String} />`;
}
