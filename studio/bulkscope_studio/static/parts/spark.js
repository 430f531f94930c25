// A row's course in the height of its text: one bar for each part of its time.
import { html } from "../core/view.js";
import { number } from "../core/format.js";

const HEIGHT = 16;

/** @param {{values: number[], label: string}} given */
export function Spark({ values, label }) {
  const most = Math.max(...values);
  if (!(most > 0)) return null;
  const said = `${label}, in ${values.length} parts of its time: ${number(most)} in the highest`;
  return html`<svg class="spark" role="img" aria-label=${said} viewBox=${`0 0 ${4 * values.length} ${HEIGHT}`}>
    <title>${said}</title>
    ${values.map((value, i) => {
      const height = value > 0 ? Math.max(1, (HEIGHT * value) / most) : 0;
      return html`<rect x=${4 * i} y=${HEIGHT - height} width="3" height=${height}></rect>`;
    })}
  </svg>`;
}
