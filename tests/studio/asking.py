"""What every source has to answer, whichever it is: held against the file, a running studio, and Elasticsearch."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from bulkscope_studio.sources.source import Answer, Change, Conflict, InvalidQuery, NotFound, Question, Source, Wanted

Ask = Callable[[Source, str], Any]
OF_ONE: dict[str, Ask] = {
    "report": lambda source, bulk: source.report(bulk),
    "report by host": lambda source, bulk: source.report(bulk, by_host=True),
    "digest": lambda source, bulk: source.digest(bulk),
    "ending": lambda source, bulk: source.ending(bulk),
    "explanation": lambda source, bulk: source.explanation(bulk),
    "whatif": lambda source, bulk: source.whatif(bulk, Change(workers=4)),
    "comparison": lambda source, bulk: source.comparison(bulk, bulk),
    "check": lambda source, bulk: source.check(bulk, bulk, "10%"),
    "capacity": lambda source, bulk: source.capacity(Question([bulk])),
}
# What a path, a query or a shell could take for something else.
ODD = ("..", ".", "a/b", "a%2Fb", "a b?c#d", "ä\n\x1b[2J", "'; DROP TABLE spans; --", "x" * 5000)


def bulks(source: Source, one: str, other: str, jobs: int) -> None:
    """Two bulks are there, ``one`` with so many jobs: they are listed, reported, explained, compared."""
    rows = {row["id"]: row for row in source.bulks()}
    assert {one, other} <= rows.keys()
    assert rows[one]["jobs"] == jobs
    assert rows[one]["duration_s"] == (rows[one]["end_ns"] - rows[one]["start_ns"]) / 1e9
    report = source.report(one)
    assert (report["schema"], report["id"]) == ("bulkscope.report/1", one)
    assert report["progress"]["sent"] == jobs
    newest = next(row["id"] for row in source.bulks() if row["jobs"])
    assert source.report("latest")["id"] == newest
    by_host = source.report(one, by_host=True)
    assert by_host.pop("by_host")
    assert plain(by_host) == plain(report)
    digest = source.digest(one)
    assert plain(digest["report"]) == plain(report)
    assert digest["explanation"]["verdict"] == source.explanation(one)["verdict"]
    assert {job["id"] for job in digest["longest_work"]}
    explanation = source.explanation(one)
    assert explanation["id"] == one
    assert explanation["progress"]["sent"] == jobs
    compared = source.comparison(one, other)
    assert (compared["a"]["bulks"], compared["b"]["bulks"]) == ([one], [other])
    assert compared["a"]["sent"] == jobs
    assert [bulk["id"] for pool in source.capacity(Question([one]))["pools"] for bulk in pool["bulks"]] == [one]


def listed(source: Source, one: str) -> None:
    """The list is the same bulks, filtered, sorted and in pages; each has its state."""
    rows = {row["id"]: row for row in source.bulks()}

    def ids(**wanted: Any) -> list[str]:
        found = source.listed(Wanted(**wanted), verdicts=False)
        assert found["total"] >= len(found["bulks"])
        return [row["id"] for row in found["bulks"]]

    assert ids() == list(rows)
    assert ids(sort="start_ns") == sorted(rows, key=lambda name: (rows[name]["start_ns"], name))
    assert ids(sort="-took_s")[0] == max(rows, key=lambda name: rows[name]["duration_s"])
    assert ids(limit=1, offset=1) == list(rows)[1:2]
    assert ids(search=one.upper(), sort="id") == sorted(name for name in rows if one in name)
    assert ids(failed=True) == [name for name, row in rows.items() if row["failed"]]
    last_ns = max(row["end_ns"] for row in rows.values())
    assert set(ids(since_ns=last_ns)) == {name for name, row in rows.items() if row["end_ns"] >= last_ns}
    assert ids(since_ns=last_ns + 10**9) == []
    for model in {model for row in rows.values() for model in row["models"]}:
        assert ids(model=model) == [name for name, row in rows.items() if model in row["models"]]
    states = {row["id"]: row["state"] for row in source.listed(Wanted(), verdicts=False)["bulks"]}
    for state in ("complete", "running", "stopped"):
        assert ids(state=state) == [name for name in rows if states[name] == state]
    for name in rows:
        if states[name] == "complete":
            assert source.report(name)["progress"]["sent"] > 0
    for wanted in (Wanted(sort="colour"), Wanted(state="odd"), Wanted(limit=0)):
        with pytest.raises(InvalidQuery):
            source.listed(wanted, verdicts=False)


def unknown(source: Source, known: list[str]) -> None:
    """What is not there is said of each question in the same way, whatever its name, with names that there are."""
    for what, ask in OF_ONE.items():
        for name in ODD:
            with pytest.raises(NotFound) as raised:
                ask(source, name)
            assert (raised.value.name, raised.value.what.split()[0]) == (name, "bulk"), what
            assert set(raised.value.nearest) <= set(known), what
            assert bool(raised.value.nearest) == bool(known), what
        if known:
            with pytest.raises(NotFound) as raised:
                ask(source, f"{known[0]}y")
            assert raised.value.nearest[0] == known[0], what


def senseless(source: Source, bulk: str) -> None:
    """What makes no sense is the user's to put right, and says how."""
    for question, says in (
        (Question([bulk], rate=-1.0), "arrival rate"),
        (Question([bulk], quantile=1.0), "quantile"),
        (Question([bulk], workers=0), "number of workers"),
        (Question([bulk], slo="soon"), "not a duration"),
        (Question([bulk], last="1h"), "bulks or a time, not both"),
    ):
        with pytest.raises(InvalidQuery, match=says):
            source.capacity(question)
    with pytest.raises(InvalidQuery, match="two sides"):
        source.comparison(bulk, None)
    with pytest.raises(InvalidQuery, match=r"no model|not two models"):
        source.comparison(bulk, None, models=True)


def runs(source: Source, one: str, other: str) -> None:
    """A run is kept, shown, compared with, replaced on demand alone, and dropped."""
    assert source.runs() == []
    for ask in (source.run, source.drop):
        with pytest.raises(NotFound, match="no run 'week'"):
            ask("week")
    kept = source.keep("week", [one])
    assert (kept["name"], list(kept["bulks"])) == ("week", [one])
    assert plain(source.run("week")) == plain(kept)
    assert plain(source.runs()) == [plain(kept)]
    with pytest.raises(Conflict, match="--replace"):
        source.keep("week", [other])
    assert list(source.keep("week", [one, other], replace=True)["bulks"]) == [one, other]
    assert source.comparison("week", one)["a"]["bulks"] == [one, other]
    with pytest.raises(NotFound) as raised:
        source.run("weak")
    assert (raised.value.what, raised.value.nearest) == ("run", ["week"])
    with pytest.raises(NotFound, match="no bulk 'nobody'"):
        source.keep("more", ["nobody"])
    with pytest.raises(InvalidQuery, match="cannot name a run"):
        source.keep("a/b", [one])
    assert source.drop("week") == {"dropped": "week"}
    assert source.runs() == []


def plain(found: Answer | list[Answer]) -> Any:
    """Return an answer as JSON has it."""
    return json.loads(json.dumps(found))
