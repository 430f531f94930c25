"""Whether a host is full now: by the thresholds of ``explain``, of what was sampled in the last minute."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bulkscope_studio.analysis.thresholds import CPU_BUSY, MEMORY_NEAR
from bulkscope_studio.services.errors import InvalidQuery
from bulkscope_studio.services.live import live
from bulkscope_studio.services.saturation import saturation
from bulkscope_studio.storage.store import Store
from tests.rows import BEGIN_NS, SECOND, add


def host(name: str, cpu: list[float | None], used: float | None = 1.0, pressure: float | None = None) -> dict[str, Any]:
    bins = len(cpu)
    return {
        "host": name, "cpu_share": cpu, "cpu_pressure_share": [pressure] * bins, "memory_used_bytes": [used] * bins,
        "memory_limit_bytes": [10.0] * bins,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("cpu", "used", "state", "of"),
    [
        (CPU_BUSY.value, 1.0, "full", ["cores"]),
        (CPU_BUSY.value - 0.01, 1.0, "room", []),
        (0.1, 10 * MEMORY_NEAR.value, "full", ["memory"]),
        (1.0, 9.9, "full", ["cores", "memory"]),
        (None, 1.0, "room", []),
        (0.5, None, "room", []),
        (None, None, "unknown", None),
    ],
)
def test_full_is_what_explain_calls_full(cpu: float | None, used: float | None, state: str, of: list[str]) -> None:
    found = saturation([host("idle", [None], None), host("one", [cpu], used)], 0, 5.0)
    assert found["state"] == state
    assert [each["full_of"] for each in found["hosts"]] == ([] if of is None else [of])


def test_the_fullest_host_is_first_and_pressure_alone_fills_none() -> None:
    hosts = [host("a", [0.3], pressure=0.9), host("b", [0.97]), host("c", [0.5], 9.5), host("d", [0.99], 9.5)]
    found = saturation(hosts, 0, 5.0)
    assert [each["host"] for each in found["hosts"]] == ["d", "b", "c", "a"]
    assert (found["state"], found["full_hosts"]) == ("full", 3)


def test_what_was_sampled_over_a_minute_ago_is_not_now() -> None:
    cpu: list[float | None] = [1.0] + [None] * 12
    assert saturation([host("one", cpu, None)], 11, 5.0)["state"] == "full"
    assert saturation([host("one", cpu, None)], 12, 5.0)["state"] == "unknown"
    assert saturation([host("one", [0.1, 1.0], None)], 0, 5.0)["state"] == "room"
    assert saturation([host("one", cpu, None)], -1, 5.0)["state"] == "unknown"


def test_live_says_it_of_the_last_whole_bin_of_as_many_seconds_as_are_asked_for(tmp_path: Path) -> None:
    store = Store(tmp_path / "s.duckdb")
    add(store.connection(), "points", [
        {"time_ns": BEGIN_NS + at * SECOND, "name": "system.cpu.utilization", "type": "gauge", "value": 0.2 + at / 1000,
         "host_name": "h", "attributes": '{"cpu.mode":"user"}'}
        for at in range(5, 605, 5)
    ])  # fmt: skip
    now = BEGIN_NS + 600 * SECOND
    found = live(store, bins=60, last_s=300.0, now_ns=now)
    assert (found["to_ns"] - found["from_ns"]) / SECOND == pytest.approx(300)
    (only,) = found["saturation"]["hosts"]
    assert (found["saturation"]["state"], only["host"], only["memory_share"]) == ("room", "h", None)
    assert only["cpu_share"] == pytest.approx(0.79, abs=0.01)
    for wrong in (0.0, -1.0, float("nan"), float("inf"), 1e30):
        with pytest.raises(InvalidQuery):
            live(store, last_s=wrong, now_ns=now)
    store.close()
