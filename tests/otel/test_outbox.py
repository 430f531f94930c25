"""What waits to be delivered: kept through an outage, in bounded memory, and nobody waits for it."""

from __future__ import annotations

import http.client
import random
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from bulkscope._export import outbox
from bulkscope._export.otlp_http import BusyError, RefusedError
from bulkscope._export.outbox import Outbox


class EndPoint:
    """What batches are sent to; ``answers`` are raised in turn before anything is taken, ``always`` for some items."""

    def __init__(self, **options: Any) -> None:
        self.answers: list[Exception] = []
        self.always: dict[bytes, Exception] = {}
        self.taken: list[bytes] = []
        self.attempts = 0
        self.open = threading.Event()
        self.open.set()
        self.dropped: list[tuple[int, str]] = []
        self.failed: list[Exception] = []
        self.recovered = 0
        self.outbox = Outbox(
            self._deliver, lambda *what: self.dropped.append(what), self.failed.append, self._delivered, **options
        )

    def _deliver(self, items: list[bytes]) -> None:
        self.attempts += 1
        self.open.wait(60)
        for item in items:
            if item in self.always:
                raise self.always[item]
        if self.answers:
            raise self.answers.pop(0)
        self.taken += items

    def _delivered(self) -> None:
        self.recovered += 1

    def drained(self) -> bool:
        return self.outbox.drain(time.monotonic() + 60)


@pytest.fixture
def end_point(monkeypatch: pytest.MonkeyPatch) -> Iterator[EndPoint]:
    monkeypatch.setattr(outbox, "_FIRST_WAIT", 0.01)
    monkeypatch.setattr(outbox, "_LONGEST_WAIT", 0.02)
    monkeypatch.setattr(outbox, "_PATIENCE", 60.0)
    made = EndPoint()
    yield made
    made.open.set()
    made.outbox.close()


@pytest.mark.parametrize(
    "error",
    [
        ConnectionRefusedError(),
        TimeoutError(),
        ConnectionResetError(),
        OSError("no route"),
        http.client.IncompleteRead(b""),
        http.client.RemoteDisconnected(""),
        BusyError(429, "", 0.0),
        BusyError(503, "", 0.001),
    ],
    ids=repr,
)
def test_whatever_may_pass_is_waited_for(end_point: EndPoint, error: Exception) -> None:
    end_point.answers += [error] * 30
    for n in range(20):
        end_point.outbox.send([b"%d" % n, b"%d." % n])
    assert end_point.drained()
    assert sorted(end_point.taken) == sorted(b"%d%s" % (n, dot) for n in range(20) for dot in (b"", b"."))
    assert end_point.dropped == []
    assert len(end_point.failed) == 30


def test_what_waits_goes_at_once_when_the_end_point_is_back(
    end_point: EndPoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "_PATIENCE", 0.0)
    end_point.answers += [ConnectionRefusedError()] * 3
    for n in range(50):
        end_point.outbox.send([b"%d" % n])
    # With a wait after each the other 49 would not be delivered in this test's time.
    monkeypatch.setattr(outbox, "_FIRST_WAIT", 3600.0)
    assert end_point.drained()
    assert end_point.attempts == 53
    assert end_point.taken == [b"%d" % n for n in range(50)], "in their order"


def test_nobody_waits_for_an_end_point_that_hangs(end_point: EndPoint) -> None:
    end_point.open.clear()
    first = threading.Thread(target=end_point.outbox.send, args=([b"first"],), daemon=True)
    first.start()
    while not end_point.attempts:
        time.sleep(0.001)
    # The patience is a minute, and so is what the end point would take for each.
    assert not any(end_point.outbox.send([b"%d" % n]) for n in range(1000))
    assert end_point.outbox.waiting() == 1001
    end_point.open.set()
    assert end_point.drained()
    assert len(set(end_point.taken)) == len(end_point.taken) == 1001


def test_memory_is_bounded_and_the_oldest_go_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BULKSCOPE_HELD_BYTES", "20000")
    monkeypatch.setattr(outbox, "_PATIENCE", 0.0)
    end_point = EndPoint()
    end_point.answers += [ConnectionRefusedError()]
    end_point.outbox.send([b"the first fails"])
    while not end_point.failed:
        time.sleep(0.001)
    chance = random.Random(1)
    for n in range(100):
        end_point.outbox.send([b"%d" % n, chance.randbytes(990)])  # which cannot be compressed
        assert end_point.outbox._bytes <= 20_000
    lost = sum(records for records, _ in end_point.dropped)
    assert {why for _, why in end_point.dropped} == {"buffer_full"}
    assert lost + end_point.outbox.waiting() == 201
    assert 24 < end_point.outbox.waiting() < 32  # two of some 1,000 bytes, and what a batch takes itself
    monkeypatch.setattr(outbox, "_LAST_WAIT", 0.0)
    assert end_point.drained()
    kept = [item for item in end_point.taken if len(item) < 4]
    assert kept == [b"%d" % n for n in range(100 - len(kept), 100)]
    end_point.outbox.close()


def test_batches_of_one_record_take_no_more_than_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BULKSCOPE_HELD_BYTES", "400000")
    monkeypatch.setattr(outbox, "_PATIENCE", 0.0)
    end_point = EndPoint()
    end_point.open.clear()
    end_point.outbox.send([b"first"])
    while not end_point.attempts:
        time.sleep(0.001)
    tracemalloc.start()
    try:
        for n in range(5000):
            end_point.outbox.send([b"%d" % n])
        end_point.dropped.clear()
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert 1000 < end_point.outbox.waiting() < 5000
    assert held < 1.1 * 400_000
    end_point.open.set()
    end_point.outbox.close()


def in_time(function: Callable[[], Any]) -> Any:
    """Return what ``function`` does; fails where it waits for ever."""
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(function()), daemon=True)
    thread.start()
    thread.join(30)
    assert found, "it waits"
    return found[0]


def test_what_waits_is_told_to_a_signals_handler_that_struck_whoever_holds_the_lock(end_point: EndPoint) -> None:
    end_point.outbox._held.append(outbox._Parcel([b"a"], 1, outbox._Handed()))

    def struck() -> int:
        with end_point.outbox._changed:
            return end_point.outbox.waiting()

    assert in_time(struck) == 1


def test_what_is_lost_is_counted_without_the_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BULKSCOPE_HELD_BYTES", "0")
    monkeypatch.setattr(outbox, "_PATIENCE", 0.0)
    end_point = EndPoint()
    end_point.open.clear()
    free: list[bool] = []

    def dropped(records: int, reason: str) -> None:
        free.append(end_point.outbox._changed.acquire(timeout=0.5))
        if free[-1]:
            end_point.outbox._changed.release()

    end_point.outbox._dropped = dropped
    for n in range(4):
        end_point.outbox.send([b"%d" % n])
    end_point.open.set()
    end_point.outbox.close()
    end_point.outbox.send([b"closed"])
    assert len(free) >= 3
    assert all(free)


@pytest.mark.parametrize("name", ["_failed", "_delivered"])
def test_a_fault_in_what_is_told_does_not_end_the_thread(
    end_point: EndPoint, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(outbox, "_PATIENCE", 0.0)
    told = threading.Event()

    def fault(*about: Any) -> None:
        told.set()
        raise KeyError("ours")

    original = getattr(end_point.outbox, name)
    setattr(end_point.outbox, name, fault)
    end_point.answers += [ConnectionRefusedError()]
    end_point.outbox.send([b"a"])
    thread = end_point.outbox._thread
    assert told.wait(30)
    setattr(end_point.outbox, name, original)
    end_point.outbox.send([b"b"])
    assert end_point.drained()
    assert end_point.taken == [b"a", b"b"]
    assert end_point.outbox._thread is thread


def test_a_batch_that_is_put_off_is_counted_once(end_point: EndPoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "_FIRST_WAIT", 3600.0)
    monkeypatch.setattr(outbox, "_PATIENCE", 0.0)
    waiting: list[int] = []
    told = threading.Event()

    def failed(error: Exception) -> None:
        waiting.append(end_point.outbox.waiting())
        told.set()

    end_point.outbox._failed = failed
    end_point.answers += [ConnectionRefusedError()]
    end_point.outbox.send([b"a"])
    assert told.wait(30)
    assert waiting == [1]


def test_what_waits_is_compressed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "_PATIENCE", 0.0)
    end_point = EndPoint()
    end_point.open.clear()
    for n in range(20):
        end_point.outbox.send([b"%d" % n + b"like its neighbour " * 50] * 500)
    assert end_point.outbox._bytes < 20 * 500 * 1000 / 20
    end_point.open.set()
    assert end_point.drained()
    assert len(end_point.taken) == 10_000
    end_point.outbox.close()


def test_a_batch_that_is_put_off_for_ever_does_not_hold_up_the_others(
    end_point: EndPoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "_PATIENCE", 0.0)
    end_point.always[b"poison"] = BusyError(503, "this one", 0.0)
    for _ in range(2):
        end_point.outbox.send([b"poison"])
    sent = 0
    while len(end_point.dropped) < 2:
        end_point.outbox.send([b"%d" % sent])
        sent += 1
        time.sleep(0.001)
    assert end_point.drained()
    assert end_point.taken == [b"%d" % n for n in range(sent)]
    assert end_point.dropped == [(1, "export_failed")] * 2


def test_a_refusal_is_final_and_the_next_are_sent(end_point: EndPoint) -> None:
    end_point.answers += [RefusedError(400, "no")]
    assert end_point.outbox.send([b"a", b"b"]) is False
    assert end_point.outbox.send([b"c"]) is True
    assert end_point.taken == [b"c"]
    assert end_point.dropped == [(2, "export_failed")]


def test_a_fault_of_ours_loses_one_batch_and_not_the_thread(end_point: EndPoint) -> None:
    end_point.answers += [KeyError("ours")]
    assert end_point.outbox.send([b"a"]) is False
    assert end_point.outbox.send([b"b"]) is True
    assert end_point.dropped == [(1, "export_failed")]


def test_of_sums_that_go_on_the_newest_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "_PATIENCE", 0.0)
    end_point = EndPoint(newest_only=True)
    end_point.answers += [ConnectionRefusedError()]
    for n in range(10):
        end_point.outbox.send([b"%d" % n], 7)
        while not end_point.failed:
            time.sleep(0.001)
    assert end_point.outbox.waiting() == 7
    assert end_point.drained()
    assert end_point.taken == [b"9"]
    assert end_point.dropped == []
    end_point.outbox.close()


def test_draining_ends_with_its_deadline_and_goes_on_afterwards(end_point: EndPoint) -> None:
    end_point.open.clear()
    threading.Thread(target=end_point.outbox.send, args=([b"a"],), daemon=True).start()
    while not end_point.attempts:
        time.sleep(0.001)
    assert end_point.outbox.drain(time.monotonic() + 0.05) is False
    end_point.open.set()
    assert end_point.drained()
    assert end_point.taken == [b"a"]


def test_the_end_of_the_process_does_not_sit_out_the_wait(end_point: EndPoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "_FIRST_WAIT", 3600.0)
    monkeypatch.setattr(outbox, "_LONGEST_WAIT", 3600.0)
    monkeypatch.setattr(outbox, "_PATIENCE", 0.0)
    end_point.answers += [ConnectionRefusedError()] * 2
    end_point.outbox.send([b"a"])
    while not end_point.failed:
        time.sleep(0.001)
    assert end_point.drained()
    assert end_point.taken == [b"a"]


def test_where_no_thread_can_be_started_whoever_hands_over_sends(
    end_point: EndPoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr(threading.Thread, "start", start)
    assert end_point.outbox.send([b"a"]) is True
    end_point.answers += [ConnectionRefusedError()] * 2
    assert end_point.outbox.send([b"b"]) is False
    assert end_point.drained()
    assert end_point.taken == [b"a", b"b"]


def test_a_child_begins_with_nothing(end_point: EndPoint) -> None:
    end_point.open.clear()
    threading.Thread(target=end_point.outbox.send, args=([b"the parent's"],), daemon=True).start()
    while not end_point.attempts:
        time.sleep(0.001)
    child = EndPoint()
    child.outbox = end_point.outbox
    end_point.outbox._changed.acquire()  # by a thread that a child does not have
    end_point.outbox.renew()
    assert end_point.outbox.waiting() == 0
    assert end_point.outbox.drain(time.monotonic() + 60) is True


def test_what_is_given_up_is_counted(end_point: EndPoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "_FIRST_WAIT", 3600.0)
    monkeypatch.setattr(outbox, "_PATIENCE", 0.0)
    end_point.answers += [ConnectionRefusedError()]
    end_point.outbox.send([b"a", b"b"])
    while not end_point.failed:
        time.sleep(0.001)
    end_point.outbox.send([b"c"])
    assert end_point.outbox.close() == 3
    assert end_point.outbox.send([b"d"]) is False
    assert sum(records for records, _ in end_point.dropped) == 4


@pytest.mark.parametrize(
    ("text", "found"), [("", 8 << 20), ("1000", 1000), ("0", 0), ("1e3", 8 << 20), ("-1", 8 << 20), ("9" * 99, 8 << 20)]
)
def test_the_bound_that_is_set(
    text: str, found: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("BULKSCOPE_HELD_BYTES", text)
    assert outbox.held_bytes() == found
    assert ("BULKSCOPE_HELD_BYTES" in caplog.text) is (text not in ("", "1000", "0"))
