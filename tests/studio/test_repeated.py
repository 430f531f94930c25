"""What is delivered twice counts once: OTLP delivers at least once, so a sender that hears no answer sends again."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bulkscope_studio.ingest import repeated
from bulkscope_studio.ingest.writer import Ingest
from bulkscope_studio.storage.store import Store
from tests import chance, decoding
from tests.studio import otlp


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(tmp_path / "s.duckdb")
    yield opened
    opened.close()


@pytest.fixture
def ingest(store: Store) -> Iterator[Ingest]:
    writer = Ingest(store)
    yield writer
    writer.close()


def count(store: Store, table: str) -> int:
    return int(store.query(f"SELECT count(*) AS n FROM {table}")["n"][0].as_py())


def said(store: Store) -> list[dict[str, Any]]:
    sql = "SELECT signal, outcome, sum(records)::BIGINT AS n FROM ingest GROUP BY ALL ORDER BY signal"
    return list(store.query(sql).to_pylist())


CASES: dict[str, tuple[Callable[[Any], Any], Callable[[], Any], str]] = {
    "traces": (decoding.traces, lambda: otlp.traces({}, {"bulk.id": "b"}), "spans"),
    "logs": (decoding.logs, lambda: otlp.logs("one", "two"), "logs"),
    "metrics": (decoding.metrics, lambda: otlp.gauge(1.0, 2.0), "points"),
}


@pytest.mark.parametrize("signal", CASES)
def test_a_request_that_comes_again_adds_nothing_and_is_counted(signal: str, store: Store, ingest: Ingest) -> None:
    read, make, table = CASES[signal]
    request, other = make(), make()
    ingest.submit(read(request), signal, "http").result(30)
    ingest.submit(read(request), signal, "http").result(30)
    ingest.submit(read(other), signal, "http").result(30)
    assert count(store, table) == 4
    assert ingest.status()["accepted"] == {signal: 4}
    assert ingest.status()["repeated"] == {signal: 2}
    assert said(store) == [{"signal": signal, "outcome": "repeated", "n": 2}]


def test_what_is_new_in_a_request_that_partly_comes_again_is_stored(store: Store, ingest: Ingest) -> None:
    first, second = otlp.traces({}, {}), otlp.traces({}, {}, {})
    ingest.submit(decoding.traces(first), "traces", "http").result(30)
    second.MergeFrom(first)  # as a Collector does that puts batches together anew
    ingest.submit(decoding.traces(second), "traces", "grpc").result(30)
    assert count(store, "spans") == 5
    assert ingest.status()["accepted"] == {"traces": 5}
    assert ingest.status()["repeated"] == {"traces": 2}


def test_a_span_twice_in_one_request_is_one(store: Store, ingest: Ingest) -> None:
    request = otlp.traces({}, {})
    request.MergeFrom(request)
    ingest.submit(decoding.traces(request), "traces", "http").result(30)
    assert count(store, "spans") == 2


def test_equal_log_records_of_one_request_are_two(store: Store, ingest: Ingest) -> None:
    request = otlp.logs("tick", "tick", time_unix_nano=1_700_000_000_000_000_000)
    for _ in range(2):
        ingest.submit(decoding.logs(request), "logs", "http").result(30)
    assert count(store, "logs") == 2
    assert ingest.status()["repeated"] == {"logs": 2}


def test_one_trace_id_with_two_spans_and_one_span_id_in_two_traces_are_two_each(store: Store, ingest: Ingest) -> None:
    for trace, span in ((1, 1), (1, 2), (2, 1)):
        ids = {"trace_id": trace.to_bytes(16, "big"), "span_id": span.to_bytes(8, "big")}
        ingest.submit(decoding.traces(otlp.traces({}, **ids)), "traces", "http").result(30)
    assert count(store, "spans") == 3


def test_requests_of_one_group_are_compared_too(store: Store, ingest: Ingest) -> None:
    """While the writer is kept, requests wait, and are then committed together."""

    free = threading.Event()
    kept = ingest.call(free.wait)
    request = otlp.traces({}, {}, {})
    waiting = [ingest.submit(decoding.traces(request), "traces", "http") for _ in range(3)]
    free.set()
    kept.result(30)
    for future in waiting:
        future.result(30)
    assert count(store, "spans") == 3
    assert ingest.status()["repeated"] == {"traces": 6}


@pytest.mark.parametrize("signal", CASES)
def test_after_a_restart_it_is_known_what_was_stored(signal: str, tmp_path: Path) -> None:
    read, make, table = CASES[signal]
    request = make()
    for _ in range(2):
        store = Store(tmp_path / "s.duckdb")
        ingest = Ingest(store)
        ingest.submit(read(request), signal, "http").result(30)
        ingest.close()
        assert count(store, table) == 2
        store.close()


@pytest.mark.chance
def test_keys_are_remembered_as_a_set_does() -> None:
    draw = chance.rng(7)
    table, known = repeated.Recent(generation=10**6), set[int]()
    for _ in range(300):
        some = np.array(
            [draw.choice((0, 1, draw.getrandbits(64), draw.getrandbits(10))) for _ in range(200)], np.uint64
        )
        assert [bool(there) for there in table.known(some)] == [(int(key) or 1) in known for key in some]
        table.add(some)
        known |= {int(key) or 1 for key in some}


def test_the_newest_keys_are_kept_and_the_oldest_forgotten() -> None:
    keys = np.random.default_rng(1).integers(1, 2**63, 10_000, np.uint64)
    table = repeated.Recent(generation=1000)
    for start in range(0, len(keys), 100):
        table.add(keys[start : start + 100])
    assert table.known(keys[-1000:]).all()
    assert not table.known(keys[:-2100]).any()
