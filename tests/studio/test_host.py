"""The host sampler on a folder that stands for ``/proc``, and on this machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from bulkscope_studio.ingest.host_sampler import HostSampler, to_points

MEMINFO = (
    "MemTotal: 1000 kB\nMemFree: 400 kB\nMemAvailable: 700 kB\nBuffers: 100 kB\nCached: 150 kB\nSReclaimable: 50 kB\n"
)


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    (tmp_path / "pressure").mkdir()
    write(tmp_path, "stat", "cpu  100 0 100 800 0 0 0 0 0 0\ncpu0 1 1 1 1\n")
    write(tmp_path, "meminfo", MEMINFO)
    write(tmp_path, "loadavg", "1.50 1.00 0.50 1/100 1234\n")
    write(tmp_path, "pressure/cpu", "some avg10=0.00 avg60=0.00 avg300=0.00 total=1000000\n")
    return tmp_path


def write(proc: Path, name: str, text: str) -> None:
    (proc / name).write_text(text)


def by_series(samples: list[tuple[str, str, dict[str, str], float]]) -> dict[tuple[str, ...], float]:
    return {(name, *attributes.values()): value for name, _, attributes, value in samples}


def test_shares_are_of_the_time_between_two_readings(proc: Path) -> None:
    sampler = HostSampler(proc)
    first = by_series(sampler.sample(10.0))
    assert not any(name[0] in ("system.cpu.utilization", "bulk.system.pressure") for name in first)
    write(proc, "stat", "cpu  160 0 120 820 0 0 0 0 0 0\n")
    write(proc, "pressure/cpu", "some avg10=0.00 avg60=0.00 avg300=0.00 total=1500000\n")
    second = by_series(sampler.sample(12.0))
    shares = {name[1]: value for name, value in second.items() if name[0] == "system.cpu.utilization"}
    assert shares == pytest.approx(
        {"user": 0.6, "system": 0.2, "idle": 0.2, "nice": 0, "wait": 0, "interrupt": 0, "softirq": 0, "steal": 0}
    )
    assert second["bulk.system.pressure", "cpu", "some"] == pytest.approx(0.25)


def test_memory_is_divided_as_the_hostmetrics_receiver_does(proc: Path) -> None:
    found = by_series(HostSampler(proc).sample(0.0))
    usage = {name[1]: value for name, value in found.items() if name[0] == "system.memory.usage"}
    assert usage == {"free": 400 * 1024, "buffered": 100 * 1024, "cached": 200 * 1024, "used": 300 * 1024}
    assert found["system.memory.utilization", "used"] == pytest.approx(0.3)
    assert found["system.cpu.load_average.1m",] == 1.5


def test_what_the_kernel_does_not_have_gives_no_sample(tmp_path: Path) -> None:
    sampler = HostSampler(tmp_path)
    assert sampler.sample(0.0) == []
    assert sampler.sample(1.0) == []


def test_a_clock_that_goes_back_gives_no_negative_share(proc: Path) -> None:
    sampler = HostSampler(proc)
    sampler.sample(10.0)
    write(proc, "stat", "cpu  50 0 200 850 0 0 0 0 0 0\n")
    write(proc, "pressure/cpu", "some avg10=0.00 avg60=0.00 avg300=0.00 total=5\n")
    found = by_series(sampler.sample(11.0))
    assert all(0 <= value <= 1 for name, value in found.items() if "utilization" in name[0] or "pressure" in name[0])


def test_samples_become_gauges_of_the_host(proc: Path) -> None:
    table = to_points(HostSampler(proc).sample(0.0), 123, "box").to_pylist()
    assert {(row["time_ns"], row["type"], row["host_name"], row["service_name"]) for row in table} == {
        (123, "gauge", "box", None)
    }
    assert '{"state":"used"}' in {row["attributes"] for row in table}


def test_this_machine() -> None:
    sampler = HostSampler()
    sampler.sample(0.0)
    total = 0.0
    while not total:  # until the kernel has counted a tick
        total = sum(v for name, v in by_series(sampler.sample(1.0)).items() if name[0] == "system.cpu.utilization")
    assert total == pytest.approx(1.0)


def test_kills_for_memory_are_the_kernels_count(proc: Path) -> None:
    assert ("bulk.system.oom_kills",) not in by_series(HostSampler(proc).sample(0.0))
    write(proc, "vmstat", "nr_free_pages 5\noom_kill 2\n")
    assert by_series(HostSampler(proc).sample(0.0))["bulk.system.oom_kills",] == 2


def test_major_faults_are_a_counter(proc: Path) -> None:
    write(proc, "vmstat", "pgfault 900\npgmajfault 7\n")
    samples = HostSampler(proc).sample(0.0)
    assert by_series(samples)["system.paging.faults", "major"] == 7
    rows = {row["name"]: row for row in to_points(samples, 10**18, "h").to_pylist()}
    row = rows["system.paging.faults"]
    assert (row["type"], row["temporality"], row["monotonic"], row["value"]) == ("sum", "cumulative", True, 7)
