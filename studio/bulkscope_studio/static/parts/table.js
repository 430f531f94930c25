// A table whose order is in the address. Which rows there are, and their order, is the server's matter.
import { html } from "../core/view.js";
import { useParam } from "../core/location.js";
import { number } from "../core/format.js";

/** @typedef {import("../core/view.js").Children} Children */
/** @typedef {{name: string, title: Children, cell: (row: any) => Children, sort?: string, right?: boolean, long?: boolean,
 * tip?: string}} Column `sort` is the API's name for the order, where there is one; `tip` says what the column is */

/** @param {{columns: Column[], rows: any[], keyOf: (row: any) => string, caption: string, sort?: string,
 * onSort?: (sort: string) => void, selected?: string | null, chosen?: string[], note?: Children}} given
 * `sort` is as the API has it: with "-" in front the highest first; rows of `chosen` look as the one that is `selected` */
export function Table({ columns, rows, keyOf, caption, sort = "", onSort, selected = null, chosen = [] }) {
  const by = sort.replace(/^-/, "");
  const down = sort.startsWith("-");
  /** @param {Column} column */
  const head = (column) => {
    const sorted = column.sort !== undefined && column.sort === by;
    const order = sorted ? (down ? "descending" : "ascending") : undefined;
    const mark = sorted ? (down ? " ▾" : " ▴") : "";
    const name = column.sort;
    return html`<th scope="col" class=${column.right ? "n" : ""} aria-sort=${order} title=${column.tip}>
      ${name !== undefined && onSort
        ? html`<button onClick=${() => onSort(sorted && down ? name : `-${name}`)}>${column.title}${mark}</button>`
        : column.title || html`<span class="hidden">${column.name}</span>`}
    </th>`;
  };
  return html`<div class="scroll" tabindex="0" role="region" aria-label=${caption}>
    <table>
      <caption class="hidden">${caption}</caption>
      <thead><tr>${columns.map(head)}</tr></thead>
      <tbody>
        ${rows.map(
          (row) => html`<tr key=${keyOf(row)} aria-selected=${keyOf(row) === selected || chosen.includes(keyOf(row)) ? "true" : undefined}>
            ${columns.map((column) => html`<td class=${`${column.right ? "n" : ""} ${column.long ? "long" : ""}`}>${column.cell(row)}</td>`)}
          </tr>`,
        )}
      </tbody>
    </table>
  </div>`;
}

/** Where in the rows the page is; the offset is in the address as `name`.
 * @param {{total: number, limit: number, name?: string, what?: string}} given */
export function Pages({ total, limit, name = "offset", what = "" }) {
  const [text, set] = useParam(name, "0");
  const offset = Math.max(0, Number.parseInt(text, 10) || 0);
  if (total <= limit && !offset) return null;
  return html`<nav class="pages" aria-label=${`parts of the ${what || "table"}`}>
    <span class="mute">${number(Math.min(offset + 1, total))} to ${number(Math.min(offset + limit, total))} of ${number(total)} ${what}</span>
    <button disabled=${offset === 0} onClick=${() => set(String(Math.max(0, offset - limit)))}>Before</button>
    <button disabled=${offset + limit >= total} onClick=${() => set(String(offset + limit))}>After</button>
  </nav>`;
}
