"""A disk that is full, of each service that keeps telemetry: what is lost then, and what it takes to go on."""

from __future__ import annotations

import os
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.containers import engine
from tests.containers.bulks import eventually
from tests.containers.load import Load, under_load
from tests.containers.stack import Stack

pytestmark = pytest.mark.timeout(1800)
MIB = 2**20


@contextmanager
def full(disk: Path, free: int = 0) -> Iterator[None]:
    """Leave only ``free`` bytes of a file system while the block lasts."""
    filler = disk / "filler"
    with filler.open("wb") as file:
        state = os.statvfs(disk)
        os.posix_fallocate(file.fileno(), 0, max(1, state.f_bavail * state.f_frsize - free))
    try:
        yield
    finally:
        filler.unlink()


@pytest.fixture(scope="module")
def load(stack: Stack) -> Iterator[Load]:
    with under_load(stack, "full") as running:
        yield running


def more(load: Load, what: set[int]) -> None:
    """Wait until the Collector has acknowledged some more."""
    wanted = len(what) + 10
    eventually(lambda: len(what) > wanted)


def blocked(stack: Stack) -> bool:
    settings = stack.elasticsearch("GET", "/traces-*/_settings/index.blocks.*?expand_wildcards=all")
    return any("read_only_allow_delete" in str(one) for one in settings.values())


def test_elasticsearch_without_room_takes_nothing_and_has_all_of_it_when_there_is_room(
    stack: Stack, load: Load
) -> None:
    more(load, load.spans)
    with full(stack.disk("elasticsearch"), 600 * MIB):
        eventually(lambda: blocked(stack))
        more(load, load.spans)
        assert load.missing_spans()
    eventually(lambda: not blocked(stack))
    spans = set(load.spans)
    eventually(lambda: not load.missing_spans() & spans)


def failed_writes(stack: Stack) -> float:
    """Return what Prometheus itself counts of writes to its log that failed."""
    with urllib.request.urlopen(f"http://127.0.0.1:{stack.port('PROMETHEUS_PORT')}/metrics", timeout=60) as answer:
        lines = answer.read().decode().splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith("prometheus_tsdb_wal_writes_failed_total ")))


def test_prometheus_without_room_loses_what_it_is_given_says_so_and_goes_on_after_a_restart(
    stack: Stack, load: Load
) -> None:
    more(load, load.points)
    with full(stack.disk("prometheus")):
        eventually(lambda: failed_writes(stack) > 0)
        more(load, load.points)
    engine.docker("restart", stack.containers()["prometheus"]["Id"])
    begun = set(load.points)
    more(load, load.points)
    later = set(load.points) - begun
    eventually(lambda: not load.missing_points() & later)
    # The spans of the time have another home, and another queue.
    spans = set(load.spans)
    eventually(lambda: not load.missing_spans() & spans)
