// What the page of a bulk asks when it, or one of its tabs, is first drawn: the same few questions for every bulk, so
// that a saved page (report.html) can bring their answers with it. `server/` reads the object below, which is therefore
// plain JSON: a path below /api/v1 and its parameters, in their order, with {id} in the place of the bulk's id.

/** @type {Record<string, [string, Record<string, string>]>} */
export const QUESTIONS = {
  "summary": ["/bulks/{id}/summary", {}],
  "report": ["/bulks/{id}/report", { "workers": "false" }],
  "explanation": ["/bulks/{id}/explanation", {}],
  "overtime": ["/bulks/{id}/overtime", { "bins": "600", "lanes": "64" }],
  "machine": ["/bulks/{id}/machine", { "bins": "600" }],
  "slow": ["/bulks/{id}/jobs", { "sort": "-excess_s", "limit": "25" }],
  "failures": ["/bulks/{id}/failures", {}],
  "failed": ["/bulks/{id}/jobs", { "sort": "-ended_ns", "limit": "25", "status": "failed" }],
  "work": ["/bulks/{id}/jobs", { "sort": "-work_s", "limit": "25" }],
  "wait": ["/bulks/{id}/jobs", { "sort": "-wait_s", "limit": "25" }],
  "jobs": ["/bulks/{id}/jobs", { "sort": "enqueued_ns", "limit": "25" }],
  "workers": ["/bulks/{id}/workers", { "sort": "name", "limit": "100" }],
  "log": ["/logs", { "bulk": "{id}", "limit": "100" }],
  "numbers": ["/numbers", {}]
};

/** One of the questions about a bulk: its path and parameters. @param {string} name @param {string} id
 * @returns {[string, Record<string, string>]} */
export function question(name, id) {
  const [path, params] = QUESTIONS[name];
  const named = Object.entries(params).map(([key, value]) => [key, value === "{id}" ? id : value]);
  return [path.replace("{id}", () => encodeURIComponent(id)), Object.fromEntries(named)];
}

/** All of them. @param {string} id */
export const questions = (id) => Object.keys(QUESTIONS).map((name) => question(name, id));
