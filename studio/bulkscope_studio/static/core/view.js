// What every part and page draws with: Preact's elements, written as htm's templates.
// A value in a template is text, never HTML, so that no name of a bulk or a job can become an element.
import { h } from "../lib/preact.js";
import htm from "../lib/htm.js";

export { Fragment, render } from "../lib/preact.js";
export { useCallback, useEffect, useLayoutEffect, useMemo, useRef, useState } from "../lib/hooks.js";

/** @typedef {import("../lib/preact.js").ComponentChildren} Children */

export const html = htm.bind(h);
