"""One odd record never changes, nor breaks, an answer on a bulk that has nothing to do with it."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from bulkscope_studio.analysis.report.bulk import analyse
from bulkscope_studio.ingest import otlp_decode
from bulkscope_studio.services import capacities, figures, times
from bulkscope_studio.services.bulks import nearest
from bulkscope_studio.sources import documents
from bulkscope_studio.storage import credible, summaries
from bulkscope_studio.storage.sql import load
from bulkscope_studio.storage.store import Store
from tests import chance, decoding
from tests.rows import Row, add, insert
from tests.studio import odd, otlp

# Healthy and odd ones run side by side, on workers and hosts of their own, and end before it.
NOW = time.time_ns() // odd.SECOND * odd.SECOND - odd.MINUTE
HUGE = {
    "output_tokens": 2**62, "input_tokens": -(2**63), "cached_tokens": 2**63 - 1, "cpu_time": 1.7e308,
    "cpu_wait": 1e300, "cpu_utilization": float("inf"), "cpu_pressure": float("nan"), "cpu_throttled": -1e300,
    "prefill": 1.7e308, "decode": float("-inf"), "ttft": 1e300, "memory_peak": 2**63 - 1, "memory_start": -(2**63),
    "memory_limit": 2**62, "memory_growth": -(2**63), "memory_file": 2**63 - 1, "memory_anon": 2**63 - 1,
    "tokens_per_second": 1.7e308, "decode_tokens_per_second": float("nan"),
}  # fmt: skip
JOB = {"attempt": 2**31 - 1, "wait": 1e300, "delay": float("nan"), "wait_ratio": float("inf")}
REQUEST = {"bulk_size": 2**63 - 1, "enqueue_duration": 1.7e308, "http_status": -5}
OF_KIND = {"INTERNAL": HUGE, "CONSUMER": JOB, "SERVER": REQUEST}
EVENT = {
    "bulk.job.attempt": ["abc", 2**40, 1e300, -1, [1], None], "bulk.job.elapsed": ["long", "nan", "inf", 1e300, -5.0],
    "process.memory.usage": [1e300, "much", -1, 2**70], "bulk.worker.oom_kills": ["x", 1e300, True],
}  # fmt: skip

Insert = Callable[[Store], None]


def spans(**more: Any) -> Insert:
    def insert(store: Store) -> None:
        rows = [row | more for row in odd.bulk("odd", NOW, resource="odd-r")]
        add(store.connection(), "spans", [elsewhere(row) for row in rows])

    return insert


def elsewhere(row: Row) -> Row:
    """Return a row of another host, model and queue."""
    found = row | {"host_name": "elsewhere", "service_name": "other"}
    return found | {key: f"odd-{row[key]}" for key in ("model", "queue") if key in row}


def of_kind(kind: str, values: dict[str, Any]) -> Insert:
    def insert(store: Store) -> None:
        rows = [elsewhere(row) | (values if row["kind"] == kind else {}) for row in odd.bulk("odd", NOW)]
        add(store.connection(), "spans", rows)

    return insert


def event(bulk: str, attributes: dict[str, Any], **more: Any) -> Insert:
    row = {
        "time_ns": NOW - 40 * odd.SECOND, "event_name": "bulk.job.started", "bulk_id": bulk, "job_id": "gone",
        "span_id": "f" * 16, "trace_id": "e" * 32, "host_name": "elsewhere", "pid": 7, "service_name": "other",
        "attributes": json.dumps(attributes), "body": "started",
    }  # fmt: skip
    return lambda store: add(store.connection(), "logs", [row | more])


def resource(cpus: Any, cpu_set: Any = "0-1") -> Insert:
    def insert(store: Store) -> None:
        text = json.dumps({"bulk.worker.cpus": cpus, "bulk.worker.cpu.set": cpu_set})
        add(store.connection(), "resources", [{"resource_id": "odd-r", "attributes": text}])
        spans()(store)

    return insert


def points(value: float) -> Insert:
    names = (*credible.SHARES, "bulk.telemetry.dropped", "bulk.queue.depth", "process.memory.usage")
    rows = [
        {"time_ns": NOW - 30 * odd.SECOND, "name": name, "type": "gauge", "value": value, "host_name": "elsewhere"}
        for name in names
    ]
    return lambda store: add(store.connection(), "points", rows)


def both(*parts: Insert) -> Insert:
    return lambda store: [part(store) for part in parts] and None  # type: ignore[func-returns-value]


RECORDS: dict[str, Insert] = {
    **{f"{kind} {name}": of_kind(kind, {name: value}) for kind, of in OF_KIND.items() for name, value in of.items()},
    **{
        f"event {name} {value!r}": event("odd", {name: value})
        for name, values in EVENT.items()
        for value in values
    },
    "events without a span id": both(
        event("odd", {}), event("odd", {}, span_id=None), event("odd", {}, span_id=None, job_id="other")
    ),
    **{f"cpus {cpus!r}": resource(cpus) for cpus in ("two", "inf", "nan", -3, 0, 1e300, [2], None)},
    "a set of cores that is none": resource(2, "5-3,x"),
    "spans that end before they start": spans(end_ns=NOW - odd.MINUTE * 9),
    "no names at all": spans(host_name=None, service_name=None, service_instance_id=None, queue=None, pid=None),
}  # fmt: skip


def healthy(path: Path) -> Store:
    store = Store(path)
    add(store.connection(), "spans", odd.bulk("good", NOW))
    limits = json.dumps({"bulk.worker.cpus": 2, "bulk.worker.cpu.set": "0-1"})
    add(store.connection(), "resources", [{"resource_id": "r", "attributes": limits}])
    return store


def seen(store: Store) -> dict[str, Any]:
    """Return every answer on the healthy bulk, and what its pages ask."""
    own = odd.bulk("good", NOW)[-1]
    found = odd.answers(store, "good", NOW)
    asked = odd.api(store, bulk_id="good", id=own["job_id"], trace_id=own["trace_id"], span_id=own["span_id"])
    # What is of the bulk alone; when it ends is said as of now.
    for path, answer in asked.items():
        if ("{bulk_id}" in path or "{trace_id}" in path) and not path.endswith("/ending"):
            found[path] = answer
    listed = odd.everything(store)
    found["bulks"] = [row for row in listed["bulks"] if row["id"] == "good"]
    (shown,) = (row for row in asked["/api/v1/bulks"]["bulks"] if row["id"] == "good")
    del shown["verdict"]  # known within a second, or later
    found["shown"] = shown
    return found


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    store = healthy(tmp_path_factory.mktemp("healthy") / "s.duckdb")
    found = seen(store)
    store.close()
    assert found["report"]["progress"]["done"] == 12
    assert found["explain"]["progress"]["done"] == 12
    assert found["capacity"]["pools"][0]["models"][0]["model"] == "m"
    return found


GROUPS = sorted(RECORDS)
MANY = 16


@pytest.mark.parametrize("group", range(0, len(GROUPS), MANY))
def test_an_odd_record_changes_no_answer_on_another_bulk(group: int, before: dict[str, Any], tmp_path: Path) -> None:
    """Some at once: each by itself would take minutes; a store of its own for each shows which one it was."""
    store = healthy(tmp_path / "s.duckdb")
    for name in GROUPS[group : group + MANY]:
        RECORDS[name](store)
    found = seen(store)
    # Who worked for others at that time is part of the answer, though not of this bulk's numbers.
    for each in (found, before):
        each["explain"]["notes"] = [note for note in each["explain"]["notes"] if "Telemetry" not in note]
    for name, wanted in before.items():
        if name != "capacity":
            assert found[name] == wanted, (name, GROUPS[group : group + MANY])
    models = [model for pool in found["capacity"]["pools"] for model in pool["models"]]
    assert before["capacity"]["pools"][0]["models"][0] in models
    # And the odd bulk itself has answers.
    odd.answers(store, "odd", NOW)
    store.close()


def test_an_odd_number_is_absent_in_its_own_bulk(tmp_path: Path) -> None:
    store = Store(tmp_path / "s.duckdb")
    rows = odd.bulk("good", NOW)
    last = max((row for row in rows if row["kind"] == "INTERNAL"), key=lambda row: row["start_ns"])
    clean = [{key: value for key, value in row.items() if row is not last or key not in HUGE} for row in rows]
    add(store.connection(), "spans", clean)
    wanted = odd.answers(store, "good", NOW)
    store.connection().execute("DELETE FROM spans")
    last.update(HUGE)
    add(store.connection(), "spans", rows)
    assert odd.answers(store, "good", NOW) == wanted
    store.close()


def test_the_decoder_and_its_answers_take_odd_values(before: dict[str, Any], tmp_path: Path) -> None:
    store = healthy(tmp_path / "s.duckdb")
    attributes = {
        "bulk.id": "odd", "bulk.job.id": "j", "gen_ai.request.model": "odd-m", "gen_ai.usage.output_tokens": 2**62,
        "bulk.inference.cpu.time": 1.7e308, "bulk.inference.memory.peak": 2**62, "bulk.job.attempt": 2**40,
    }  # fmt: skip
    for kind in (1, 2, 4, 5):
        times = {"start_time_unix_nano": NOW - odd.SECOND, "end_time_unix_nano": NOW}
        found = decoding.traces(otlp.traces(*[attributes] * 3, kind=kind, **times))
        insert(store.connection(), found.arrow())
    assert odd.answers(store, "good", NOW)["report"] == before["report"]
    odd.answers(store, "odd", NOW)
    odd.everything(store)
    odd.api(store, bulk_id="odd", id="j", trace_id="0", span_id="0", text="odd")
    store.close()


@pytest.mark.slow  # ten million spans
def test_sums_beyond_64_bits_are_sums(tmp_path: Path) -> None:
    store = Store(tmp_path / "s.duckdb")
    rows = odd.bulk("good", NOW)
    for row in rows:
        if row["kind"] == "INTERNAL":
            row["output_tokens"] = 10**12
    add(store.connection(), "spans", rows)
    # As many as the store would need for the sum to pass 2^63.
    store.connection().execute("INSERT INTO spans SELECT s.* FROM spans s, range(800000) WHERE s.model IS NOT NULL")
    (found,) = figures.models(store)["models"]
    assert found["output_tokens"] == pytest.approx(12 * 800_001 * 1e12)
    store.close()


def test_a_clock_ahead_does_not_move_the_last_hour(tmp_path: Path) -> None:
    now = time.time_ns()
    store = Store(tmp_path / "s.duckdb")
    add(store.connection(), "spans", odd.bulk("good", now))
    wanted = capacities.system_capacity(store)["pools"]
    assert wanted
    ahead = now + 23 * 3600 * odd.SECOND
    add(store.connection(), "logs", [{"time_ns": ahead, "body": "x"}])
    add(store.connection(), "points", [{"time_ns": ahead, "name": "g", "type": "gauge", "value": 1.0}])
    assert capacities.system_capacity(store)["pools"] == wanted
    assert times.heard(store, now)[1] < now
    # A clock that is a second ahead is like any other, and in a store of nothing else what there is counts.
    add(store.connection(), "logs", [{"time_ns": now + odd.SECOND, "body": "x"}])
    assert times.heard(store, now)[1] == now + odd.SECOND
    store.connection().execute("DELETE FROM points")
    store.connection().execute("DELETE FROM logs WHERE time_ns = ?", [ahead])
    add(store.connection(), "logs", [{"time_ns": ahead, "body": "x"}])
    store.connection().execute("DELETE FROM spans")
    store.connection().execute("DELETE FROM logs WHERE time_ns < ?", [ahead])
    assert times.heard(store, now)[1] == ahead
    store.connection().execute("DELETE FROM logs")
    store.close()


def test_every_query_reads_credible_numbers() -> None:
    text = load("v1_models")
    assert "FROM rules.recorded_spans" in text
    assert "output_tokens BETWEEN 0 AND 1099511627776" in text
    assert "wait_ratio" not in text  # what it does not name is not looked at


def test_a_document_beyond_the_columns_is_taken(tmp_path: Path) -> None:
    store = Store(tmp_path / "s.duckdb")
    rows = [row | OF_KIND.get(row["kind"], {}) for row in odd.bulk("good", NOW)]
    rows[0] |= {"attempt": 2**40, "output_tokens": [1, 2], "enqueue_duration": 2**62}
    documents.insert(store, "spans", rows)
    found = store.query("SELECT count(*) AS n, count(output_tokens) AS tokens, count(attempt) AS attempts FROM spans")
    assert found.to_pylist() == [{"n": len(rows), "tokens": 0, "attempts": 0}]
    odd.answers(store, "good", NOW)
    store.close()


def test_a_table_is_made_credible() -> None:
    table = pa.table({
        "output_tokens": pa.array([1, 2**62, -1, None, 10**12], pa.int64()),
        "cpus": [2.0, float("inf"), float("nan"), -1, 0],
        "other": [1e300] * 5,
    })  # fmt: skip
    found = credible.table(table).to_pydict()
    assert found["output_tokens"] == [1, None, None, None, 10**12]
    assert found["cpus"] == [2.0, None, None, None, None]
    assert found["other"] == [1e300] * 5


def test_a_report_of_10_000_workers_takes_one_pass(tmp_path: Path) -> None:
    """Groups are those of looking through all rows for each name."""
    store = healthy(tmp_path / "s.duckdb")
    bulk = {"bulk": "good"} | summaries.EVER
    attempts, inferences, requests, sends, related = (
        store.query(load(f"report_{name}"), bulk) for name in ("attempts", "inferences", "requests", "sends", "related")
    )
    empty = store.query(load("report_host"), {"first": 0, "last": 0})
    lost = store.query(load("lost"), bulk | {"silent_ns": 0})
    found = analyse("good", attempts, inferences, requests, empty, lost, sends, related)
    for group in found.workers:
        names = attempts["worker"].to_pylist()
        rows = attempts.filter(pa.array([name == group.name for name in names]))
        inferred = inferences.filter(pa.array([name == group.name for name in inferences["worker"].to_pylist()]))
        alone = analyse("good", rows, inferred, requests.slice(0, 0), empty, lost, sends, related)
        assert group.jobs == alone.total.jobs
        assert group.inferences == alone.total.inferences
    store.close()


def test_an_unknown_id_is_answered_with_what_looks_like_it() -> None:
    assert nearest("sample-00", ["x", "sample-001", "sample-002"]) == ["sample-001", "sample-002"]
    assert nearest("zz", ["ab", "cd"]) == ["ab", "cd"]
    assert nearest("zz", []) == []
    rng = random.Random(1)
    known = [f"{rng.getrandbits(128):032x}" for _ in range(20_000)]
    assert nearest(known[77][:-1] + "!", known)[0] == known[77]
    assert nearest("\x00" * 70_000, ["a" * 70_000])
    # Of equals the first.
    assert nearest("abcd", ["abce", "abcf", "abcg"]) == ["abce", "abcf", "abcg"]


def value(rng: random.Random, kind: str, name: str) -> Any:
    if name.endswith("_ns"):
        return NOW - rng.choice(
            [0, 1, odd.SECOND, 3600 * odd.SECOND, -23 * 3600 * odd.SECOND, NOW - 31_536_000 * 10**9]
        )
    numbers = [None, 0, 1, 2, -1, 2**31 - 1, -(2**31)]
    return rng.choice({
        "s": [None, "", "a", "b0-1", "b0", "b1", "\x1b[31m", "x" * 300, "a|b\n", "m", "q", "ok", "retry", "h"],
        "i": [*numbers, 2**62, 2**63 - 1, -(2**63), 10**12, 2**53 + 1], "n": numbers,
        "d": [None, 0.0, 1.5, -1.5, float("nan"), float("inf"), float("-inf"), 1.7e308, -1.7e308, 5e-324, 1e18,
              rng.random()],
        "b": [None, True, False],
    }[kind])  # fmt: skip


def rubbish(store: Store, seed: int) -> None:
    """Fill a store with healthy bulks, and with the like of them in which anything may be anything."""
    rng = chance.rng(seed)
    con = store.connection()
    fixed = {"trace_id", "span_id", "kind"}
    much = rng.choice([0.02, 0.15])
    for number in range(3):
        add(con, "spans", odd.bulk(f"b{number}", NOW, jobs=rng.choice([1, 5, 30]), resource=f"r{number}"))
        rows = odd.bulk(f"b{number}", NOW, jobs=10, seed=seed, resource=f"r{number}")
        for row in rows:
            for name, kind in otlp_decode.SPANS:
                if name not in fixed and rng.random() < (0.03 if name in ("start_ns", "end_ns") else much):
                    row[name] = value(rng, kind, name)
            if rng.random() < 0.05:
                row["kind"] = rng.choice(["CONSUMER", "PRODUCER", "SERVER", "CLIENT", "INTERNAL", "UNSPECIFIED"])
        add(con, "spans", rows)
        cpus = rng.choice([2, "two", -1, "inf", "nan", 1e300, 0, [1], None])
        text = json.dumps({"bulk.worker.cpus": cpus, "bulk.worker.cpu.set": rng.choice(["0-1", "x", "5-3", 7])})
        add(con, "resources", [{"resource_id": f"r{number}", "attributes": text}])
    add(con, "logs", [
        {
            "time_ns": value(rng, "i", "time_ns"), "event_name": rng.choice(["bulk.job.started", "bulk.job.heartbeat"]),
            "span_id": rng.choice([None, "1", "2"]), "bulk_id": rng.choice([None, "b0", "b1"]), "body": "x",
            "job_id": rng.choice([None, "j", "b0-1", ""]), "host_name": rng.choice([None, "h"]),
            "pid": rng.choice([None, 100, -1, 2**62]),
            "attributes": json.dumps({name: rng.choice(values) for name, values in EVENT.items()}),
        }
        for _ in range(30)
    ])  # fmt: skip
    names = (
        *credible.SHARES, "system.memory.usage", "system.paging.faults", "process.memory.usage",
        "bulk.telemetry.dropped",
        "bulk.queue.depth", "bulk.queue.oldest_age", "bulk.worker.busy", "bulk.system.oom_kills",
    )  # fmt: skip
    states = (None, '{"state":"used"}', '{"state":"idle"}', '{"level":"some","resource":"cpu"}', '{"type":"major"}')
    add(con, "points", [
        {
            "time_ns": value(rng, "i", "time_ns"), "name": rng.choice(names), "type": "gauge", "resource_id": "r0",
            "host_name": rng.choice([None, "h"]), "service_instance_id": rng.choice([None, "b0-w0"]),
            "attributes": rng.choice(states), "value": value(rng, "d", "value"),
        }
        for _ in range(200)
    ])  # fmt: skip


def answer_all(store: Store) -> None:
    odd.everything(store)
    for row in store.query("SELECT DISTINCT bulk_id AS id FROM spans WHERE bulk_id IS NOT NULL ORDER BY 1").to_pylist():
        odd.answers(store, row["id"])
        odd.api(store, bulk_id=row["id"], id="b0-0", trace_id="t", span_id="s", text="b", a=row["id"])


def test_rubbish_has_answers(tmp_path: Path) -> None:
    store = Store(tmp_path / "s.duckdb")
    rubbish(store, 1)
    answer_all(store)
    store.close()


@pytest.mark.slow
@pytest.mark.chance
@pytest.mark.parametrize("seed", range(100, 100 + 6 * chance.TIMES))
def test_rubbish_of_any_kind_has_answers(seed: int, tmp_path: Path) -> None:
    store = Store(tmp_path / "s.duckdb")
    rubbish(store, seed)
    answer_all(store)
    store.close()


def test_rows_by_code_are_those_that_looking_for_each_code_finds() -> None:
    from bulkscope_studio.analysis.timeline.facts import by_code

    rng = np.random.default_rng(3)
    for _ in range(200):
        codes = rng.integers(-1, 6, 40)
        rows = np.flatnonzero(rng.random(40) < 0.7)
        assert {code: of.tolist() for code, of in by_code(codes, rows).items()} == {
            code: rows[codes[rows] == code].tolist() for code in np.unique(codes[rows]).tolist()
        }
