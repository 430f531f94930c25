// The frame of all pages: navigation, search, colours and zone, whether the studio is there; and which page an address has.
import { Fragment, html, render, useEffect, useRef, useState } from "./core/view.js";
import { useAnswer } from "./core/api.js";
import { useConnected } from "./core/events.js";
import { zone } from "./core/format.js";
import { followed, useAddress } from "./core/location.js";
import { choose, useSettings } from "./core/settings.js";
import { Find } from "./parts/find.js";
import { Empty, Failed } from "./parts/state.js";

/** @typedef {{path: string, name: string | null, load: () => Promise<{Page: any}>}} Place
 * `path` is whole, or the first part where an id follows; `name` is how the navigation calls it */

/** @type {Place[]} */
const PLACES = [
  { path: "/", name: "Bulks", load: () => import("./pages/bulks.js") },
  { path: "/live", name: "Live", load: () => import("./pages/live.js") },
  { path: "/models", name: "Models", load: () => import("./pages/models.js") },
  { path: "/capacity", name: "Capacity", load: () => import("./pages/capacity.js") },
  { path: "/compare", name: "Compare", load: () => import("./pages/compare.js") },
  { path: "/logs", name: "Logs", load: () => import("./pages/logs.js") },
  { path: "/bulk", name: null, load: () => import("./pages/bulk.js") },
  { path: "/job", name: null, load: () => import("./pages/job.js") },
  { path: "/trace", name: null, load: () => import("./pages/trace.js") },
];

/** @param {string} path */
const placeOf = (path) => PLACES.find((place) => path === place.path) ?? PLACES.find((place) => place.path !== "/" && path.startsWith(`${place.path}/`));

function App() {
  const { path } = useAddress();
  const { theme, zone: chosen } = useSettings();
  const place = placeOf(path);
  const main = useRef(/** @type {HTMLElement | null} */ (null));
  const first = useRef(true);
  useEffect(() => {
    if (!first.current) main.current?.focus();
    first.current = false;
  }, [path]);
  return html`<${Fragment}>
    <a class="skip" href="#main">Skip to the content</a>
    <header class="bar">
      <a class="name" href="/">Bulkscope</a>
      <nav aria-label="Pages">
        ${PLACES.map(({ name, path: of }) => name && html`<a href=${of} aria-current=${place?.path === of ? "page" : undefined}>${name}</a>`)}
      </nav>
      <${Find} />
      <label title="the zone of all moments on these pages">times in
        <select value=${chosen} onChange=${(/** @type {any} */ event) => choose({ zone: event.target.value })}>
          <option value="UTC">UTC</option><option value="local">${chosen === "local" ? zone() : "local"}</option>
        </select>
      </label>
      <label><span class="hidden">colours</span>
        <select value=${theme} onChange=${(/** @type {any} */ event) => choose({ theme: event.target.value })}>
          <option value="auto">colours: system</option><option value="light">light</option><option value="dark">dark</option>
        </select>
      </label>
    </header>
    <${Trouble} />
    <main id="main" tabindex="-1" ref=${main}>
      ${place ? html`<${Loaded} key=${path} place=${place} />` : html`<${Unknown} path=${path} />`}
    </main>
    <footer class="mute">– not recorded · ~ estimate · <a href="/api">API</a></footer>
  <//>`;
}

/** @param {{place: Place}} given */
function Loaded({ place }) {
  const [page, setPage] = useState(/** @type {{Page: any} | null} */ (null));
  const [error, setError] = useState(/** @type {any} */ (null));
  useEffect(() => {
    place.load().then(setPage, setError);
  }, []);
  if (error) return html`<${Failed} error=${{ message: "the page could not be loaded", todo: "load it again; the studio may have been updated", nearest: [] }} again=${() => location.reload()} />`;
  return page ? html`<${page.Page} />` : html`<${Empty}>loading…<//>`;
}

/** @param {{path: string}} given */
const Unknown = ({ path }) => html`<div class="state">
  <h1>There is no page at <code class="wrap">${path}</code></h1>
  <a href="/">All bulks</a>
</div>`;

/** What the reader should know on every page: the studio is away, or has trouble with its store, or records were lost. */
function Trouble() {
  const connected = useConnected();
  const { answer } = useAnswer("/status", {}, { everyS: 30, restS: 10 });
  return html`<${Fragment}>
    ${!connected && html`<div class="notice bad" role="alert">The studio does not answer. What stands here is as it was; the page comes back by itself.</div>`}
    ${answer?.trouble && html`<div class="notice bad" role="alert">${answer.trouble}</div>`}
  <//>`;
}

document.addEventListener("click", followed);
const root = document.getElementById("app");
if (root) render(html`<${App} />`, root);
