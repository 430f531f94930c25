"""Series of ``/api/v1``: what machines and queues did, in bins of one axis, held against sums over the rows."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bulkscope_studio.services import bulks, live, machine, overtime, reports
from bulkscope_studio.services.axis import MOST_BINS
from bulkscope_studio.services.errors import InvalidQuery, NotFound
from bulkscope_studio.storage import summaries
from bulkscope_studio.storage.store import Store
from tests.rows import BEGIN_NS, SECOND, add, span
from tests.studio.sample import HOST, fill

FULL = {"cpu_share", "cpu_pressure_share", "memory_used_bytes", "memory_limit_bytes", "workers_cpu_share"}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    made = Store(tmp_path_factory.mktemp("series") / "s.duckdb")
    fill(made.connection(), bulks=2, jobs=60, workers=5)
    summaries.ensure(made.connection())
    yield made
    made.close()


def sampled(store: Store, name: str, at: list[int], mode: str) -> list[float | None]:
    """Return the mean of a host's samples between moments; None where there are none."""
    rows = store.query(
        "SELECT time_ns, sum(value) AS value FROM points WHERE name = $name AND regexp_matches(attributes, $mode)"
        " GROUP BY time_ns ORDER BY time_ns",
        {"name": name, "mode": mode},
    ).to_pylist()
    bins = [[row["value"] for row in rows if first <= row["time_ns"] < last] for first, last in pairwise(at)]
    return [float(np.mean(values)) if values else None for values in bins]


def test_machine_is_on_the_axis_of_overtime_and_is_what_was_sampled(store: Store) -> None:
    for name in ("sample-001", "sample-002"):
        over = overtime.overtime(store, name, 10)
        found = machine.machine(store, name, 10)
        axis = {key: over[key] for key in ("bulk", "from_ns", "to_ns", "bins", "bin_s")}
        assert {key: found[key] for key in axis} == axis
        (host,) = found["hosts"]
        assert (host["host"], host["workers"], found["more_hosts"]) == (HOST, 5, 0)
        assert host["attempts"] == sum(lane["jobs"] for lane in over["lanes"])
        length = (found["to_ns"] - found["from_ns"]) // 10
        at = [found["from_ns"] + n * length for n in range(11)]
        for column, metric, mode in (
            ("cpu_share", "system.cpu.utilization", "user|system"),
            ("cpu_pressure_share", "bulk.system.pressure", "cpu"),
        ):
            expected = sampled(store, metric, at, mode)
            assert host[column] == pytest.approx(expected, abs=1e-4), column
        used = sampled(store, "system.memory.usage", at, "used")
        assert all(value >= mean for value, mean in zip(host["memory_used_bytes"], used, strict=True))
        assert set(host["memory_limit_bytes"]) == {8192 * 2**20}
        assert all(0 < share <= 0.96 for share in host["workers_cpu_share"])


def test_tokens_of_all_bins_are_those_of_the_report_also_where_one_is_looked_at_closely(store: Store) -> None:
    report = reports.bulk_report(store, "sample-001")["total"]["inferences"]
    whole = machine.machine(store, "sample-001", 60)
    middle = (whole["from_ns"] + whole["to_ns"]) // 2
    halves = [
        machine.machine(store, "sample-001", 30, *bounds)
        for bounds in ((whole["from_ns"], middle), (middle, whole["to_ns"]))
    ]
    for kind in ("input", "output"):
        rates = whole["tokens"][f"{kind}_per_s"]
        assert sum(rates) * whole["bin_s"] == pytest.approx(report[f"{kind}_tokens"], rel=1e-3)
        assert [rate for half in halves for rate in half["tokens"][f"{kind}_per_s"]] == pytest.approx(rates, abs=0.05)


def test_tokens_are_spread_over_prefill_and_decode(tmp_path: Path) -> None:
    store = Store(tmp_path / "s.duckdb")
    begin = BEGIN_NS
    own = {"bulk_id": "mine", "job_id": "j", "trace_id": "t", "host_name": "h", "pid": 1}
    add(store.connection(), "spans", [
        span("CONSUMER", begin, begin + 10 * SECOND, span_id="a", wait=0.0, **own),
        span("INTERNAL", begin + 2 * SECOND, begin + 10 * SECOND, span_id="b", model="m", prefill=2.0, ttft=2.1,
             input_tokens=100, output_tokens=60, **own),
    ])  # fmt: skip
    found = machine.machine(store, "mine", 10)
    assert found["tokens"]["input_per_s"] == [0, 0, 50, 50, 0, 0, 0, 0, 0, 0]
    assert found["tokens"]["output_per_s"] == [0, 0, 0, 0, 10, 10, 10, 10, 10, 10]
    # No host was sampled, which is not 0; nor did a worker tell of its CPU.
    (host,) = found["hosts"]
    assert all(set(host[name]) == {None} for name in FULL)
    store.connection().execute("UPDATE spans SET input_tokens = NULL")
    assert machine.machine(store, "mine", 10)["tokens"]["input_per_s"] is None
    store.close()


def test_a_sample_stands_for_the_time_before_it_and_a_gap_is_one(tmp_path: Path) -> None:
    store = Store(tmp_path / "s.duckdb")
    own = {"bulk_id": "mine", "job_id": "j", "trace_id": "t", "host_name": "h", "pid": 1}
    add(store.connection(), "spans", [span("CONSUMER", BEGIN_NS, BEGIN_NS + 60 * SECOND, span_id="a", **own)])
    seconds = [5, 10, 15, 20, 45, 50, 55, 60]
    add(store.connection(), "points", [
        {"time_ns": BEGIN_NS + at * SECOND - 1, "name": "bulk.system.pressure", "type": "gauge", "value": at / 100,
         "host_name": "h", "attributes": '{"level":"some","resource":"cpu"}'}
        for at in seconds
    ])  # fmt: skip
    (host,) = machine.machine(store, "mine", 60)["hosts"]
    shares = host["cpu_pressure_share"]
    assert shares[:20] == [at / 100 for at in (5, 10, 15, 20) for _ in range(5)]
    assert shares[20:44] == [None] * 24
    assert shares[44:] == [0.45] + [at / 100 for at in (50, 55, 60) for _ in range(5)]
    store.close()


def test_machine_is_of_one_size_and_refuses_what_makes_no_sense(store: Store, tmp_path: Path) -> None:
    large = Store(tmp_path / "s.duckdb")
    fill(large.connection(), bulks=1, jobs=800, workers=20, faults=False)
    large.connection().execute("UPDATE spans SET host_name = 'node-' || pid WHERE kind = 'CONSUMER'")
    of_many = machine.machine(large, "sample-001", 200)
    assert (len(of_many["hosts"]), of_many["more_hosts"]) == (machine.MOST_HOSTS, 4)
    large.close()
    small = machine.machine(store, "sample-001", 200)
    assert all(len(small["hosts"][0][name]) == len(of_many["hosts"][0][name]) == 200 for name in FULL)
    assert len(json.dumps(of_many)) < 1.2 * machine.MOST_HOSTS * len(json.dumps(small))
    for bins, bounds in ((0, ()), (MOST_BINS + 1, ()), (5, (BEGIN_NS, BEGIN_NS))):
        with pytest.raises(InvalidQuery):
            machine.machine(store, "sample-001", bins, *bounds)
    with pytest.raises(NotFound):
        machine.machine(store, "sample-009")


@pytest.mark.parametrize("what", ["sent", "refused"])
def test_the_window_of_a_bulk_is_that_of_its_tables(store: Store, tmp_path: Path, what: str) -> None:
    other = Store(tmp_path / "s.duckdb")
    sent: dict[str, Any] = {} if what == "sent" else {"status": "ERROR"}
    add(other.connection(), "spans", [
        span("PRODUCER", BEGIN_NS, BEGIN_NS + 1, bulk_id="sent", job_id="j", trace_id="t", span_id="a") | sent,
        span("SERVER", BEGIN_NS + 5, BEGIN_NS + 9, bulk_id="sent", http_method="GET", trace_id="u", span_id="b"),
        span("SERVER", BEGIN_NS - 5, BEGIN_NS + 3, bulk_id="sent", http_method="POST", trace_id="v", span_id="c"),
    ])  # fmt: skip
    for each, names in ((store, ("sample-001", "sample-002", "sample-refused")), (other, ("sent",))):
        for name in names:
            known = summaries.extent(each, name)
            assert known is not None
            assert bulks.window(each, name, known) == bulks.own(each, name).window
    other.close()


def test_live_counts_what_began_and_ended_and_what_ran(store: Store) -> None:
    rows = store.query(
        "SELECT start_ns, end_ns, wait, status FROM spans WHERE kind = 'CONSUMER' ORDER BY start_ns"
    ).to_pylist()
    begin, end = rows[0]["start_ns"] - SECOND, max(row["end_ns"] for row in rows)
    found = live.live(store, begin, end + 1, 12, now_ns=end + 60 * SECOND)
    jobs, length = found["jobs"], found["bin_s"]
    edges = [begin + n * length * 1e9 for n in range(13)]

    def counted(name: str, state: str | None = None) -> list[int]:
        wanted = [row[name] for row in rows if state is None or (row["status"] == "ERROR") == (state == "failed")]
        return [sum(first <= at < last for at in wanted) for first, last in pairwise(edges)]

    assert [round(value * length) for value in jobs["begun_per_s"]] == counted("start_ns")
    ended = zip(jobs["done_per_s"], jobs["failed_per_s"], jobs["retried_per_s"], strict=True)
    assert [round(sum(values) * length) for values in ended] == counted("end_ns")
    running = [sum(row["start_ns"] < at <= row["end_ns"] for row in rows) for at in edges[1:-1]]
    assert jobs["running"][:-1] == running
    assert jobs["running"][-1] == 0
    for n, (first, last) in enumerate(pairwise(edges)):
        for name, values in (
            ("wait", [row["wait"] for row in rows if first <= row["end_ns"] < last]),
            ("work", [(row["end_ns"] - row["start_ns"]) / 1e9 for row in rows if first <= row["end_ns"] < last]),
        ):
            told = [jobs[f"{name}_{quantile}_s"][n] for quantile in ("p50", "p95")]
            assert told == (pytest.approx(np.quantile(values, [0.5, 0.95]), abs=1e-4) if values else [None, None])
    report = [reports.bulk_report(store, name)["total"]["inferences"] for name in ("sample-001", "sample-002")]
    tokens = sum(found["tokens"]["output_per_s"]) * length
    assert tokens == pytest.approx(sum(each["output_tokens"] for each in report), rel=1e-3)
    assert [row["id"] for row in found["bulks"]] == ["sample-002", "sample-refused", "sample-001"]
    assert found["now"]["done_per_s"] == jobs["done_per_s"][-1]
    only = live.live(store, begin, end + 1, 12, host=HOST, service="bulk-worker", now_ns=end + 60 * SECOND)
    assert only["jobs"]["begun_per_s"] == jobs["begun_per_s"]
    for nobody in ({"host": "nowhere"}, {"service": "none"}):
        other = live.live(store, begin, end + 1, 12, **nobody, now_ns=end + 60 * SECOND)
        assert set(other["jobs"]["begun_per_s"]) == {0}
        assert (other["tokens"]["output_per_s"], other["bulks"]) == (None, [])


def test_live_polling_is_apart_and_the_queue_is_that_of_its_reporters(tmp_path: Path) -> None:
    """Of two processes that report one queue the mean counts, of two queues the sum; one of them stops to report."""
    store, begin = Store(tmp_path / "s.duckdb"), BEGIN_NS
    add(store.connection(), "spans", [
        span("SERVER", begin + n * SECOND, begin + n * SECOND + length * 10**8, trace_id="t", span_id=str(n),
             http_method=method, outcome=outcome, bulk_size=size)
        for n, (method, outcome, size, length) in enumerate([
            ("POST", "ok", 5, 1), ("GET", "ok", None, 9), ("GET", "internal_error", None, 3), ("GET", "ok", 1, 2),
        ])
    ])  # fmt: skip
    add(store.connection(), "points", [
        {"time_ns": begin + at * SECOND, "name": "bulk.queue.depth", "type": "gauge", "value": value,
         "attributes": f'{{"messaging.destination.name":"{queue}"}}', "pid": pid}
        for at in range(0, 100, 10)
        for queue, pid, value in (("a", 1, 10.0), ("a", 2, 20.0), ("b", 1, 5.0))
        if queue == "a" or at < 40
    ])  # fmt: skip
    found = live.live(store, begin, begin + 100 * SECOND, 10, now_ns=begin + 200 * SECOND)
    requests = found["requests"]
    assert [requests[name][0] for name in ("requests_per_s", "reads_per_s", "internal_error_per_s")] == [0.3, 0.1, 0.1]
    assert (requests["latency_p50_s"][0], requests["latency_p95_s"][0]) == pytest.approx((0.2, 0.29))
    assert found["jobs"]["waiting"] == [20.0] * 4 + [15.0] * 6
    assert found["now"]["waiting"] == 15.0
    # Nothing was heard after 100 s: it is not known to be 0.
    later = live.live(store, begin, begin + 200 * SECOND, 2, now_ns=begin + 300 * SECOND)
    assert later["jobs"]["done_per_s"] == [0.0, None]
    assert later["now"]["waiting"] is None
    store.close()


def test_live_counts_a_job_that_runs_and_none_that_fell_silent(tmp_path: Path) -> None:
    store, now = Store(tmp_path / "s.duckdb"), BEGIN_NS + 100 * SECOND
    add(store.connection(), "logs", [
        {"time_ns": at, "event_name": "bulk.job.heartbeat", "bulk_id": "b", "job_id": job, "span_id": job,
         "trace_id": "t", "host_name": "h", "pid": 1}
        for job, until in (("runs", 100), ("silent", 40)) for at in range(BEGIN_NS, BEGIN_NS + until * SECOND, SECOND)
    ])  # fmt: skip
    found = live.live(store, BEGIN_NS, now, 10, now_ns=now)
    assert found["jobs"]["running"] == [2.0] * 3 + [1.0] * 7
    store.close()


def test_live_without_anything_is_all_absent_and_ends_with_a_whole_bin(tmp_path: Path) -> None:
    store = Store(tmp_path / "s.duckdb")
    found = live.live(store, now_ns=BEGIN_NS + 7)
    assert (found["to_ns"] - found["from_ns"], found["bins"], found["bin_s"]) == (900 * SECOND, 150, 6.0)
    assert found["to_ns"] <= BEGIN_NS + 7 < found["to_ns"] + 6 * SECOND
    assert {value for values in found["jobs"].values() for value in values} == {None}
    assert (found["hosts"], found["bulks"], found["heard"]) == ([], [], {"first_ns": None, "last_ns": None})
    assert live.live(store, now_ns=BEGIN_NS + SECOND)["from_ns"] == found["from_ns"]
    with pytest.raises(InvalidQuery):
        live.live(store, bins=0)
    store.close()
