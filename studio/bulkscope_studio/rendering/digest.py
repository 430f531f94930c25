"""A bulk in short (a digest of the API): one screen of the terminal, however large the bulk is."""

from __future__ import annotations

import shlex
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.cells import cell_len
from rich.text import Text

from bulkscope_studio.rendering import ending, explanation, report
from bulkscope_studio.rendering.output import Output
from bulkscope_studio.text.wording import (
    ABSENT,
    agree,
    count,
    estimate,
    moment,
    number,
    part,
    percent,
    printable,
    seconds,
    size,
    unless_exact,
)

LINES = 14
_LABEL = 12
_BAR = 16
_MESSAGE = 80
# One sign for each part of the workers' time, so that a bar needs no colour.
_SIGNS = "█▓▒░"
_APART = "; "
_SENTENCES = ("Helps", "Ends")
# A smaller part of a time is not named beside others.
_WORTH_NAMING = 0.01
Row = tuple[str, Sequence[str]]  # a label, and parts of which the last ones are left out where the line is too narrow


def text(found: Mapping[str, Any], console: Output, bulk: str = "", also: str = "") -> None:
    """Print it in ``LINES`` lines at most, of which none is longer than a terminal of 80 columns or more is wide.

    The commands that are named take ``bulk``, the id as it was asked for, and the options ``also``.
    """
    of = found["report"]
    width = None if console.piped else console.width
    rows, notes, helps = list(_rows(found)), _notes(found), _helps(found)
    # The verdict has what is left, two lines of it before what would help has one.
    left = LINES - 2 - len(rows) - len(notes)
    said = _verdict(found["explanation"], width, left)
    if len(said) + len(helps) > max(left, 2):
        said = _verdict(found["explanation"], width, 2) if left > 2 else said
        helps = helps if len(said) < left else []
    shown = [Text.assemble((f"Bulk {printable(of['id'])}", "bold"), f"  {printable(_state(found))}")]
    shown += [Text(_labelled("Verdict" if n == 0 else "", line)) for n, line in enumerate(said)]
    if found["explanation"] is not None:
        shown[1].stylize("bold", _LABEL, _LABEL + len(printable(found["explanation"]["verdict"]["title"])))
    shown += [Text(_line(label, parts, _APART, width)) for label, parts in (*helps, *rows, *notes)]
    shown.append(Text(_line("Next", _commands(found, bulk, also), "  ", width)))
    for line in shown:
        console.print(line, no_wrap=True, overflow="ignore", crop=False)


def _labelled(label: str, line: str) -> str:
    return f"{label:<{_LABEL}}{printable(line)}"


def _line(label: str, parts: Sequence[str], apart: str, width: int | None) -> str:
    """Return as many of the parts as the width holds; the first one is cut between words where it is a sentence."""
    line, *more = parts
    if label in _SENTENCES or label.startswith("Note"):
        line = _cut(line, width, 1)[0]
    for each in more:
        longer = f"{line}{apart}{each}"
        if width is not None and _LABEL + cell_len(printable(longer)) > width:
            break
        line = longer
    return _labelled(label, line)


def _state(found: Mapping[str, Any]) -> str:
    of, explained = found["report"], found["explanation"]
    state = report.state(of) if explained is None or of["sampled"] is not None else explanation.state(explained)
    until = "" if of["end_ns"] is None else f" to {moment(of['end_ns'], ending.CLOCK)}"
    return f"{state}  {moment(of['start_ns'])}{until} UTC"


def _verdict(explained: Mapping[str, Any] | None, width: int | None, most: int) -> list[str]:
    """Return the verdict in ``most`` lines at most; 'bulkscope explain' says all of it."""
    if explained is None:
        return ["not found in the time that a question may take; 'bulkscope explain' tries again"]
    return _cut(f"{explained['verdict']['title']}. {explained['verdict']['text']}", width, most)


def _cut(said: str, width: int | None, most: int) -> list[str]:
    """Return a text in lines that the width holds, ``most`` of them at most; a word stays whole."""
    if width is None:
        return [printable(said)]
    return textwrap.wrap(
        printable(said), max(width - _LABEL, 20), max_lines=max(1, most), placeholder=" …", break_long_words=False,
        break_on_hyphens=False,
    )  # fmt: skip


def _helps(found: Mapping[str, Any]) -> list[Row]:
    explained = found["explanation"]
    return [("Helps", [item["text"]]) for item in (explained["next"][:1] if explained is not None else ())]


def _rows(found: Mapping[str, Any]) -> Iterator[Row]:
    of, explained = found["report"], found["explanation"]
    jobs, work = of["total"]["jobs"], of["total"]["inferences"]
    if of["ending"] is not None:
        yield "Ends", _ends(of["ending"])
    if explained is not None:
        (_, spent), (_, workers) = explanation.times(explained)
        yield from _spent("Workers", workers)
        yield from _spent("Jobs' time", spent)
    if of["progress"]["sent"]:
        yield "Jobs", [", ".join(report.counted(of["progress"])), *_over(jobs)]
        yield "Wait", [_quantiles(jobs["wait_s"]), f"of the total time {percent(_of(jobs['wait_ratio']))}"]
        yield "Work", [
            _quantiles(jobs["process_s"]), f"first token {report.quantiles(work['ttft_s'])}",
            f"inference {report.quantiles(work['duration_s'])}",
        ]  # fmt: skip
    else:
        yield "Requests", list(_requests(of["requests"]))
    rates = [f"{number(jobs['rate_per_s'])} jobs/s"] if of["progress"]["sent"] else []
    if work["count"]:
        rates += [
            f"{number(work['tokens_per_s'])} output tokens/s of inference",
            f"CPU {percent(_of(work['cpu_utilization']))} of its cores",
            f"RAM peak {unless_exact(size(work['memory_peak_bytes']), work['memory_exact_share'])}",
        ]
    if rates:
        yield "Rates", rates
    yield "Models", _models(of["models"])
    yield "Failed", list(_failed(found))
    yield "Slow", list(_slow(found)) or [ABSENT]


def _ends(found: Mapping[str, Any]) -> list[str]:
    if found["left_s"] is None:
        return [f"not known: {found['why']}" if found["state"] != "complete" else ABSENT]
    return [f"in {ending.left(found)}", ending.moments(found), "95 % interval"]


def _of(what: Mapping[str, Any] | None) -> float | None:
    return None if what is None else what["mean"]


def _quantiles(of: Mapping[str, Any] | None) -> str:
    return f"p50 / p95 / max {report.quantiles(of)}"


def _over(jobs: Mapping[str, Any]) -> Iterator[str]:
    if jobs["retries"]:
        yield f"{count(jobs['retries'], 'retry', 'retries')}"
    if jobs["attempts"]:
        yield f"makespan {seconds(jobs['makespan_s'])}"
        yield f"{count(jobs['workers'], 'worker')}, {count(jobs['places'], 'slot')}"


def _requests(requests: Mapping[str, Any]) -> Iterator[str]:
    yield f"{count(requests['count'], 'API request')}"
    yield ", ".join(f"{n:,} {name}" for name, n in requests["outcomes"].items() if n) or "none"


def _spent(label: str, parts: Sequence[explanation.Part]) -> Iterator[Row]:
    """Yield a bar of the four largest parts of a time, the largest first, and what each is."""
    total = sum(value or 0.0 for _, value in parts)
    largest = sorted(((value or 0.0, name) for name, value in parts), key=lambda each: -each[0])[: len(_SIGNS)]
    largest = [each for n, each in enumerate(largest) if each[0] > (_WORTH_NAMING * total if n else 0)]
    if not largest:
        return
    cells, drawn, summed = "", 0, 0.0
    for sign, (value, _) in zip(_SIGNS, largest, strict=False):
        summed += value
        upto = round(_BAR * summed / total)
        cells, drawn = cells + sign * (upto - drawn), upto
    named = [f"{sign} {percent(value / total)} {name}" for sign, (value, name) in zip(_SIGNS, largest, strict=False)]
    yield label, [f"{cells:<{_BAR}} {named[0]}", *named[1:]]


def _models(models: Sequence[Mapping[str, Any]]) -> list[str]:
    said = [
        f"{group['name']} {count(group['jobs']['done'] + group['jobs']['failed'], 'job')}, "
        f"{number(group['inferences']['tokens_per_s'])} tokens/s"
        for group in models[:8]
    ]
    if len(models) > 1:
        said.insert(1, f"{count(len(models), 'model')} (--by model)")
    return said or [ABSENT]


def _failed(found: Mapping[str, Any]) -> Iterator[str]:
    p, lost, total = (found["report"][name] for name in ("progress", "lost", "total"))
    domains = ", ".join(f"{domain} {n:,}" for domain, n in total["jobs"]["failures_by_domain"].items())
    yield f"{part(p['failed'], p['sent'], 'job')}{f' ({domains})' if domains else ''}" if p["failed"] else "none"
    if lost:
        yield f"{count(len(lost), 'attempt')} lost with {agree(len(lost), 'its worker', 'their workers')}"
    for kind in found["failures"][:3]:
        again = f", {kind['retried_attempts']:,} tried again" if kind["retried_attempts"] else ""
        message = kind["example"]["message"]
        yield (
            f"{kind['failure_domain']} {kind['error_type']}: {count(kind['attempts'], 'attempt')}{again}, the first of "
            f"job {kind['example']['job']}"
        )
        if message:
            yield f'"{textwrap.shorten(message, _MESSAGE, placeholder=" …")}"'


def _slow(found: Mapping[str, Any]) -> Iterator[str]:
    reasons = {each["job"]: each["reason"] for each in (found["explanation"] or {}).get("stragglers", ())}
    for job in found["slow_for_their_size"][:1]:
        if job["excess_s"] > 0:
            yield f"job {job['id']} took {seconds(job['work_s'])}"
            yield f"its tokens explain {estimate(seconds(job['expected_s']))}"
            if reasons.get(job["id"]):
                yield reasons[job["id"]]
    for job in found["longest_work"][:1]:
        yield f"longest job {job['id']} {seconds(job['work_s'])}"


def _notes(found: Mapping[str, Any]) -> list[Row]:
    """Return the notes of report and explanation, each once; that the bulk is partial stands above."""
    said: dict[str, str] = {}
    for note in (*found["report"]["notes"], *(found["explanation"] or {"notes": ()})["notes"]):
        said.setdefault(note.rstrip(".").lower(), note.rstrip("."))
    notes = [note for known, note in said.items() if not known.startswith("partial:")]
    if not notes:
        return []
    return [(f"Note 1 of {len(notes)}" if len(notes) > 1 else "Note", notes)]


def _commands(found: Mapping[str, Any], bulk: str, also: str) -> list[str]:
    def command(name: str, *more: str) -> str:
        words = ["bulkscope", name, *([shlex.quote(printable(bulk))] if bulk else []), *more]
        return " ".join([*words, also] if also else words)

    explained = found["explanation"]
    runs = explained is not None and explained["state"] == "running"
    return [
        *([command("watch")] if runs else []),
        command("explain", "--all"),
        command("report", "--by", "worker"),
        command("report", "--full"),
    ]
