// A time axis that several drawings share: its range in the address, what a drag, a key or a button make of it, its
// ticks, and a canvas with sharp pixels. Times are seconds after a base, so that a browser's numbers are fine enough.
import { html, useEffect, useLayoutEffect, useRef, useState } from "../core/view.js";
import { clock, moment } from "../core/format.js";
import { go, withParams } from "../core/location.js";
import { useSettings } from "../core/settings.js";

/** @typedef {{from: number, to: number}} Range seconds after the base */

const DAY_S = 86400;
const STEPS_S = [10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, DAY_S, 2 * DAY_S, 7 * DAY_S, 28 * DAY_S, 364 * DAY_S];
/** The shortest range that is shown, s: a span's begin and end have about this accuracy between processes. */
const SHORTEST_S = 1e-3;
/** A pointer that moved less was a click, px. */
const CLICK_PX = 4;

/** Round moments with their text, at most one for each `apart` px.
 * @param {Range} range @param {number} baseNs @param {number} width px @param {number} apart px
 * @returns {{at: number, text: string}[]} `at` is in seconds after the base */
export function ticks({ from, to }, baseNs, width, apart = 90) {
  const least = ((to - from) * apart) / Math.max(width, 1);
  const power = 10 ** Math.floor(Math.log10(least));
  const step = (least > 5 ? STEPS_S : [1, 2, 5, 10].map((n) => n * power)).find((each) => each >= least * (1 - 1e-9)) ?? least;
  const offset = (baseNs / 1e9) % DAY_S;
  const digits = step < 1 ? Math.ceil(-Math.log10(step) - 1e-9) : 0;
  const found = [];
  for (let n = Math.ceil((offset + from) / step); n * step - offset <= to; n++) {
    const at = n * step - offset;
    const ns = baseNs + at * 1e9 + 1e3; // a moment is known to 256 ns here: none may fall below its tick
    found.push({ at, text: step >= DAY_S ? moment(ns).slice(0, 10) : step >= 60 ? clock(ns).slice(0, 5) : clock(ns, digits) });
  }
  return found;
}

/** The range that the address asks for, as `from` and `to`; null for all.
 * @param {URLSearchParams} params @param {number} length s @returns {Range | null} */
export function zoomed(params, length) {
  if (!params.get("from") && !params.get("to")) return null;
  const from = Number(params.get("from") ?? 0);
  const to = Number(params.get("to") ?? length);
  const whole = { from: Math.max(0, from), to: Math.min(length, to) };
  return whole.to - whole.from >= SHORTEST_S / 2 && (whole.from > 0 || whole.to < length) ? whole : null;
}

/** Put a range into the address, moved into the whole. @param {Range | null} range @param {number} length s @param {{replace?: boolean}} how */
export function zoom(range, length, how = {}) {
  const wide = range && Math.max(SHORTEST_S, range.to - range.from);
  if (!range || !wide || wide >= length) return go(withParams({ from: null, to: null, offset: null }), how);
  const from = Math.min(Math.max(0, range.from), length - wide);
  const digits = Math.max(0, Math.ceil(3 - Math.log10(wide))); // to a thousandth of what is shown
  return go(withParams({ from: from.toFixed(digits), to: (from + wide).toFixed(digits), offset: null }), how);
}

/** The range that is `factor` times as wide, about its middle or `about`. @param {Range} range @param {number} factor @param {number} about
 * @returns {Range} */
export const scaled = ({ from, to }, factor, about = (from + to) / 2) => ({ from: about - (about - from) * factor, to: about + (to - about) * factor });

/** What a key makes of a range; undefined for other keys. @param {string} key @param {Range} range @returns {Range | null | undefined} */
export function keyed(key, range) {
  const step = (range.to - range.from) / 5;
  if (key === "ArrowLeft") return { from: range.from - step, to: range.to - step };
  if (key === "ArrowRight") return { from: range.from + step, to: range.to + step };
  if (key === "+" || key === "=") return scaled(range, 0.5);
  if (key === "-") return scaled(range, 2);
  return key === "0" || key === "Home" ? null : undefined;
}

/** The width of an element, px, as it is now. @returns {[{current: HTMLDivElement | null}, number]} */
export function useWidth() {
  const box = useRef(/** @type {HTMLDivElement | null} */ (null));
  const [width, setWidth] = useState(0);
  useLayoutEffect(() => {
    if (!box.current) return;
    const watch = new ResizeObserver(([entry]) => setWidth(Math.floor(entry.contentRect.width)));
    watch.observe(box.current);
    setWidth(Math.floor(box.current.clientWidth));
    return () => watch.disconnect();
  }, []);
  return [box, width];
}

/** What a drawing on a canvas depends on besides its data: a new value means other colours or another zone. */
export function useLook() {
  const { theme, zone } = useSettings();
  return `${theme} ${zone} ${matchMedia("(prefers-color-scheme: dark)").matches} ${devicePixelRatio}`;
}

/** A canvas that is drawn when one of `on` has changed, and at no other time.
 * @param {{width: number, height: number, label: string, draw: (g: CanvasRenderingContext2D) => void, on: unknown[], name?: string}} given */
export function Canvas({ width, height, label, draw, on, name }) {
  const canvas = useRef(/** @type {HTMLCanvasElement | null} */ (null));
  useEffect(() => {
    const g = canvas.current?.getContext("2d");
    if (!canvas.current || !g || !width) return;
    canvas.current.width = Math.round(width * devicePixelRatio);
    canvas.current.height = Math.round(height * devicePixelRatio);
    g.scale(devicePixelRatio, devicePixelRatio);
    draw(g);
  }, [width, height, ...on]);
  return html`<canvas ref=${canvas} role="img" aria-label=${label} data-name=${name} style=${{ height: `${height}px` }}></canvas>`;
}

/** Links between the drawings are followed, not dragged. @param {Event} event */
const onControl = (event) => event.target instanceof Element && event.target.closest("a, button") !== null;

/** Follow the pointer over an axis that begins at `left` px and is `width` px long.
 * @param {{left: number, width: number, range: Range, onZoom: (range: Range | null) => void, onClick?: (y: number) => void}} given
 * @returns {{at: {x: number, y: number} | null, dragged: {x: number, width: number} | null, over: string | null, on: Record<string, (event: any) => void>}}
 * `over` is the drawing (its data-name) at which the pointer is */
export function usePointer({ left, width, range, onZoom, onClick }) {
  const [at, setAt] = useState(/** @type {{x: number, y: number} | null} */ (null));
  const [over, setOver] = useState(/** @type {string | null} */ (null));
  const [begun, setBegun] = useState(/** @type {number | null} */ (null));
  const inside = (/** @type {number} */ x) => Math.min(Math.max(x, left), left + width);
  const time = (/** @type {number} */ x) => range.from + ((inside(x) - left) / width) * (range.to - range.from);
  const place = (/** @type {PointerEvent} */ event) => {
    const box = /** @type {Element} */ (event.currentTarget).getBoundingClientRect();
    return { x: event.clientX - box.left, y: event.clientY - box.top };
  };
  const on = {
    onPointerMove: (/** @type {PointerEvent} */ event) => {
      setAt(place(event));
      const drawing = /** @type {Element} */ (event.target).closest("[data-name]");
      setOver(drawing instanceof HTMLElement ? drawing.dataset.name ?? null : null);
    },
    onPointerLeave: () => setAt(null),
    onPointerDown: (/** @type {PointerEvent} */ event) => {
      if (event.button || onControl(event)) return;
      /** @type {Element} */ (event.currentTarget).setPointerCapture(event.pointerId);
      setBegun(place(event).x);
    },
    onPointerUp: (/** @type {PointerEvent} */ event) => {
      const { x, y } = place(event);
      setBegun(null);
      if (begun === null) return;
      if (Math.abs(x - begun) < CLICK_PX) return onClick?.(y);
      const [from, to] = [time(begun), time(x)].sort((a, b) => a - b);
      onZoom({ from, to });
    },
    onPointerCancel: () => setBegun(null),
    onDblClick: (/** @type {MouseEvent} */ event) => !onControl(event) && onZoom(null),
  };
  const [a, b] = [inside(begun ?? 0), inside(at?.x ?? 0)];
  const dragged = begun !== null && at && Math.abs(a - b) >= CLICK_PX ? { x: Math.min(a, b), width: Math.abs(a - b) } : null;
  return { at, dragged, over, on };
}

/** What stands beside the pointer, on the side that has more room.
 * @param {{x: number, y: number, width: number, children?: import("../core/view.js").Children}} given */
export const Tip = ({ x, y, width, children }) =>
  html`<div class="tip" aria-hidden="true" style=${{ top: `${y + 14}px`, ...(x < width / 2 ? { left: `${x + 14}px` } : { right: `${width - x + 14}px` }) }}>${children}</div>`;
