// The saved page of a bulk (report.html): the page alone, without what would lead to, or ask, a studio.
import { html, render, useEffect } from "./core/view.js";
import { go, useAddress } from "./core/location.js";
import { useSettings } from "./core/settings.js";
import { Page } from "./pages/bulk.js";

function App() {
  useAddress();
  useSettings();
  useEffect(() => void document.body.classList.add("frozen"), []);
  return html`<header class="bar"><span class="name">Bulkscope</span><span class="mute">a saved page: it shows what was known when it was saved</span></header>
    <main id="main" tabindex="-1"><${Page} /></main>
    <footer class="mute">– not recorded · ~ estimate</footer>`;
}

// A link to another view of this page is followed, one to another page of a studio that is not there is not.
document.addEventListener("click", (event) => {
  const link = event.target instanceof Element ? event.target.closest("a") : null;
  if (!link || link.hash || event.button || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
  const here = link.protocol === location.protocol && link.host === location.host;
  if (!here) return;
  if (link.pathname === location.pathname) {
    event.preventDefault();
    go(link.pathname + link.search);
  } else if (location.protocol === "file:") event.preventDefault();
});

const root = document.getElementById("app");
if (root) render(html`<${App} />`, root);
