"""An explanation (the JSON of the API) in words: for the page, and as terminal text or markdown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.text import Text

from bulkscope_studio.rendering.output import Output
from bulkscope_studio.text.markdown import bullets, inline, table
from bulkscope_studio.text.wording import LEGEND, PARTIAL, count, estimate, number, percent, seconds

MARKS = {True: "yes", False: "no", None: "?"}
# Of one piece of evidence: whether it speaks for the finding.
SPEAKS = {True: "for", False: "against", None: "?"}
SPENT = ("", "time", "share")
_BAR = 24
_LEAST_S = 0.01  # a ratio of waits of 1 ms alarms for nothing
_WORTH_SAYING = 0.02  # of the makespan: a smaller loss helps nobody
# Verdicts whose sentence does not say what the change would bring.
_ONLY_NEXT = ("slower_than_before",)
Part = tuple[str, float | None]


def text(found: Mapping[str, Any], console: Output, *, everything: bool = False) -> None:
    """Print the verdict, what would help and where the time went; ``everything`` adds all evidence and findings."""
    verdict = found["verdict"]
    console.print(Text.assemble((f"Bulk {found['id']}", "bold"), f"  {state(found)}"))
    console.print(f"Verdict: {verdict['title']}", style="bold")
    for line in summary(found):
        console.print(line)
    for title, parts in times(found):
        kept = parts if everything else [(label, value) for label, value in parts if value]
        total = sum(value or 0.0 for _, value in parts)
        kept = [part for part in kept if everything or (part[1] or 0.0) >= _WORTH_SAYING * total]
        rows = ([*cells, _bar(share)] for cells, share in shares(kept, total))
        console.print()
        console.print_table((*SPENT, ""), rows, right=(1, 2), title=title, spare=(3, 1))
    if not everything:
        console.print("The evidence, all findings, chain, waits and stragglers: --all.")
        return
    console.print(LEGEND)
    for line in chain(found):
        console.print(line)
    console.print()
    console.print("Findings, in the order in which they are looked at", style="bold")
    for finding in found["findings"]:
        console.print(f"  {MARKS[finding['holds']]:<4} {finding['title']}: {finding['text']}")
        _evidence(finding, console)


def markdown(found: Mapping[str, Any]) -> str:
    """Return it as markdown, evidence of all findings included."""
    verdict = found["verdict"]
    lines = [f"# Bulk {inline(found['id'])}: {verdict['title']}", "", state(found), ""]
    lines += [f"{inline(line)}\n" for line in summary(found)]
    for title, parts in times(found):
        lines += [f"## {title}", "", *table(SPENT, (cells for cells, _ in shares(parts)), (1, 2)), ""]
    lines += [LEGEND, "", *bullets(chain(found))]
    for finding in found["findings"]:
        lines += ["", f"## {finding['title']}: {MARKS[finding['holds']]}", "", inline(finding["text"]), ""]
        lines += [f"- {SPEAKS[item['holds']]}: {inline(item['text'])}" for item in finding["evidence"]]
    return "\n".join([*lines, ""])


def state(found: Mapping[str, Any]) -> str:
    """Say whether the bulk is complete, with the sign of what is partial."""
    return "complete" if found["state"] == "complete" else f"{PARTIAL} ({found['state']})"


def summary(found: Mapping[str, Any]) -> list[str]:
    """Return the verdict's sentence, what holds beside it, what would help, and the notes."""
    lines = [found["verdict"]["text"]]
    titles = {finding["code"]: finding["title"] for finding in found["findings"]}
    if found["also"]:
        lines.append("Also found: " + ", ".join(titles[code] for code in found["also"]) + ".")
    # What the verdict says itself is not said again.
    told = found["verdict"]["code"]
    lines += [f"Next: {item['text']}." for item in found["next"] if item["change"] != told or told in _ONLY_NEXT]
    return lines + list(found["notes"])


def times(found: Mapping[str, Any]) -> list[tuple[str, list[Part]]]:
    """Return where the seconds of the jobs and of the workers went, as titled lists of label and seconds."""
    t, w = found["time_s"], found["workers"]
    jobs: list[Part] = [
        ("scheduled delay", t["delay"]),
        ("queue wait: workers busy with this bulk", t["wait_own"]),
        ("queue wait: workers busy with other bulks", t["wait_others"]),
        ("queue wait: a worker was free", t["wait_dispatch"]),
        ("queue wait: before its worker was first seen", t["wait_absent"]),
        ("prefill", t["prefill"]),
        ("decode", t["decode"]),
        ("rest of the inference", t["inference_rest"]),
        ("work outside the inference", t["other_work"]),
    ]
    if t["other_work"] is None:
        jobs = [*jobs[:5], ("work", t["work"])]
    workers: list[Part] = [
        ("busy with this bulk", w["own_s"]),
        ("busy with other bulks", w["others_s"]),
        ("free while a job waited", w["dispatch_s"]),
        ("free, no job of the bulk waited", w["idle_s"]),
    ]
    return [("Where the jobs' time went", jobs), ("Where the workers' time went", workers)]


def shares(parts: list[Part], whole: float | None = None) -> Iterator[tuple[list[str], float]]:
    """Yield the cells of ``SPENT`` for each part of a whole, their sum where none is given, and its share (0 where it
    is not known)."""
    total = sum(value or 0.0 for _, value in parts) if whole is None else whole
    for label, value in parts:
        share = value / total if value is not None and total > 0 else None
        yield [label, seconds(value), percent(share)], share or 0.0


def chain(found: Mapping[str, Any]) -> list[str]:
    """Return sentences on the makespan, the longest chain, the waits and the stragglers."""
    lines = []
    if (m := found["makespan"]) is not None:
        tail = f"; {seconds(m['tail'])} were lost at the end, as workers ran out of jobs"
        lines.append(
            f"Makespan {seconds(m['measured'])}: the same work needs at least {seconds(m['floor'])} on "
            f"{count(m['places'], 'concurrency slot')}; the longest job took {seconds(m['longest_job'])}"
            f"{tail if m['tail'] >= _WORTH_SAYING * m['measured'] else ''}."
        )
    if (p := found["path"]) is not None:
        others = f", {seconds(p['work_others'])} of work of other bulks' jobs" if p["work_others"] else ""
        delay = f", {seconds(p['delay'])} of scheduled delay" if p["delay"] else ""
        absent = f", {seconds(p['absent'])} until a worker was there" if p["absent"] else ""
        jobs = count(p["jobs"], "job") + (" one after the other" if p["jobs"] > 1 else "")
        lines.append(
            f"Longest chain {seconds(p['length'])}: {seconds(p['start'])} until the chain's first job was enqueued"
            f"{absent}, {jobs} with {seconds(p['work_own'])} of work{others}{delay}, {seconds(p['dispatch'])} of gaps "
            "in which a worker was free."
        )
    if (w := found["wait"]) is not None:
        against = "" if w["expected"] is None else f"; queueing alone explains {estimate(seconds(w['expected']))}"
        ratio = "" if w["ratio"] is None or w["measured"] < _LEAST_S else f", measured / expected {number(w['ratio'])}"
        lines.append(f"Mean queue wait {seconds(w['measured'])}{against}{ratio}.")
    for s in found["stragglers"]:
        reason = f": {s['reason']}" if s["reason"] else ""
        lines.append(
            f"Straggler: job {s['job']} took {seconds(s['seconds'])}, the median is {seconds(s['usual_s'])}{reason}."
        )
    return lines


def _evidence(finding: Mapping[str, Any], console: Output) -> None:
    for item in finding["evidence"]:
        console.print(f"       {SPEAKS[item['holds']]:<7} {item['text']}")


def _bar(share: float) -> str:
    return "█" * round(share * _BAR)
