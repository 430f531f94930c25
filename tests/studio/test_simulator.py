"""The simulator against closed forms, and its scenarios against what their runs truly were."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from bulkscope_studio.analysis.statistics.queueing import put_at_once
from bulkscope_studio.ingest import otlp_decode
from bulkscope_studio.services.reports import bulk_report
from bulkscope_studio.storage.store import Store
from tests.rows import BEGIN_NS
from tests.simulator.engine import Run, simulate
from tests.simulator.ledger import VERDICTS, complaints, ledger
from tests.simulator.records import rows, write
from tests.simulator.scenarios import BULK, Scenario, paced, poisson, scenarios
from tests.simulator.sharing import share
from tests.simulator.system import (
    GIB,
    MIB,
    Broker,
    Failures,
    Host,
    Model,
    Pool,
    Stream,
    System,
    Telemetry,
    Tokens,
    always,
)

EVEN = Tokens(300, 40, 0.0, 0)  # prefill 0.5 s, decode 0.8 s
BUSY = Model(activity=1.0, load_s=0.0)
SERVICE = 1.3


def system(workers: int, requests: tuple[tuple[float, int], ...], host: Host | None = None, model: Model = BUSY,
           **of_pool: object) -> System:  # fmt: skip
    """Equal jobs without noise, delays or overhead."""
    pool = Pool(present=always(workers), **of_pool)  # type: ignore[arg-type]
    stream = Stream(BULK, requests, model, EVEN, noise=0.0)
    return System((stream,), (host or Host(background=0.0),), (pool,), Broker(dispatch=0.0), enqueue=0.0, overhead=0.0)


def middle(run: Run) -> list[float]:
    """Service times of the jobs that ran while all workers were busy."""
    busiest = max(a.beside for a in run.attempts)
    return [a.end - a.start for a in run.attempts if a.end is not None and a.beside > busiest - 1e-6]


# --- sharing -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("customers", "activity"), [(1, 0.3), (4, 0.9), (8, 0.5)])
def test_enough_servers_slow_nobody(customers: int, activity: float) -> None:
    found = share(customers, activity, customers)
    assert found.rate == pytest.approx(activity)
    assert found.some == found.waiting == 0
    assert found.full == pytest.approx(activity**customers)


def test_one_server_is_the_machine_repair_model() -> None:
    # M/M/1//N: throughput 1 - p0 with p0 = 1 / sum(N!/(N-k)! r^k), r = activity / (1 - activity).
    activity, customers = 0.4, 5
    ratio = activity / (1 - activity)
    weights = np.cumprod([1.0, *(ratio * (customers - k) for k in range(customers))])
    found = share(customers, activity, 1)
    assert found.served == pytest.approx(1 - 1 / weights.sum())
    assert found.rate * customers == pytest.approx(found.served)


def test_many_more_customers_than_servers_share_them_equally() -> None:
    found = share(40, 0.9, 4)
    assert found.rate == pytest.approx(4 / 40, rel=1e-6)
    assert found.some == pytest.approx(1, abs=1e-9)
    always_on = share(3, 1.0, 4, permanent=5)
    assert always_on.rate == 0.5
    assert always_on.waiting == 1.5


def test_permanent_customers_are_the_limit_of_active_ones() -> None:
    mixed, limit = share(4, 0.6, 2, permanent=2), share(4, 0.6, 2)
    assert mixed.rate < limit.rate
    assert share(2, 1 - 1e-12, 2, permanent=2).rate == pytest.approx(share(2, 1.0, 2, permanent=2).rate)


# --- queueing ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("jobs", "workers"), [(40, 1), (120, 4), (96, 8)])
def test_put_at_once(jobs: int, workers: int) -> None:
    run = simulate(system(workers, ((0.0, jobs),)), 1)
    expected = put_at_once(jobs, workers, SERVICE)
    assert expected is not None
    assert np.mean([a.start - a.enqueued for a in run.attempts]) == pytest.approx(expected.mean_wait)
    assert run.end == pytest.approx(expected.makespan)


def test_deterministic_service_waits_as_pollaczek_and_khinchine_say() -> None:
    rate = 0.7 / SERVICE
    waits = []
    for seed in range(4):
        run = simulate(system(1, poisson(rate, 12_000, seed)), seed)
        waits.append(np.mean([a.start - a.enqueued for a in run.attempts]))
    # M/D/1: mean wait rho S / (2 (1 - rho)); four runs of 6,000 jobs leave about 3 % of chance.
    assert np.mean(waits) == pytest.approx(0.7 * SERVICE / (2 * 0.3), rel=0.1)


def test_jobs_in_the_system_are_arrivals_times_time() -> None:
    run = simulate(system(3, poisson(1.8, 200, 2)), 2)
    events = sorted([(a.enqueued, 1) for a in run.attempts] + [(a.end or 0.0, -1) for a in run.attempts])
    area, inside, before = 0.0, 0, 0.0
    for at, change in events:
        area, inside, before = area + inside * (at - before), inside + change, at
    assert inside == 0
    assert area == pytest.approx(sum((a.end or 0.0) - a.enqueued for a in run.attempts))


def test_first_come_first_served_one_at_a_time() -> None:
    run = simulate(system(3, poisson(2.2, 80, 3)), 3)
    starts = [a.start for a in sorted(run.attempts, key=lambda a: a.enqueued)]
    assert starts == sorted(starts)
    for process in run.processes:
        mine = sorted((a.start, a.end or 0.0) for a in run.attempts if a.process is process)
        assert all(end <= start + 1e-9 for (_, end), (start, _) in pairwise(mine))


def test_a_stalled_broker_hands_out_nothing() -> None:
    stalled = replace(system(2, ((0.0, 40),)), broker=Broker(dispatch=0.0, stalls=((5.0, 17.0),)))
    run = simulate(stalled, 1)
    assert not [a for a in run.attempts if 5.0 < a.start < 17.0]
    # Each worker ends the job that it is at and then waits; only the wait counts.
    assert run.idle_while_waiting == pytest.approx(17.0 - 4 * SERVICE)


def test_a_wanted_delay_is_no_wait() -> None:
    delayed = system(2, ((0.0, 2),))
    run = simulate(replace(delayed, streams=(replace(delayed.streams[0], delay=9.0),)), 1)
    assert [a.start - a.enqueued - a.delay for a in run.attempts] == [0.0, 0.0]


def test_reserved_jobs_wait_for_their_own_worker() -> None:
    reserving = replace(system(2, ((0.0, 9),)), broker=Broker(dispatch=0.0, prefetch=3))
    run = simulate(reserving, 1)
    assert len(run.attempts) == 9
    assert run.end == pytest.approx(5 * SERVICE)


# --- mechanisms -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("workers", "threads", "cpus"), [(4, 1, 2), (3, 2, 4), (8, 4, 8)])
def test_processor_sharing(workers: int, threads: int, cpus: int) -> None:
    run = simulate(system(workers, ((0.0, 8 * workers),), threads=threads, cpus=cpus), 1)
    stretch = workers * threads / cpus
    assert middle(run) == pytest.approx([SERVICE * stretch] * len(middle(run)))
    attempt = run.attempts[workers]
    assert attempt.cpu == pytest.approx(SERVICE * threads), "the work is the same, it only takes longer"
    assert attempt.cpu_wait == pytest.approx(SERVICE * threads * (stretch - 1))
    assert attempt.pressure == pytest.approx(SERVICE * stretch)
    assert attempt.lost[0] == pytest.approx(SERVICE * (stretch - 1))


def test_pressure_is_the_share_of_time_in_which_a_thread_has_no_core() -> None:
    # Two threads of activity a on one core: p2/p1/p0 = 2 r^2 : 2 r : 1 with r = a / (1 - a).
    model = replace(BUSY, activity=0.6)
    run = simulate(system(2, ((0.0, 20),), model=model, cpus=1), 1)
    ratio = 0.6 / 0.4
    both = 2 * ratio**2 / (1 + 2 * ratio + 2 * ratio**2)
    attempt = run.attempts[4]
    assert attempt.pressure / (attempt.decoded - attempt.inferred) == pytest.approx(both)  # type: ignore[operator]


def test_burners_take_their_share_while_they_burn() -> None:
    host = Host(cores=2, background=0.0, burners=((26.0, 1e9, 2),))
    run = simulate(system(2, ((0.0, 80),), host), 1)
    before = [a.end - a.start for a in run.attempts if a.end and a.end < 26]
    after = [a.end - a.start for a in run.attempts if a.start > 26.1 and a.end]
    assert before == pytest.approx([SERVICE] * len(before))
    assert after == pytest.approx([2 * SERVICE] * len(after))


def test_a_quota_throttles() -> None:
    run = simulate(system(2, ((0.0, 20),), quota=0.5, quota_each=True), 1)
    attempt = run.attempts[5]
    assert attempt.end - attempt.start == pytest.approx(2 * SERVICE)  # type: ignore[operator]
    assert attempt.throttled == pytest.approx(SERVICE)
    assert attempt.cpu == pytest.approx(SERVICE)


def test_bandwidth_slows_decoding_alone_and_burns_cpu() -> None:
    host = Host(cores=16, background=0.0, bandwidth=2 * BUSY.traffic)
    run = simulate(system(4, ((0.0, 80),), host), 1)
    attempt = run.attempts[40]
    assert attempt.prefilled - attempt.inferred == pytest.approx(0.5)  # type: ignore[operator]
    # Equal jobs stay in step: all four decode at once, on the bandwidth of two.
    assert attempt.decoded - attempt.prefilled == pytest.approx(2 * 0.8)  # type: ignore[operator]
    assert attempt.cpu == pytest.approx(0.5 + 1.6)
    assert attempt.pressure == 0


def test_a_lock_is_neither_cpu_nor_pressure() -> None:
    host = Host(cores=16, background=0.0, lock_share=0.5)
    run = simulate(system(4, ((0.0, 80),), host), 1)
    factor = share(4, 0.5, 1).rate / 0.5
    attempt = run.attempts[40]
    assert attempt.end - attempt.start == pytest.approx(SERVICE / factor)  # type: ignore[operator]
    assert attempt.cpu == pytest.approx(SERVICE, rel=1e-6)
    assert attempt.pressure == 0
    spinning = simulate(system(4, ((0.0, 80),), replace(host, lock_spins=True)), 1).attempts[40]
    assert spinning.cpu == pytest.approx(SERVICE / factor)


def test_a_lock_outside_the_inference_serves_one_after_the_other() -> None:
    one = system(8, ((0.0, 200),))
    run = simulate(replace(one, streams=(replace(one.streams[0], locked=0.5),)), 1)
    # Eight workers could do 8 / 1.8 jobs/s; the lock lets 2 through.
    ends = sorted(a.end or 0.0 for a in run.attempts)
    assert 100 / (ends[149] - ends[49]) == pytest.approx(2.0, rel=1e-6)


def test_two_threads_of_a_core_share_it() -> None:
    host = Host(cores=4, physical=2, smt_yield=0.2, background=0.0)
    run = simulate(system(4, ((0.0, 40),), host), 1)
    assert middle(run) == pytest.approx([SERVICE * 4 / (2 + 0.2 * 2)] * len(middle(run)))


def test_weights_that_no_longer_fit_are_read_again_for_every_token() -> None:
    need = 2 * (60 * MIB + BUSY.anonymous + 340 * BUSY.context) + BUSY.weights
    missing, disk = 50 * MIB, 2e9
    host = Host(cores=16, background=0.0, disk=disk)
    run = simulate(system(2, ((0.0, 20),), host, memory_limit=need - missing), 1)
    attempt = run.attempts[10]
    # 40 tokens and one pass of the prefill, two readers on one disk.
    assert attempt.end - attempt.start == pytest.approx(SERVICE + 41 * missing * 2 / disk)  # type: ignore[operator]
    assert attempt.cpu == pytest.approx(SERVICE, rel=1e-6)
    assert max(run.hosts["node-1"].memory_some) > 0


def test_beyond_the_limit_a_worker_is_killed_and_counted() -> None:
    limit = 2 * (60 * MIB + BUSY.anonymous) + 100 * MIB
    run = simulate(system(3, ((0.0, 30),), memory_limit=limit, restart=None), 1)
    assert [p.killed for p in run.processes].count("memory") == 1
    assert len([a for a in run.attempts if a.end is None]) == 1
    assert run.hosts["node-1"].kills[-1][1] == 1


def test_failures_retries_and_limits_on_time() -> None:
    one = system(2, ((0.0, 200),))
    failing = Failures(0.3, "infra", "ConnectionError", "before", True, 1)
    run = simulate(replace(one, streams=(replace(one.streams[0], failures=(failing,)),)), 5)
    first = [a for a in run.attempts if a.number == 1]
    again = [a for a in run.attempts if a.number == 2]
    assert len([a for a in first if a.outcome == "retry"]) == len(again)
    assert len(again) / 200 == pytest.approx(0.3, abs=0.1)
    assert {a.outcome for a in again} == {"ok", "internal_error"}
    late = simulate(replace(one, expires=20.0), 1)
    assert {a.domain for a in late.attempts if a.start - a.enqueued > 20.0} == {"timeout"}
    assert {a.domain for a in late.attempts if a.start - a.enqueued <= 20.0} == {None}


def test_a_full_queue_refuses() -> None:
    full = replace(system(1, paced(4.0, 30.0)), queue_limit=10)
    run = simulate(full, 1)
    assert {request.status for request in run.requests} == {202, 503}
    assert sum(len(request.jobs) for request in run.requests) == len(run.attempts)


def test_a_killed_workers_job_is_handed_out_again_or_lost() -> None:
    one = replace(system(2, ((0.0, 20),)), kills=((2.0, 0),))
    lost = simulate(one, 1)
    assert len({id(a.job) for a in lost.attempts if a.end is not None}) == 19
    again = simulate(replace(one, broker=Broker(redeliver=5.0)), 1)
    assert len({id(a.job) for a in again.attempts if a.end is not None}) == 20
    assert len(again.attempts) == 21


# --- rows ---------------------------------------------------------------------------------------------


@pytest.fixture
def store() -> Store:
    return Store(Path(":memory:"))


def usual() -> System:
    stream = Stream(BULK, ((0.0, 230),), failures=(Failures(0.1, "infra", "ConnectionError", "before", True, 1),))
    return System((stream, Stream("other", poisson(0.5, 30, 1))), (Host(cores=4),), (Pool(present=always(4)),),
                  kills=((9.0, 1),), broker=Broker(redeliver=4.0))  # fmt: skip


def test_same_seed_same_rows_other_seed_others() -> None:
    first, second, other = rows(simulate(usual(), 1))[0], rows(simulate(usual(), 1))[0], rows(simulate(usual(), 2))[0]
    assert first.keys() == {"spans", "logs", "points", "resources"}
    for name, table in first.items():
        assert table.equals(second[name])
    assert not first["spans"].equals(other["spans"])


def test_columns_and_types_are_those_of_the_decoder(store: Store) -> None:
    refused = replace(usual(), telemetry=Telemetry(refused=0.1))
    for name, table in rows(simulate(refused, 1))[0].items():
        blank = otlp_decode.to_arrow(name, [[None] * len(otlp_decode.TABLES[name])])
        assert table.schema.equals(blank.schema), name
    assert set(rows(simulate(refused, 1))[0]) == set(otlp_decode.TABLES)


def test_rows_are_what_the_report_takes(store: Store) -> None:
    run = simulate(usual(), 1)
    write(run, store)
    report = bulk_report(store, BULK)
    assert report is not None
    assert report["progress"]["sent"] == report["progress"]["done"] + report["progress"]["failed"] == 230
    assert report["little"]["deviation"] < 0.02
    waits = [a.start - a.enqueued - a.delay for a in run.attempts if a.job.stream.bulk == BULK and a.end is not None]
    assert report["total"]["jobs"]["wait_s"]["mean"] == pytest.approx(np.mean(waits))
    assert len(report["lost"]) == 1


def test_every_span_has_its_parent_and_from_the_201st_job_on_its_own_trace(store: Store) -> None:
    write(simulate(usual(), 1), store)
    orphans = store.query(
        "SELECT name FROM spans s WHERE parent_span_id IS NOT NULL AND NOT EXISTS "
        "(SELECT 1 FROM spans p WHERE p.span_id = s.parent_span_id AND p.trace_id = s.trace_id)"
    )
    assert orphans.num_rows <= 1, "a killed attempt's span never comes, and its retry's parent with it"
    linked = store.query("SELECT count(*) AS n FROM spans WHERE kind = 'PRODUCER' AND links IS NOT NULL").to_pylist()
    assert linked == [{"n": 30}]


def test_points_tell_what_the_run_did(store: Store) -> None:
    busy = System((Stream(BULK, ((0.0, 80),)),), (Host(cores=4),), (Pool(present=always(4)),))
    run = simulate(busy, 1)
    write(run, store)
    busiest = store.query(
        "SELECT value FROM points WHERE name = 'system.cpu.utilization' AND json_extract_string(attributes, '$.state') "
        "IN ('user', 'system') AND time_ns BETWEEN $first AND $last",
        {"first": BEGIN_NS + 5 * 10**9, "last": BEGIN_NS + 20 * 10**9},
    )["value"].to_numpy()
    assert busiest.reshape(-1).sum() / 15 == pytest.approx(0.98, abs=0.07)
    at_work = store.query("SELECT max(value) AS high FROM points WHERE name = 'bulk.worker.busy'").to_pylist()
    assert at_work == [{"high": 1.0}]
    sizes = store.query(
        "SELECT time_ns, sum(value) AS total FROM points WHERE name = 'system.memory.usage' GROUP BY time_ns"
    )["total"].to_numpy()
    assert sizes == pytest.approx(16 * GIB)


@pytest.mark.parametrize("near", [True, False])
def test_a_skewed_clock_makes_waits_negative_between_hosts_only(store: Store, near: bool) -> None:
    host = Host(clock=-5.0, near=near)
    write(simulate(System((Stream(BULK, paced(0.5, 40), tokens=EVEN),), (host,), (Pool(),)), 1), store)
    waits = store.query("SELECT wait FROM spans WHERE kind = 'CONSUMER'")["wait"].to_numpy()
    assert (waits < 0).all() == (not near)
    assert waits == pytest.approx(np.full(20, 0.002 - (0.0 if near else 5.0)), abs=1e-6)


def test_what_is_lost_is_missing_and_counted(store: Store) -> None:
    losing = replace(usual(), telemetry=Telemetry(consumers=0.2, inferences=0.1, batches=True, counted=True))
    run = simulate(losing, 1)
    whole = rows(simulate(usual(), 1))[0]["spans"].num_rows
    found = write(run, store)
    spans = store.query("SELECT count(*) AS n FROM spans").to_pylist()[0]["n"]
    assert whole - spans == found.missing
    assert found.missing / found.spans > 0.05
    dropped = store.query(
        "SELECT service_instance_id, max(value) AS n FROM points WHERE name = 'bulk.telemetry.dropped' GROUP BY ALL"
    )["n"].to_numpy()
    assert dropped.sum() <= found.missing
    assert dropped.sum() > 0.9 * found.missing


def test_a_cut_window_keeps_what_ended_in_it(store: Store) -> None:
    write(simulate(replace(usual(), telemetry=Telemetry(cut=(12.0, 1e9))), 1), store)
    first = store.query("SELECT min(end_ns) AS first FROM spans").to_pylist()[0]["first"]
    assert first >= 1_760_000_012_000_000_000
    assert store.query("SELECT 1 FROM spans WHERE kind = 'SERVER' AND bulk_id = 'bulk'").num_rows == 0


def test_resources_say_what_a_worker_may_use(store: Store) -> None:
    limited = System(
        (Stream(BULK, ((0.0, 20),)),), (Host(),), (Pool(present=always(2), cpus=4, quota=1.5, memory_limit=2 * GIB),)
    )
    write(simulate(limited, 1), store)
    texts = store.query("SELECT attributes FROM resources WHERE attributes LIKE '%bulk-worker%'")[
        "attributes"
    ].to_pylist()
    for found in map(json.loads, texts):
        assert found["bulk.worker.cpus"] == 1.5
        assert found["bulk.worker.cpu.set"] == "0-3"
        assert found["bulk.worker.memory.limit"] == 2 * GIB


# --- scenarios ------------------------------------------------------------------------------------------


@cache
def listed() -> tuple[Scenario, ...]:
    return tuple(scenarios())


@pytest.mark.slow
def test_scenarios_are_many_of_each_verdict_and_some_at_each_border() -> None:
    assert len(listed()) >= 300
    assert len({scenario.name for scenario in listed()}) == len(listed())
    for verdict in VERDICTS:
        mine = [scenario for scenario in listed() if scenario.verdict == verdict]
        assert len(mine) >= 30
        assert len({scenario.name.split("/")[1] for scenario in mine}) >= 3
        assert any(scenario.border for scenario in mine), verdict


@pytest.mark.slow
@pytest.mark.parametrize("verdict", VERDICTS)
def test_each_scenario_truly_is_what_it_claims(verdict: str) -> None:
    wrong = {}
    for scenario in listed():
        if scenario.verdict == verdict:
            run = scenario.run()
            tables, lost = rows(run)
            assert isinstance(tables["spans"], pa.Table)
            found = complaints(ledger(run, scenario.bulk, lost, scenario.among), verdict)
            if found:
                wrong[scenario.name] = found
    assert not wrong


def test_a_false_claim_is_seen() -> None:
    by_name = {scenario.name: scenario for scenario in listed()}
    run = by_name["cpu/threads/join/8x1on4"].run()
    truth = ledger(run, BULK, rows(run)[1])
    assert not complaints(truth, "cpu_saturated")
    for other in set(VERDICTS) - {"cpu_saturated"}:
        assert complaints(truth, other), other


def test_a_gap_of_inferences_leaves_a_verdict_while_it_is_small_and_told() -> None:
    by_name = {scenario.name: scenario for scenario in listed()}
    for name, verdict, other in (
        ("headroom/inferences/0.06/01", "headroom", "data_unfit"),
        ("unfit/inferences/0.25/01", "data_unfit", "headroom"),
    ):
        run = by_name[name].run()
        truth = ledger(run, BULK, rows(run)[1])
        assert not complaints(truth, verdict)
        assert complaints(truth, other)
        if verdict == "headroom":
            assert complaints(replace(truth, told=0.0), verdict), "nobody would know of it"
