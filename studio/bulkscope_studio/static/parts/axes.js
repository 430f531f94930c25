// Two axes with their grid and texts, for drawings of one number over another; and the pointer over them.
import { useState } from "../core/view.js";
import { colour } from "../core/colour.js";

/** Room for the texts of the axes, px. */
export const LEFT = 62;
const [TOP, RIGHT, BOTTOM] = [8, 10, 34];
const STEPS = 4;

/** @typedef {{x: (value: number) => number, y: (value: number) => number, wide: number, high: number, most: {x: number, y: number}}} Axes
 * `x` and `y` give the place of a value, px; `wide` and `high` are the drawing's size within the axes */

/** Axes from 0 to `most` in a drawing of a size in px. @param {number} width @param {number} height @param {{x: number, y: number}} most @returns {Axes} */
export function axes(width, height, most) {
  const [wide, high] = [width - LEFT - RIGHT, height - BOTTOM - TOP];
  return { x: (value) => LEFT + (value / most.x) * wide, y: (value) => TOP + high * (1 - value / most.y), wide, high, most };
}

/** Draw the grid, the texts and the name of the axis below. @param {CanvasRenderingContext2D} g @param {Axes} of
 * @param {{x: (value: number) => string, y: (value: number) => string, title: string}} texts */
export function drawAxes(g, { x, y, wide, high, most }, texts) {
  const [mute, line] = [colour("mute"), colour("line")];
  const height = TOP + high + BOTTOM;
  g.font = "11px system-ui";
  g.lineWidth = 1;
  for (let step = 0; step <= STEPS; step++) {
    const [right, up] = [(most.x * step) / STEPS, (most.y * step) / STEPS];
    g.strokeStyle = line;
    g.beginPath();
    g.moveTo(LEFT, y(up));
    g.lineTo(LEFT + wide, y(up));
    g.stroke();
    g.fillStyle = mute;
    g.textAlign = "right";
    g.fillText(texts.y(up), LEFT - 6, y(up) + 4);
    g.textAlign = step === STEPS ? "right" : "center";
    g.fillText(texts.x(right), x(right), height - 18);
  }
  g.textAlign = "center";
  g.fillText(texts.title, LEFT + wide / 2, height - 3);
}

/** Where the pointer is over an element, px; null where it is not. @returns {[{x: number, y: number} | null, Record<string, (event: any) => void>]} */
export function useHover() {
  const [at, setAt] = useState(/** @type {{x: number, y: number} | null} */ (null));
  const on = {
    onPointerMove: (/** @type {PointerEvent} */ event) => {
      const area = /** @type {Element} */ (event.currentTarget).getBoundingClientRect();
      setAt({ x: event.clientX - area.left, y: event.clientY - area.top });
    },
    onPointerLeave: () => setAt(null),
  };
  return [at, on];
}
