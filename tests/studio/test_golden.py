"""Every sentence and table that a command or a page shows of fixed bulks, one file for each renderer and form.

Other tests assert codes and numbers; what is said stands here alone. After a change of the wording write the files
anew and read their difference: ``BULKSCOPE_GOLDEN=write ./run test tests/studio/test_golden.py``.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bulkscope_studio.analysis.explain import findings
from bulkscope_studio.rendering import bulks as list_of_bulks
from bulkscope_studio.rendering import capacity, comparison, digest, ending, explanation, report
from bulkscope_studio.rendering.output import Output
from bulkscope_studio.services import capacities, comparisons, digests, endings, listing, reports
from bulkscope_studio.services.capacities import Question
from bulkscope_studio.services.sides import StoredSides
from bulkscope_studio.storage.store import Store
from tests.rows import ns
from tests.simulator.scenarios import scenarios
from tests.studio.explaining import Job, alive, explain, simulated, stored, written
from tests.studio.made import Made, at_once
from tests.studio.sample import fill
from tests.traces.asking import explained
from tests.traces.rows import ROWS, Row
from tests.traces.service import Service, poisson, work

GOLDEN = Path(__file__).parent / "golden"
WIDTH = 160
Cases = dict[str, Any]
# One bulk of the simulator for each verdict, and one in which two findings hold.
VERDICTS = (
    "unfit/consumers/0.25/11", "failure/EngineError/0.3/0", "failure/border/stall/2", "overload/poisson/2/4",
    "memory/killed/once/4/5.0/3.0", "cpu/threads/join/4x1on2", "bandwidth/join/8/3",
    "contention/lock/join/6/0.4/decode", "headroom/once/4/60", "failure/mix/cpu",
)  # fmt: skip


def printed(say: Callable[[Output], None], width: int = WIDTH) -> str:
    """Return what is printed on a terminal, without the spaces that fill up its lines."""
    file = io.StringIO()
    say(Output(file=file, width=width))
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines()) + "\n"


@contextmanager
def sample(*statements: str) -> Iterator[Store]:
    """Open a store with two bulks of two models, changed by ``statements``."""
    store = Store(Path(":memory:"))
    try:
        connection = store.connection()
        fill(connection)
        for statement in statements:
            connection.execute(statement)
        connection.close()
        yield store
    finally:
        store.close()


# --- what is said, and of what ------------------------------------------------------------------------


def few() -> list[Job]:
    """Jobs of two bulks on two workers: a scheduled delay, a retry, one that is lost and one that nobody took."""
    return [
        Job("a", 1.0, 1.5, 3.0),
        Job("b", 1.0, 3.0, 4.0, columns={"status": "ERROR", "outcome": "retry", "error_type": "Busy"}),
        Job("b", 1.0, 9.0, 9.5, attempt=2, delay=5.0, wait=0.0),
        Job("c", 1.0, 1.2, None, worker=2, seen=3.0),
        Job("d", 2.0),
        Job("e", 1.0, 4.0, 5.0, bulk="other"),
    ]


@cache
def of_reports() -> Cases:
    with sample() as store:
        found = {
            "complete": reports.bulk_report(store, "sample-001"),
            "other": reports.bulk_report(store, "sample-002"),
        }
    with stored(written(few(), points=alive(1, 0.5, 60.0))) as store:
        found["partial"] = reports.bulk_report(store, "bulk")
    return found


@cache
def of_hosts() -> Cases:
    with sample() as store:
        return {"complete": reports.bulk_report(store, "sample-001", by_host=True)}


def by(found: Any) -> str:
    shown = [printed(lambda to, kind=kind: report.by(found, kind, to), 80) for kind in report.KINDS]  # type: ignore[misc]
    return "\n".join([*shown, report.by_markdown(found, "host")])


@cache
def of_digests() -> Cases:
    with sample() as store:
        found = {
            "complete": digests.bulk_digest(store, "sample-001"),
            "without jobs": digests.bulk_digest(store, "sample-refused"),
        }
        found["took too long"] = found["complete"] | {"explanation": None}
    with stored(written(few(), points=alive(1, 0.5, 60.0))) as store:
        found["partial"] = digests.bulk_digest(store, "bulk")
    with stored(written([Job("a", 1.0), Job("b", 2.0)])) as store:
        found["not begun"] = digests.bulk_digest(store, "bulk")
    return found


def in_short(found: Any) -> str:
    """Return what is printed on terminals of several widths: no line more than there may be."""
    shown = []
    for width in (WIDTH, 80, 60):
        text = printed(lambda to: digest.text(found, to, "the-id", "--db s.duckdb"), width)
        assert len(text.splitlines()) <= digest.LINES, text
        shown.append(text)
    return "\n".join(shown)


def _of_traces() -> Iterator[tuple[Row, float]]:
    """Yield each verdict on what would help, at a value at which it is sure."""
    for row in ROWS:
        if not row.stream:
            yield row, row.values[-2]


@cache
def of_explanations() -> Cases:
    known = {scenario.name: scenario for scenario in scenarios()}
    found = {}
    for name in VERDICTS:
        tables, now = simulated(known[name])
        found[name] = explain(tables, known[name].bulk, now)
    for row, value in _of_traces():
        found[f"{row.verdict}, {value:g}"] = explained(work(row.make(value)))
    found["a few jobs"] = explain(written(few(), points=alive(1, 0.5, 12.0)), now=12.0)
    found["a stream with room"] = explained(work(Service(poisson(120, 0.8))))
    found["one job"] = explain(written([Job("a", 1.0, 1.5, 3.0)]))
    return found


@cache
def of_capacities() -> Cases:
    rates = {1: 1.0, 2: 1.9, 3: 1.98}
    made, bulks, at = Made(), [], 0.0
    for n, (workers, rate) in enumerate(rates.items()):
        services = np.random.default_rng(n).gamma(8.0, workers / rate / 8.0, 150)
        bulks.append(f"w{workers}")
        at = made.run([at] * 150, list(services), workers, bulk=f"w{workers}", first_pid=100 * n + 1) + 30.0
    store = made.store()
    found: Cases = {"numbers of workers": capacities.system_capacity(store, Question(bulks, rate=1.0, slo="5s"))}
    found["too high a rate"] = capacities.system_capacity(store, Question(bulks[-1:], rate=5.0, slo="0.01s"))
    found["workers not seen"] = capacities.system_capacity(store, Question(bulks[-1:], rate=1.0, workers=8))
    random = np.random.default_rng(5)
    stream = Made()
    stream.run(
        list(np.cumsum(random.exponential(1.0, 400))), list(random.exponential(1.4, 400)), 2, failed=range(0, 400, 9)
    )
    found["a stream"] = capacities.system_capacity(stream.store(), Question(["b"], slo="10s"))
    found["few jobs"] = capacities.system_capacity(at_once(4, 2).store(), Question(["b"]))
    steps = [
        {"bulk": bulk["id"], "workers": bulk["places"], "rate_per_s": bulk["rate_per_s"], "jobs": bulk["jobs"],
         "wait": bulk["wait"], "expected_p95_s": None}
        for bulk in found["numbers of workers"]["pools"][0]["bulks"]
    ]  # fmt: skip
    found["a sweep"] = {
        "name": "demo", "recommendation": "Run 2 workers.", "notes": ["A note."], "steps": steps,
        "capacity": found["few jobs"],
    }  # fmt: skip
    return found


@cache
def of_comparisons() -> Cases:
    def compared(store: Store, a: str, b: str) -> Any:
        return comparisons.compare(StoredSides(store), a, b)

    with sample() as store:
        found = {"two models": compared(store, "sample-001", "sample-002")}
        found["a bulk with itself"] = compared(store, "sample-001", "sample-001")
    with sample("UPDATE spans SET input_tokens = NULL, output_tokens = NULL") as store:
        found["no tokens"] = compared(store, "sample-001", "sample-002")
    with sample("DELETE FROM spans WHERE right(job_id, 2) > '05' AND bulk_id = 'sample-002'") as store:
        found["few jobs"] = compared(store, "sample-001", "sample-002")
    with stored(written(few(), points=alive(1, 0.5, 60.0))) as store:
        found["partial"] = compared(store, "bulk", "other")
    return found


def of_endings() -> Cases:
    queue = {"queue": "q"}
    halfway = [
        Job(f"j{n}", 0.0, 2.0 * (n // 2), 2.0 * (n // 2) + 1.8 + 0.01 * n, worker=n % 2, columns=queue)
        for n in range(18)
    ]
    halfway += [Job(f"j{n}", 0.0, 18.0, None, worker=n % 2, seen=21.0, columns=queue) for n in (18, 19)]
    halfway += [Job(f"j{n}", 3.0, columns=queue) for n in range(20, 40)]
    failed = [Job("x", 0.0, 1.0, 2.0, columns={"status": "ERROR", "failure_domain": "domain_model"})]
    cases = {
        "halfway": (halfway, 21.5),
        "others first": ([*halfway, *(Job(f"o{n}", 2.0, bulk="other", columns=queue) for n in range(6))], 21.5),
        "no job has ended": (halfway[18:], 21.5),
        "silent": (halfway, 60.0),
        "complete, one failed": ([*halfway[:4], *failed], 21.5),
    }
    found = {}
    for name, (jobs, now) in cases.items():
        with stored(written(jobs, points=alive(1, 0.0, now))) as store:
            found[name] = endings.bulk_ending(store, "bulk", ns(now))
    return found


def bulks() -> str:
    with sample() as store:
        known = listing.Verdicts(store)
        found = listing.bulks(store, known, endings.Ends(store), listing.Wanted())
        while found["verdicts_pending"]:  # a slow machine finds one after the other
            found = listing.bulks(store, known, endings.Ends(store), listing.Wanted())
        shown = {width: printed(lambda console: list_of_bulks.text(found, console), width) for width in (WIDTH, 80, 60)}
    return together(shown, str)


def together(cases: Mapping[Any, Any], show: Callable[[Any], str]) -> str:
    return "\n".join(f"=== {name}\n\n{show(found)}" for name, found in cases.items())


FILES: dict[str, Callable[[], str]] = {
    "bulks.txt": bulks,
    "report.txt": lambda: together(of_reports(), lambda found: printed(lambda to: report.text(found, to))),
    "report-by.txt": lambda: together(of_hosts(), by),
    "digest.txt": lambda: together(of_digests(), in_short),
    "report.md": lambda: together(of_reports(), report.markdown),
    "ending.txt": lambda: together(
        of_endings(), lambda found: "\n".join([ending.line(found), *ending.sentences(found), ""])
    ),
    "explanation.txt": lambda: together(
        of_explanations(), lambda found: printed(lambda to: explanation.text(found, to))
    ),
    "explanation-all.txt": lambda: together(
        of_explanations(), lambda found: printed(lambda to: explanation.text(found, to, everything=True))
    ),
    "explanation.md": lambda: together(
        {name: of_explanations()[name] for name in ("a few jobs", VERDICTS[-1])}, explanation.markdown
    ),
    "capacity.txt": lambda: together(of_capacities(), lambda found: printed(lambda to: capacity.text(found, to))),
    "capacity.md": lambda: together(of_capacities(), capacity.markdown),
    "comparison.txt": lambda: together(of_comparisons(), lambda found: printed(lambda to: comparison.text(found, to))),
    "comparison.md": lambda: together(of_comparisons(), comparison.markdown),
}


@pytest.mark.parametrize("name", FILES)
def test_what_is_said_is_what_was_read_and_agreed_to(name: str) -> None:
    said, path = FILES[name](), GOLDEN / name
    if os.environ.get("BULKSCOPE_GOLDEN") == "write":
        path.write_text(said)
    assert said == path.read_text()


def test_every_verdict_is_among_them_and_nothing_else_is_kept() -> None:
    assert {found["verdict"]["code"] for found in of_explanations().values()} == set(findings.TITLES)
    assert {path.name for path in GOLDEN.iterdir()} == set(FILES)
