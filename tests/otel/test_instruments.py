"""Measurements wait for the next collection, and none is lost or counted twice."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from bulkscope import _instruments
from bulkscope import conventions as c

WAIT, SENT, BUSY = c.M_QUEUE_WAIT, c.M_SENT_MESSAGES, c.M_WORKER_BUSY


def test_each_value_and_each_sum_is_there_at_the_collection(telemetry: Any) -> None:
    for value in (0.1, 0.2, 3.0):
        _instruments.record(WAIT, value, {"queue": "a"})
    for value, queue in ((1, "a"), (1, "b"), (5, "a")):
        _instruments.add(SENT, value, {"queue": queue, "other": True})
    for value in (1, 1, -1):
        _instruments.add(BUSY, value, {"queue": "a"})
    found = telemetry.metrics()
    (wait,) = found[WAIT]
    assert (wait.count, wait.sum, wait.min, wait.max) == (3, pytest.approx(3.3), 0.1, 3.0)
    assert {point.attributes["queue"]: point.value for point in found[SENT]} == {"a": 6, "b": 1}
    assert [point.value for point in found[BUSY]] == [1]
    assert telemetry.metrics()[WAIT][0].count == 3  # and not once more with the next


def test_attributes_may_change_after_the_call(telemetry: Any) -> None:
    attributes: Any = {"queue": "a"}
    _instruments.record(WAIT, 1.0, attributes)
    attributes["queue"] = "b"
    assert [point.attributes for point in telemetry.metrics()[WAIT]] == [{"queue": "a"}]


def test_memory_is_bounded_where_nobody_collects(telemetry: Any) -> None:
    for _ in range(10 * _instruments._MOST_WAITING):
        _instruments.record(WAIT, 1.0, {})
        assert len(_instruments._waiting) < _instruments._MOST_WAITING
    assert telemetry.metrics()[WAIT][0].count == 10 * _instruments._MOST_WAITING


def test_threads_lose_nothing(telemetry: Any) -> None:
    def work() -> None:
        for _ in range(2000):
            _instruments.add(SENT, 1, {"queue": "a"})

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        telemetry.metrics()
        thread.join()
    assert [point.value for point in telemetry.metrics()[SENT]] == [8000]


def test_with_exemplars_nothing_waits(telemetry: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_METRICS_EXEMPLAR_FILTER", "trace_based")
    _instruments._deferred.cache_clear()
    try:
        _instruments.record(WAIT, 1.0, {})
        assert not _instruments._waiting
    finally:
        _instruments._deferred.cache_clear()
    assert telemetry.metrics()[WAIT][0].count == 1
