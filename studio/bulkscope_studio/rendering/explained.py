"""An explanation (the JSON of the API) in words, for the terminal and for the page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bulkscope_studio.text.wording import count, seconds

MARKS = {True: "yes", False: "no", None: "?"}
Part = tuple[str, float | None]


def summary(found: Mapping[str, Any]) -> list[str]:
    """Return the verdict's sentence, what holds beside it, what would help, and the notes."""
    lines = [found["verdict"]["text"]]
    titles = {finding["code"]: finding["title"] for finding in found["findings"]}
    if found["also"]:
        lines.append("Beside it: " + ", ".join(titles[code] for code in found["also"]) + ".")
    if found["next"]:
        lines += [f"Next: {item['text']} (estimate)" for item in found["next"]]
    return lines + list(found["notes"])


def times(found: Mapping[str, Any]) -> list[tuple[str, list[Part]]]:
    """Return where the seconds of the jobs and of the workers went, as titled lists of label and seconds."""
    t, w = found["time_s"], found["workers"]
    jobs: list[Part] = [
        ("wanted delay", t["delay"]),
        ("wait: workers busy with this bulk", t["wait_own"]),
        ("wait: workers busy with other bulks", t["wait_others"]),
        ("wait: a worker was free", t["wait_dispatch"]),
        ("wait: before its worker was first seen", t["wait_absent"]),
        ("prefill", t["prefill"]),
        ("decode", t["decode"]),
        ("rest of the inference", t["inference_rest"]),
        ("work around the inference", t["other_work"]),
    ]
    if t["other_work"] is None:
        jobs = [*jobs[:5], ("work", t["work"])]
    workers: list[Part] = [
        ("busy with this bulk", w["own_s"]),
        ("busy with other bulks", w["others_s"]),
        ("free beside a waiting job", w["dispatch_s"]),
        ("free, no job of the bulk waiting", w["idle_s"]),
    ]
    return [("Where the jobs' time went", jobs), ("Where the workers' time went", workers)]


def chain(found: Mapping[str, Any]) -> list[str]:
    """Return sentences on the makespan, the longest chain, the waits and the stragglers."""
    lines = []
    if (m := found["makespan"]) is not None:
        lines.append(
            f"Makespan {seconds(m['measured'])}; the same work takes at least {seconds(m['floor'])} on "
            f"{count(m['places'], 'place')}; the longest job {seconds(m['longest_job'])}, "
            f"{seconds(m['tail'])} lost as workers ran out of jobs at the end."
        )
    if (p := found["path"]) is not None:
        others = f", {seconds(p['work_others'])} of other bulks' jobs" if p["work_others"] else ""
        delay = f", {seconds(p['delay'])} wanted delay" if p["delay"] else ""
        absent = f", {seconds(p['absent'])} until a worker was there" if p["absent"] else ""
        jobs = count(p["jobs"], "job") + (" one after the other" if p["jobs"] > 1 else "")
        lines.append(
            f"Longest chain, {seconds(p['length'])}: {seconds(p['start'])} until its first job was put{absent}, "
            f"{jobs} with {seconds(p['work_own'])} of work{others}{delay}, {seconds(p['dispatch'])} of gaps before "
            "jobs though a worker was free."
        )
    if (w := found["wait"]) is not None:
        against = "" if w["expected"] is None else f"; queueing alone gives {seconds(w['expected'])}"
        ratio = "" if w["ratio"] is None else f", measured / expected {w['ratio']:.2f}"
        lines.append(f"Mean wait {seconds(w['measured'])}{against}{ratio}.")
    for s in found["stragglers"]:
        reason = f": {s['reason']}" if s["reason"] else ""
        lines.append(f"Straggler: job {s['job']} took {seconds(s['seconds'])}, usual {seconds(s['usual_s'])}{reason}.")
    return lines
