// What can be done with bulks: keep them under a name, change the note of what is kept, delete. Each says what became of
// it, and nothing is lost by one click.
import { html, useState } from "../core/view.js";
import { Refused, ask } from "../core/api.js";
import { count } from "../core/format.js";
import { Dialog } from "./menu.js";

/** @typedef {{name: string, note: string}} Run as a bulk's row of /bulks names it */

/** @param {unknown} error @returns {Refused} */
const refused = (error) => (error instanceof Refused ? error : new Refused(String(error), "see the browser's console", 0));

/** @param {{error: Refused | null}} given */
const Wrong = ({ error }) => error && html`<p role="alert"><strong class="bad wrap">${error.message}</strong><br /><span class="mute wrap">${error.todo}</span></p>`;

/** The path of a kept run. @param {string} name */
const ofRun = (name) => `/runs/${encodeURIComponent(name)}`;

/** Ask for a name and a note, and keep bulks under it, where the retention leaves them alone.
 * @param {{bulks: string[], onClose: () => void, onKept: () => void}} given */
export function Keep({ bulks, onClose, onKept }) {
  const [name, setName] = useState("");
  const [note, setNote] = useState("");
  const [error, setError] = useState(/** @type {Refused | null} */ (null));
  const taken = error?.status === 409;
  const keep = async (/** @type {Event} */ event) => {
    event.preventDefault();
    try {
      await ask("/runs", {}, { method: "POST", body: { name: name.trim(), bulks, note: note.trim(), replace: taken } });
      onKept();
      onClose();
    } catch (said) {
      setError(refused(said));
    }
  };
  return html`<${Dialog} title=${`Keep ${count(bulks.length, "bulk")}`} onClose=${onClose}>
    <form onSubmit=${keep}>
      <p class="mute">A kept run stays when the retention deletes its bulks. Compare and check know it by its name.</p>
      <label>name <input required autofocus value=${name} onInput=${(/** @type {any} */ event) => { setName(event.target.value); setError(null); }} /></label>
      <label>note <input value=${note} onInput=${(/** @type {any} */ event) => setNote(event.target.value)} /></label>
      <${Wrong} error=${error} />
      <div class="row"><button class="main" type="submit">${taken ? "Replace the one of that name" : "Keep"}</button><button type="button" onClick=${onClose}>Cancel</button></div>
    </form>
  <//>`;
}

/** Change the note of a kept run, or delete the run; its bulks stay.
 * @param {{run: Run, onClose: () => void, onChanged: () => void}} given */
export function Kept({ run, onClose, onChanged }) {
  const [note, setNote] = useState(run.note);
  const [sure, setSure] = useState(false);
  const [error, setError] = useState(/** @type {Refused | null} */ (null));
  const change = async (/** @type {{method: string, body?: unknown}} */ how) => {
    try {
      await ask(ofRun(run.name), {}, how);
      onChanged();
      onClose();
    } catch (said) {
      setError(refused(said));
    }
  };
  const save = (/** @type {Event} */ event) => {
    event.preventDefault();
    change({ method: "PATCH", body: { note: note.trim() } });
  };
  return html`<${Dialog} title=${`Kept as ${run.name}`} onClose=${onClose}>
    <form onSubmit=${save}>
      <label>note <input autofocus value=${note} onInput=${(/** @type {any} */ event) => setNote(event.target.value)} /></label>
      <${Wrong} error=${error} />
      <div class="row"><button class="main" type="submit">Save the note</button>
        <button type="button" class="danger" onClick=${() => (sure ? change({ method: "DELETE" }) : setSure(true))}>${sure ? "Yes, keep it no longer" : "Keep it no longer…"}</button>
        <button type="button" onClick=${onClose}>Cancel</button></div>
    </form>
  <//>`;
}

/** Delete bulks, asked twice. @param {{bulks: string[], jobs: number, onClose: () => void, onDeleted: () => void}} given */
export function Delete({ bulks, jobs, onClose, onDeleted }) {
  const [sure, setSure] = useState(false);
  const [left, setLeft] = useState(bulks);
  const [error, setError] = useState(/** @type {Refused | null} */ (null));
  const runs = error?.status === 409;
  const go = async (/** @type {Event} */ event) => {
    event.preventDefault();
    if (!sure) return setSure(true);
    for (const [n, bulk] of left.entries()) {
      try {
        await ask(`/bulks/${encodeURIComponent(bulk)}`, { running: runs || null }, { method: "DELETE" });
      } catch (said) {
        if (refused(said).status === 404) continue; // somebody was quicker
        setLeft(left.slice(n));
        return setError(refused(said));
      }
    }
    onDeleted();
  };
  const what = bulks.length === 1 ? bulks[0] : count(bulks.length, "bulk");
  return html`<${Dialog} title=${`Delete ${what}`} onClose=${onClose}>
    <form onSubmit=${go}>
      <p>All that is stored of <b class="wrap">${what}</b> goes: ${count(jobs, "job")} with traces and logs. Kept runs stay. This cannot be undone.</p>
      <${Wrong} error=${error} />
      <div class="row"><button class="danger" type="submit">${runs ? "Delete it although it runs" : sure ? "Yes, delete for good" : "Delete…"}</button>
        <button type="button" autofocus onClick=${onClose}>Cancel</button></div>
    </form>
  <//>`;
}
