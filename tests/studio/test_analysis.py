"""The numbers of a report against values worked out by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkscope_studio.analysis import analyse, to_json
from bulkscope_studio.analysis.statistics import queueing, stats

S = 1_000_000_000
JOB = {
    "job_id": pa.string(), "attempt": pa.int32(), "enqueue_ns": pa.int64(), "start_ns": pa.int64(),
    "end_ns": pa.int64(), "seen_ns": pa.int64(), "wait": pa.float64(), "delay": pa.float64(),
    "import_time": pa.float64(), "retried": pa.bool_(), "ok": pa.bool_(), "failure_domain": pa.string(),
    "error_type": pa.string(), "worker": pa.string(), "span_id": pa.string(), "decides": pa.bool_(),
    "called_off": pa.string(), "repeated": pa.int64(),
}  # fmt: skip
FLOATS = (
    "seconds", "ttft", "prefill", "decode", "input_tokens", "output_tokens", "cached_tokens", "cpu_time",
    "cpu_utilization", "cpu_pressure", "cpu_throttled", "memory_start", "memory_peak", "memory_growth",
    "memory_file", "memory_anon", "memory_limit",
)  # fmt: skip
INFERENCE = {"start_ns": pa.int64()} | (
    {name: pa.string() for name in ("job_id", "model", "worker")}
    | {name: pa.float64() for name in FLOATS}
    | {name: pa.bool_() for name in ("ok", "cpu_exact", "memory_exact")}
)
REQUEST = {
    "start_ns": pa.int64(), "end_ns": pa.int64(), "seconds": pa.float64(), "outcome": pa.string(),
    "enqueue_duration": pa.float64(), "bulk_size": pa.int64(),
}  # fmt: skip
LOST = {
    "span_id": pa.string(), "job_id": pa.string(), "attempt": pa.int64(), "worker": pa.string(), "model": pa.string(),
    "elapsed": pa.float64(), "memory": pa.int64(), "memory_limit": pa.int64(), "domain": pa.string(),
    "likely": pa.bool_(), "model_likely": pa.bool_(),
    "without_end": pa.bool_(),
}  # fmt: skip
SENDS = {
    "not_sent": pa.int64(), "refused": pa.int64(), "reasons": pa.list_(pa.string()), "start_ns": pa.int64(),
    "end_ns": pa.int64(),
}  # fmt: skip
RELATED = {"relation": pa.string(), "bulk": pa.string()}
HOST = {"host_name": pa.string(), "name": pa.string(), "mean": pa.float64(), "max": pa.float64()}


def table(types: dict[str, pa.DataType], rows: list[dict[str, Any]]) -> pa.Table:
    return pa.table({name: pa.array([row.get(name) for row in rows], kind) for name, kind in types.items()})


def job(name: str, put: float, start: float, end: float | None, **more: Any) -> dict[str, Any]:
    row = {
        "job_id": name,
        "attempt": 1,
        "enqueue_ns": int(put * S),
        "start_ns": int(start * S),
        "worker": "w0",
        "repeated": 0,
    }
    if end is not None:
        row |= {"end_ns": int(end * S), "wait": start - put, "ok": True, "retried": False}
    return row | more


def report(
    jobs: list[dict[str, Any]],
    inferences: list[dict[str, Any]] | None = None,
    requests: list[dict[str, Any]] | None = None,
    lost: list[dict[str, Any]] | None = None,
) -> dict[str, Any]:
    # The last row of a job decides, in the order in which a test names them.
    last = {row["job_id"]: number for number, row in enumerate(jobs)}
    jobs = [row | {"decides": last[row["job_id"]] == number} for number, row in enumerate(jobs)]
    tables = (
        table(JOB, jobs),
        table(INFERENCE, inferences or []),
        table(REQUEST, requests or []),
        table(HOST, []),
        table(LOST, lost or []),
        table(SENDS, [{"not_sent": 0, "refused": 0}]),
        table(RELATED, []),
    )
    return to_json(analyse("b", *tables))


@pytest.mark.parametrize(("count", "workers"), [(8, 2), (12, 3), (4, 4), (1, 1)])
def test_equal_jobs_put_at_once_meet_the_closed_forms(count: int, workers: int) -> None:
    service = 2.0
    jobs = [
        job(f"j{n}", 0, n // workers * service, (n // workers + 1) * service, worker=f"w{n % workers}")
        for n in range(count)
    ]
    found = report(jobs)
    total = found["total"]["jobs"]
    rounds = count / workers
    assert total["wait_s"]["mean"] == pytest.approx(service * (rounds - 1) / 2)
    assert total["makespan_s"] == pytest.approx(service * rounds)
    assert total["expected"] == {
        "jobs": count, "places": workers, "service": service,
        "mean_wait": pytest.approx(total["wait_s"]["mean"]),
        "wait_ratio": pytest.approx(total["wait_s"]["mean"] / total["total_s"]["mean"]),
        "makespan": pytest.approx(total["makespan_s"]),
    }  # fmt: skip
    assert total["rate_per_s"] == pytest.approx(workers / service)
    assert found["little"]["deviation"] == pytest.approx(0, abs=1e-9)
    assert found["complete"]
    assert [group["jobs"]["done"] for group in found["workers"]] == [count // workers] * workers


def test_fewer_jobs_than_workers_do_not_wait() -> None:
    expected = queueing.put_at_once(2, 4, 3.0)
    assert expected is not None
    assert (expected.mean_wait, expected.wait_ratio, expected.makespan) == (0, 0, 3.0)


@pytest.mark.parametrize(
    ("slots", "worker", "wait", "makespan", "ratio"),
    [
        (3, lambda n: "w0", 0.5, 2.0, 1 / 3),  # one process, three jobs at once: arq, asyncio, threads
        (1, lambda n: f"w{n}", 2.5, 6.0, 5 / 7),  # a fork for each job, one after the other
        (2, lambda n: f"w{n % 2}-{n // 2}", 1.0, 3.0, 1 / 2),  # two of these
    ],
)
def test_slots_that_were_there_are_not_processes(
    slots: int, worker: Callable[[int], str], wait: float, makespan: float, ratio: float
) -> None:
    # Six jobs of a second; a fork begins 5 ms after the one before it has ended.
    jobs = [
        job(f"j{n}", 0, n // slots + 0.005 * (n // slots), n // slots + 1 + 0.005 * (n // slots), worker=worker(n))
        for n in range(6)
    ]
    found = report(jobs)["total"]["jobs"]
    assert found["places"] == slots
    assert found["expected"] == {
        "jobs": 6, "places": slots, "service": pytest.approx(1.0), "mean_wait": pytest.approx(wait),
        "wait_ratio": pytest.approx(ratio), "makespan": pytest.approx(makespan),
    }  # fmt: skip
    assert found["expected"]["makespan"] <= found["makespan_s"]


def test_slots_that_were_free_count_too() -> None:
    # Two workers for all of the time, never busy at once; one alone could have done it as well.
    jobs = [job(f"j{n}", 3 * n, 3 * n, 3 * n + 1, worker=f"w{n % 2}") for n in range(6)]
    assert report(jobs)["total"]["jobs"]["places"] == 2


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5000), st.integers(0, 3000)), min_size=1, max_size=30))
def test_a_floor_is_never_above_what_was_measured(attempts: list[tuple[int, int, int]]) -> None:
    jobs = [
        job(f"j{n}", 0, start / 1000, (start + length) / 1000, worker=f"w{who}")
        for n, (who, start, length) in enumerate(attempts)
    ]
    for group in (found := report(jobs))["workers"] + [found["total"]]:
        numbers = group["jobs"]
        assert numbers["expected"]["makespan"] <= numbers["makespan_s"] + 1e-9
        assert numbers["places"] <= numbers["attempts"]


def test_a_bulk_without_jobs_says_where_its_inferences_ran() -> None:
    request = {"start_ns": 0, "end_ns": 2 * S, "seconds": 2.0, "outcome": "ok"}
    ran = [{"job_id": None, "model": "m", "worker": "w", "start_ns": at * S, "ok": True} for at in (1, 3, 4)]
    (note,) = report([], ran, [request])["notes"]
    assert "of 3 inferences 1 began inside an API request and 2 outside" in note
    assert "docs/own-code.md" in note


def test_expectation_needs_jobs_workers_and_a_service_time() -> None:
    assert queueing.put_at_once(0, 1, 1.0) is None
    assert queueing.put_at_once(1, 0, 1.0) is None
    assert queueing.put_at_once(1, 1, None) is None


def test_quantiles_are_interpolated_and_absent_values_left_out() -> None:
    found = stats.distribution([1.0, None, 2.0, 3.0, float("nan"), 4.0])
    assert found == stats.Distribution(4, 2.5, 2.5, pytest.approx(3.85), 4.0)


def test_absent_is_none() -> None:
    found = report([])
    assert found["total"]["jobs"]["wait_s"] is None
    assert found["total"]["jobs"]["rate_per_s"] is None
    assert found["total"]["inferences"]["output_tokens"] is None
    assert found["total"]["inferences"]["cpu_s"] is None
    assert found["requests"]["latency_s"] is None
    assert found["little"] is None
    assert not found["complete"]
    assert found["notes"] == [
        "no jobs: no queue that Bulkscope knows was used for this bulk; no inference was recorded either; "
        "docs/own-code.md makes jobs of such work"
    ]


def test_negative_wait_is_counted_and_left_out() -> None:
    found = report([job("a", 0, 4, 6), job("b", 5, 4, 6)])["total"]["jobs"]
    assert found["negative_waits"] == 1
    assert (found["wait_s"]["count"], found["wait_s"]["mean"]) == (1, 4.0)
    assert found["wait_ratio"]["mean"] == pytest.approx(4 / 6)


def test_last_attempt_decides_a_retried_job() -> None:
    first = job("a", 0, 1, 2, retried=True, error_type="TimeoutError", failure_domain="timeout", ok=False)
    second = job("a", 2, 5, 7, attempt=2, delay=2.0, wait=1.0)
    found = report([first, second])
    assert (found["progress"]["sent"], found["progress"]["done"], found["progress"]["failed"]) == (1, 1, 0)
    jobs = found["total"]["jobs"]
    assert (jobs["attempts"], jobs["retries"], jobs["done"], jobs["delay_s"]) == (2, 1, 1, 2.0)
    assert jobs["errors"] == {"TimeoutError": 1}
    assert jobs["failures_by_domain"] == {}


def test_job_waiting_for_its_retry_is_neither_done_nor_failed() -> None:
    found = report([job("a", 0, 1, 2, retried=True, ok=False, failure_domain="infra")])
    assert found["progress"]["retrying"] == 1
    assert (found["progress"]["done"], found["progress"]["failed"], found["complete"]) == (0, 0, False)


def test_failures_are_split_by_domain() -> None:
    bad = {"ok": False}
    found = report([
        job("a", 0, 1, 2, failure_domain="model", **bad), job("b", 0, 1, 2, failure_domain="model", **bad),
        job("c", 0, 1, 2, failure_domain="infra", **bad), job("d", 0, 1, 2, **bad), job("e", 0, 1, 2),
    ])["total"]["jobs"]  # fmt: skip
    assert found["failures_by_domain"] == {"infra": 1, "model": 2, "unknown": 1}
    assert (found["done"], found["failed"]) == (1, 4)


def test_open_jobs_are_running_lost_unknown_or_waiting() -> None:
    found = report(
        [
            job("heard", 0, 1, None, span_id="s1"),
            job("silent", 0, 1, None, span_id="s2"),
            {"job_id": "queued", "enqueue_ns": 0, "repeated": 0},
        ],
        requests=[{"start_ns": 0, "end_ns": S, "seconds": 1.0, "outcome": "ok", "bulk_size": 5}],
        lost=[
            {"span_id": "s2", "job_id": "silent", "attempt": 1, "worker": "w0", "model": "m", "elapsed": 7.5,
             "memory": 100, "memory_limit": 110, "domain": "resource", "likely": True, "model_likely": False}
        ],
    )  # fmt: skip
    progress = found["progress"]
    # Two more were announced by the request and left no trace.
    assert progress == {
        "sent": 5, "done": 0, "failed": 0, "running": 1, "retrying": 0, "waiting": 1, "lost": 1, "unknown": 2,
        "cancelled": 0, "not_sent": 0, "duplicate": 0,
    }  # fmt: skip
    assert found["notes"][0] == "partial: 5 of 5 jobs have not ended"
    assert list(found["lost"]) == [
        {"job_id": "silent", "attempt": 1, "worker": "w0", "model": "m", "elapsed_s": 7.5, "memory_bytes": 100,
         "domain": "resource", "memory_limit_bytes": 110, "likely": True, "model_likely": False}
    ]  # fmt: skip


def test_a_lost_job_that_another_worker_has_done_is_done() -> None:
    lost = {"span_id": "s1", "job_id": "j", "attempt": 1, "worker": "w0", "domain": "infra"}
    again = job("j", 0, 20, 22, span_id="s2", worker="w1")
    found = report([job("j", 0, 1, None, span_id="s1"), again], lost=[lost])
    assert (found["progress"]["done"], found["progress"]["lost"], found["complete"]) == (1, 0, True)
    assert [each["worker"] for each in found["lost"]] == ["w0"], "that it happened stays visible"


def test_tokens_and_cpu_are_summed_over_rows_that_hold_both() -> None:
    found = report([], [
        {"model": "m", "worker": "w", "ok": True, "seconds": 2.0, "output_tokens": 10, "cpu_time": 4.0,
         "decode": 1.0, "cpu_exact": True},
        {"model": "m", "worker": "w", "ok": True, "seconds": 3.0, "output_tokens": 20, "cpu_time": 2.0,
         "decode": 2.0, "cpu_exact": False},
        {"model": "n", "worker": "w", "ok": False, "seconds": 9.0, "cpu_time": 9.0},
    ])  # fmt: skip
    total = found["total"]["inferences"]
    assert total["tokens_per_s"] == pytest.approx(30 / 5)
    # The first token of each is prefill's: 9 and 19 over 1 s and 2 s.
    assert total["decode_tokens_per_s"] == pytest.approx(28 / 3)
    assert total["cpu_s_per_output_token"] == pytest.approx(6 / 30)
    assert (total["cpu_s"], total["cpu_exact_share"], total["failed"]) == (15.0, 0.5, 1)
    models = {group["name"]: group["inferences"] for group in found["models"]}
    assert models["m"]["count"] == 2
    assert models["n"]["output_tokens"] is None


def test_one_token_and_none_have_no_decode_rate_and_no_part_in_one() -> None:
    rows = [
        {"model": "m", "ok": True, "seconds": 2.0, "output_tokens": 1, "decode": 0.5},
        {"model": "m", "ok": True, "seconds": 2.0, "decode": 5.0},
        {"model": "m", "ok": True, "seconds": 2.0, "output_tokens": 11},
    ]
    assert report([], rows)["total"]["inferences"]["decode_tokens_per_s"] is None
    found = report([], [*rows, {"model": "m", "ok": True, "seconds": 2.0, "output_tokens": 11, "decode": 2.0}])
    assert found["total"]["inferences"]["decode_tokens_per_s"] == pytest.approx(10 / 2)
    assert found["total"]["inferences"]["tokens_per_s"] == pytest.approx(23 / 6)


def test_jobs_per_second_are_of_jobs_done() -> None:
    """Of 8 jobs one fails before its inference: total and model say the same."""
    jobs = [job(f"j{n}", 0, 2 * n, 2 * n + 2) for n in range(7)] + [job("bad", 0, 3, 4, ok=False)]
    found = report(jobs, [{"job_id": f"j{n}", "model": "m", "ok": True, "seconds": 1.0} for n in range(7)])
    assert found["total"]["jobs"]["rate_per_s"] == pytest.approx(7 / 14)
    assert [model["jobs"]["rate_per_s"] for model in found["models"]] == [pytest.approx(7 / 14)]


def test_wait_ratio_is_of_what_the_worker_measured() -> None:
    """The span of the send begins 0.5 s before the message is stamped; 3 s wait, 5 s delay, 2 s work."""
    jobs = report([job("a", 0, 8.5, 10.5, wait=3.0, delay=5.0)])["total"]["jobs"]
    assert (jobs["wait_ratio"]["mean"], jobs["total_s"]["mean"]) == (pytest.approx(0.3), pytest.approx(10))


def test_zero_tokens_are_zero_and_have_no_cost_per_token() -> None:
    rows = [{"model": "m", "ok": True, "seconds": 2.0, "output_tokens": 0, "cpu_time": 1.0}]
    found = report([], rows)["total"]["inferences"]
    assert (found["output_tokens"], found["tokens_per_s"], found["cpu_s_per_output_token"]) == (0, 0, None)


def test_requests_are_counted_by_outcome_with_their_rate() -> None:
    found = report([], requests=[
        {"start_ns": 0, "end_ns": S, "seconds": 1.0, "outcome": "ok", "enqueue_duration": 0.5},
        {"start_ns": 2 * S, "end_ns": 5 * S, "seconds": 3.0, "outcome": "overload"},
    ])["requests"]  # fmt: skip
    assert found["outcomes"] == {"ok": 1, "client_error": 0, "overload": 1, "internal_error": 0}
    assert (found["rate_per_s"], found["latency_s"]["p50"], found["enqueue_s"]) == (1.0, 2.0, 0.5)


def test_little_law_tells_a_worker_clock_that_disagrees() -> None:
    # The workers say that nobody waited; the senders' times say 4 s each.
    jobs = [job(f"j{n}", 0, 4, 6, wait=0.0, worker=f"w{n}") for n in range(3)]
    found = report(jobs)
    assert found["little"]["deviation"] == pytest.approx(2 / 3)
    assert not found["little"]["ok"]
    assert "Little's law by 67 %" in found["notes"][-1]
