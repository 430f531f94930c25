"""Capacity from stores whose truth is known: replayed queues with service times of a known law."""

from __future__ import annotations

import io
import json
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from bulkscope_studio.analysis.statistics import queueing, simulation
from bulkscope_studio.analysis.statistics.simulation import replay
from bulkscope_studio.cli.capacity import command
from bulkscope_studio.rendering import capacity
from bulkscope_studio.rendering.output import Output
from bulkscope_studio.server import api
from bulkscope_studio.services import capacities
from bulkscope_studio.services.capacities import Question
from bulkscope_studio.services.errors import InvalidQuery
from bulkscope_studio.storage.store import Store
from bulkscope_studio.text import wording
from tests.processes import BIN
from tests.studio.made import MIB, Made, at_once
from tests.studio.queues import slowing
from tests.studio.queues import stream as crowded
from tests.studio.serving import studio


def pool(made: Made, bulks: Sequence[str] = ("b",), **given: Any) -> dict[str, Any]:
    store = made.store()
    try:
        (found,) = capacities.system_capacity(store, Question(bulks, **given))["pools"]
        return dict(found)
    finally:
        store.close()


def now(found: dict[str, Any], model: int = 0) -> dict[str, Any]:
    level: dict[str, Any] = found["models"][model]["now"]
    return level


def stream(jobs: int, workers: int, rho: float, seed: int = 0, mean: float = 1.0) -> Made:
    made = Made()
    random = np.random.default_rng(seed)
    arrivals = np.cumsum(random.exponential(mean / workers / rho, jobs))
    made.run(arrivals.tolist(), random.exponential(mean, jobs).tolist(), workers)
    return made


# --- the sustained rate ------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 3, 8])
def test_a_saturated_system_sustains_what_its_service_times_give(workers: int) -> None:
    jobs = 400 * workers
    made = at_once(jobs, workers)
    found = now(pool(made))
    truth = workers / np.mean(np.random.default_rng(0).exponential(1.0, jobs))
    assert found["reached"]
    assert found["places"] == workers
    assert found["rate_per_s"]["value"] == pytest.approx(truth, rel=0.05)
    assert found["rate_per_s"]["low"] < truth < found["rate_per_s"]["high"]
    assert found["tokens_per_s"]["value"] == pytest.approx(10 * found["rate_per_s"]["value"], rel=0.05)


def test_equal_service_times_give_the_rate_exactly_even_in_a_short_stretch() -> None:
    made = Made()
    made.run([0.0] * 26, [1.0] * 26, 2)
    found = now(pool(made))
    assert found["rate_per_s"]["value"] == pytest.approx(2.0, rel=1e-6)
    assert found["rate_per_s"]["high"] - found["rate_per_s"]["low"] < 1e-6


@pytest.mark.slow
def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    hits, widths, tries = 0, [], 150
    for seed in range(tries):
        rate = now(pool(at_once(60, 2, seed)))["rate_per_s"]
        hits += rate["low"] <= 2.0 <= rate["high"]
        widths.append((rate["high"] - rate["low"]) / rate["value"])
    # 95 % of 150 is 142.5, give or take 2.7; the wider of two intervals holds it somewhat more often.
    assert hits >= 134
    assert np.median(widths) < 0.9


@pytest.mark.slow
def test_workers_that_were_never_full_give_a_lower_bound() -> None:
    below, tries = 0, 40
    for seed in range(tries):
        found = now(pool(stream(150, 8, 0.3, seed)))
        if found["reached"]:
            continue
        assert found["rate_per_s"] is None
        below += found["lower_bound_per_s"] < 8.0
        assert found["lower_bound_per_s"] > 1.0
        assert found["ceiling_per_s"] == pytest.approx(8.0, rel=0.4)
    assert below >= 35


def test_a_gap_between_two_jobs_is_part_of_what_is_sustained() -> None:
    found = now(pool(at_once(300, 2, gap=0.2)))
    service = np.mean(np.random.default_rng(0).exponential(1.0, 300))
    assert found["gap_s"] == pytest.approx(0.2, rel=0.05)
    assert found["rate_per_s"]["value"] == pytest.approx(2 / (service + 0.2), rel=0.05)


def test_a_stall_beside_a_backlog_is_not_what_the_system_sustains() -> None:
    made = at_once(200, 2)
    plain = now(pool(made))["rate_per_s"]["value"]
    half = sorted(row["start_ns"] for row in made.rows if row["kind"] == "CONSUMER")[100]
    for row in made.rows:
        if row["kind"] != "PRODUCER" and row["start_ns"] >= half:
            row["start_ns"] += 60 * 10**9
            row["end_ns"] += 60 * 10**9
            if row["kind"] == "CONSUMER":
                row["wait"] += 60
    made.alive = {pid: (first, last + 60) for pid, (first, last) in made.alive.items()}
    stalled = now(pool(made))
    assert stalled["rate_per_s"]["value"] == pytest.approx(plain, rel=0.1)


def test_loading_a_model_is_left_out() -> None:
    found = pool(at_once(200, 2, load=30.0))
    assert now(found)["rate_per_s"]["value"] == pytest.approx(
        now(pool(at_once(200, 2)))["rate_per_s"]["value"], rel=0.1
    )
    assert any("loaded a model" in note for note in found["notes"])


def test_failed_attempts_take_places_and_are_no_completions() -> None:
    found = pool(at_once(400, 2, failed=range(0, 400, 2)))
    assert now(found)["rate_per_s"]["value"] == pytest.approx(1.0, rel=0.15)
    assert any("200 of 400 attempts failed" in note for note in found["notes"])


def test_a_job_that_nobody_takes_is_no_backlog() -> None:
    made = stream(150, 3, 0.4, 1)
    before = now(pool(made))
    made.sent(0.0, "lost", "b")
    found = pool(made)
    assert now(found)["saturated_s"] == pytest.approx(before["saturated_s"])
    assert any("were not taken" in note for note in found["notes"])


def test_models_that_run_at_once_share_the_time() -> None:
    made = Made()
    short, long = 0.5, 2.0
    services = [short if n % 2 == 0 else long for n in range(400)]
    made.run([0.0] * 400, services, 4, models=("short", "long"))
    found = pool(made)
    by_name = {model["model"]: model["now"] for model in found["models"]}
    assert by_name["short"]["mixed"]
    assert by_name["short"]["rate_per_s"]["value"] == pytest.approx(4 / short, rel=0.05)
    assert by_name["long"]["rate_per_s"]["value"] == pytest.approx(4 / long, rel=0.05)


def test_queues_with_workers_of_their_own_are_apart() -> None:
    made = Made()
    random = np.random.default_rng(0)
    made.run([0.0] * 200, random.exponential(1.0, 200).tolist(), 2, queue="full", models=("a",))
    arrivals = np.cumsum(random.exponential(5.0, 40)).tolist()
    made.run(arrivals, random.exponential(1.0, 40).tolist(), 2, queue="empty", models=("b",), first_pid=11)
    store = made.store()
    pools = {tuple(p["queues"]): p for p in capacities.system_capacity(store, Question(["b"]))["pools"]}
    assert set(pools) == {("full",), ("empty",)}
    assert now(pools["full",])["reached"]
    assert now(pools["full",])["places"] == 2
    assert not now(pools["empty",])["reached"]


def test_neither_the_order_of_rows_nor_the_time_of_day_matters() -> None:
    made = stream(200, 2, 0.9, 3)
    one, two = (
        capacities.system_capacity(store, Question(["b"], rate=1.0))["pools"]
        for store in (made.store(), made.store(shift_ns=86_400 * 10**9, seed=5))
    )
    assert json.loads(json.dumps(one), parse_float=lambda text: round(float(text), 6)) == json.loads(
        json.dumps(two), parse_float=lambda text: round(float(text), 6)
    )


# --- numbers of workers ------------------------------------------------------------------------


def counts(throughput: dict[int, float], jobs: int = 150) -> tuple[Made, list[str]]:
    """All jobs at once with each number of workers, one after the other; a worker takes n / X(n) a job."""
    made, bulks, begin = Made(), [], 0.0
    for n, rate in throughput.items():
        services = np.random.default_rng(n).gamma(20, n / rate / 20, jobs)
        end = made.run([begin] * jobs, services.tolist(), n, bulk=f"w{n}", first_pid=100 * n)
        bulks.append(f"w{n}")
        begin = end + 100
    return made, bulks


def test_five_numbers_of_workers_give_the_law() -> None:
    rate, sigma, kappa = 2.0, 0.05, 0.01
    made, bulks = counts({n: rate * n / (1 + sigma * (n - 1) + kappa * n * (n - 1)) for n in (1, 2, 4, 6, 8, 12)})
    (model,) = pool(made, bulks)["models"]
    law = model["scaling"]
    assert law["kind"] == "law"
    for name, truth in (("lambda_per_s", rate), ("sigma", sigma), ("kappa", kappa)):
        assert law[name]["low"] <= truth <= law[name]["high"]
    assert law["peak_places"]["value"] == pytest.approx(np.sqrt((1 - sigma) / kappa), rel=0.25)
    assert [level["places"] for level in model["levels"]] == [1, 2, 4, 6, 8, 12]


def test_fewer_give_bounds_that_hold() -> None:
    made, bulks = counts({1: 2.0, 2: 3.6, 3: 4.8})
    (model,) = pool(made, bulks)["models"]
    bounds = model["scaling"]
    assert (bounds["kind"], bounds["counts"], bounds["best_count"]) == ("bounds", [1, 2, 3], 3)
    most = {item["places"]: item["most_per_s"] for item in bounds["ceilings"]}
    assert most[6] == pytest.approx(2.0 * 6, rel=0.1)
    assert most[6] >= most[4] >= 4.8


def test_cores_bound_what_more_workers_bring() -> None:
    made, bulks = counts({1: 1.0, 2: 2.0})
    store = made.store()
    store.connection().execute(
        "UPDATE spans SET resource_id = 'r'; INSERT INTO resources VALUES ('r', '{\"bulk.worker.cpus\":3}')"
    )
    (found,) = capacities.system_capacity(store, Question(bulks))["pools"]
    (model,) = found["models"]
    most = {item["places"]: item for item in model["scaling"]["ceilings"]}
    # A job takes one CPU-second: three cores do three jobs a second, however many workers there are.
    assert model["cores"] == 3
    assert most[4]["by_cores"]
    assert most[4]["most_per_s"] == pytest.approx(3.0, rel=0.05)


def test_how_many_workers_fit() -> None:
    memory = pool(at_once(40, 2))["memory"]
    # 90 % of 2000 MiB, less 100 shared, at 200 each.
    assert memory["workers_that_fit"] == 8
    assert (memory["workers_seen"], memory["per_worker_bytes"], memory["shared_bytes"]) == (2, 200 * MIB, 100 * MIB)


def test_an_engine_in_another_process_is_no_workers_memory() -> None:
    made = at_once(40, 2)
    for row in made.rows:
        if row["kind"] == "INTERNAL":
            row["kind"] = "CLIENT"
    memory = pool(made)["memory"]
    assert (memory["workers_that_fit"], memory["per_worker_bytes"]) == (None, None), "one more worker takes none of it"


# --- waits --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("workers", "rho"), [(2, 0.7), (4, 0.5)])
def test_waits_of_a_poisson_stream_are_erlangs(workers: int, rho: float) -> None:
    found = pool(stream(3000, workers, rho, 4))
    said = found["forecast"]
    assert said["observed"]
    assert said["rate_per_s"] == pytest.approx(workers * rho, rel=0.06)
    assert [condition["holds"] for condition in said["conditions"]] == [True] * 5
    wait = said["wait"]
    assert wait["method"] == "formula"
    truth = float(queueing.wait_quantile(0.95, workers * rho, 1.0, workers))
    mean = float(queueing.mean_wait(workers * rho, 1.0, workers))
    # The rate seen is off by its own chance; at the true one the interval holds the truth.
    exact = pool(stream(3000, workers, rho, 4), rate=workers * rho)["forecast"]["wait"]
    assert exact["p95_s"]["low"] <= truth <= exact["p95_s"]["high"]
    assert exact["mean_s"]["low"] <= mean <= exact["mean_s"]["high"]


@pytest.mark.slow
def test_places_that_slow_each_other_are_in_what_another_load_brings() -> None:
    """Seen at half of what four places can do, asked for at 85 %: then they are seldom as fast as they were."""
    speeds = slowing(4, 0.3)
    arrivals, starts, ends = crowded(3000, 0.5, speeds, 1)
    made = Made()
    made.run(arrivals.tolist(), (ends - starts).tolist(), 4)
    found = pool(made, rate=3.4, slo="2s")
    said = found["forecast"]
    assert [c["name"] for c in said["conditions"] if not c["holds"]] == ["alike"]
    assert said["service_s"] == pytest.approx(1.0, rel=0.05)
    assert said["wait"]["method"] == "simulation"
    put, begun, _ = crowded(40_000, 0.85, speeds, 2)
    waited = float(np.quantile(begun - put, 0.95))
    assert said["wait"]["p95_s"]["low"] <= waited <= said["wait"]["p95_s"]["high"]
    # By the times that the jobs took at half the load:
    assert simulation.predicted_waits(3.4, ends - starts, 4).p95.high < waited
    best = found["highest_rate"]["rate_per_s"]
    for rate, kept in ((best["low"], True), (best["high"], False)):
        put, begun, _ = crowded(40_000, rate / 4, speeds, 3)
        assert (float(np.quantile(begun - put, 0.95)) <= 2.0) == kept


def crowd(jobs: int = 3000) -> tuple[Made, list[float]]:
    """Jobs on four places that slow each other, and how long each took."""
    arrivals, starts, ends = crowded(jobs, 0.6, slowing(4, 0.3), 1)
    made = Made()
    made.run(arrivals.tolist(), (ends - starts).tolist(), 4)
    return made, (ends - starts).tolist()


def alike(found: dict[str, Any]) -> str:
    (condition,) = (c for c in found["forecast"]["conditions"] if c["name"] == "alike")
    return str(condition["text"])


def test_fewer_places_than_were_seen_are_as_fast_as_so_few_were() -> None:
    made, _ = crowd()
    found = pool(made, rate=0.9, workers=1)
    assert found["forecast"]["service_s"] == pytest.approx(1 / 1.9, rel=0.1)
    assert re.findall(r"\d+", found["notes"][-1]) == ["1", "4", "4"]  # asked for, measured with, slowing seen up to


@pytest.mark.slow
def test_of_more_places_than_were_seen_only_the_best_is_known() -> None:
    made, _ = crowd()
    found = pool(made, rate=3.0, workers=8, slo="2s")
    assert "of 4, the most observed, busy" in alike(found)
    assert re.findall(r"\d+", found["notes"][-1]) == ["8", "4", "4"]
    assert found["forecast"]["wait"]["p95_s"]["high"] is None
    assert found["highest_rate"]["rate_per_s"]["low"] == 0


def test_what_is_alike_but_for_size_is_no_slowing() -> None:
    """Long jobs in bursts keep all places busy, short ones come one by one: of two models, and of unlike tokens."""
    random = np.random.default_rng(2)
    jobs = [(at, random.gamma(8, 0.5 / 8), "b") for at in np.cumsum(random.exponential(1.5, 1200)).tolist()]
    jobs += [(100 + 280 * k + 0.001 * n, random.gamma(8, 4 / 8), "a") for k in range(6) for n in range(20)]
    jobs.sort()
    for models in ([model for _, _, model in jobs], ["m"]):
        made = Made()
        made.run([at for at, _, _ in jobs], [work for _, work, _ in jobs], 2, models=models)
        if len(models) == 1:
            for row in made.rows:
                if row.get("model"):
                    row["output_tokens"] = 80 if row["end_ns"] - row["start_ns"] > 1.5e9 else 10
        assert alike(pool(made)).startswith("busy slots do not")


def test_jobs_that_fail_at_once_are_no_fast_ones() -> None:
    random = np.random.default_rng(1)
    services, bad = random.gamma(8, 1 / 8, 1000), list(range(400, 520))
    services[bad] = 0.005
    made = Made()
    made.run(np.cumsum(random.exponential(1 / 1.2, 1000)).tolist(), services.tolist(), 2, failed=bad)
    assert alike(pool(made)).startswith("busy slots do not")


def test_a_lost_span_of_an_inference_changes_little() -> None:
    made, _ = crowd()
    whole = pool(made)["forecast"]
    made.rows.remove(next(row for row in made.rows if row.get("model")))
    assert pool(made)["forecast"]["service_s"] == pytest.approx(whole["service_s"], rel=0.01)


def test_bursts_are_predicted_by_simulation() -> None:
    random = np.random.default_rng(2)
    bursts = np.cumsum(random.exponential(12.0, 120))
    arrivals = np.repeat(bursts, 8) + np.tile(np.arange(8) * 0.001, 120)
    services = random.exponential(1.0, len(arrivals))
    made = Made()
    made.run(arrivals.tolist(), services.tolist(), 2)
    said = pool(made)["forecast"]
    assert said["wait"]["method"] == "simulation"
    assert [c["name"] for c in said["conditions"] if not c["holds"]] == ["poisson"]
    measured = float(np.quantile(replay(arrivals, services, 2).waits, 0.95))
    assert said["wait"]["p95_s"]["low"] <= measured <= said["wait"]["p95_s"]["high"]
    # The formula takes a burst's jobs for independent arrivals.
    assert said["other"] is None or said["other"]["method"] == "formula"


def test_a_bulk_put_at_once_has_no_rate() -> None:
    found = pool(at_once(200, 2))
    assert found["forecast"]["rate_per_s"] is None
    assert "give an arrival rate" in found["forecast"]["problem"]
    said = pool(at_once(200, 2), rate=1.2)["forecast"]
    assert not said["observed"]
    truth = float(queueing.wait_quantile(0.95, 1.2, 1.0, 2))
    assert said["wait"]["p95_s"]["low"] <= truth <= said["wait"]["p95_s"]["high"]


def test_more_than_can_be_done_is_no_number() -> None:
    said = pool(at_once(200, 2), rate=5.0)["forecast"]
    assert said["wait"] is None
    assert "2 concurrency slots" in said["problem"]
    assert said["utilization"]["value"] > 2


def test_other_numbers_of_workers_are_an_estimate() -> None:
    two, four = (pool(at_once(300, 2), rate=1.6, workers=n) for n in (2, 4))
    assert four["forecast"]["places"] == 4
    assert four["forecast"]["wait"]["p95_s"]["high"] < two["forecast"]["wait"]["p95_s"]["low"]
    assert any("are estimates" in note for note in four["notes"])


def test_the_highest_rate_keeps_the_wait() -> None:
    rates = {}
    for slo in (1.0, 4.0):
        best = pool(at_once(300, 2), slo=f"{slo}s")["highest_rate"]
        rates[slo] = best["rate_per_s"]["value"]
        service = best["utilization"] * 2 / rates[slo]
        assert float(queueing.wait_quantile(0.95, rates[slo], service, 2)) == pytest.approx(slo, rel=0.25)
    assert rates[1.0] < rates[4.0] < 2.2


# --- what is asked ------------------------------------------------------------------------------


# --- waits over the arrival rate ---------------------------------------------------------------


def curve(made: Made, queue: str | None = None, **given: Any) -> dict[str, Any]:
    store = made.store()
    try:
        return capacities.capacity_curve(store, Question(("b",), **given), queue)
    finally:
        store.close()


def test_a_curve_says_what_the_capacity_says_and_goes_by_the_number_of_slots() -> None:
    made = stream(1500, 4, 0.7, seed=3)
    whole = pool(made, slo="6s")
    found = curve(made, slo="6s")
    assert [(each["places"], each["present"], each["asked"]) for each in found["curves"]] == [
        (3, False, False), (4, True, True), (5, False, False),
    ]  # fmt: skip
    assert {name: found["today"][name] for name in whole["forecast"]} == whole["forecast"]
    assert found["today"]["measured_wait"] == whole["measured_wait"]
    present = found["curves"][1]
    assert present["highest_rate_per_s"] == whole["highest_rate"]["rate_per_s"]
    kept = [each["highest_rate_per_s"]["value"] for each in found["curves"]]
    assert kept == sorted(kept)
    for each in found["curves"]:
        rates = [point["rate_per_s"] for point in each["points"]]
        assert len(rates) == 40
        assert rates == sorted(rates)
        assert rates[-1] == pytest.approx(0.97 * each["most_per_s"])
        p95 = [point["p95_s"]["value"] for point in each["points"]]
        assert p95 == sorted(p95)
        # Where the curve has the wait that is to be kept, the rate is the highest one.
        crossed = np.interp(6.0, p95, rates)
        assert crossed == pytest.approx(each["highest_rate_per_s"]["value"], rel=0.05)
        at_today = np.interp(found["today"]["rate_per_s"], rates, p95)
        if each["present"]:
            assert at_today == pytest.approx(found["today"]["wait"]["p95_s"]["value"], rel=0.15)
    said = capacity.curve_answer(found)
    assert said.startswith("At ")
    assert "4 concurrency slots are 66 % busy" in said
    assert "4 concurrency slots keep the p95 of the queue wait under 6 s up to" in said
    assert f"5 concurrency slots up to {wording.number(kept[2])}" in said


def test_a_curve_for_another_number_of_slots_has_that_one_too() -> None:
    found = curve(stream(600, 2, 0.6), workers=9, slo="2s")
    assert [each["places"] for each in found["curves"]] == [1, 2, 3, 9]
    assert [each["asked"] for each in found["curves"]] == [False, False, False, True]
    assert found["places"] == 2
    assert found["today"]["places"] == 9
    assert any("estimates from service times with 2" in note for note in found["notes"])


def test_more_than_can_be_done_and_bursts_are_said_in_words() -> None:
    made = stream(600, 2, 0.6)
    beyond = curve(made, rate=50.0)
    assert beyond["today"]["wait"] is None
    assert "more jobs arrive than 2 concurrency slots can do" in capacity.curve_answer(beyond)
    never = curve(made, slo="0.000001s", rate=1.9)
    assert "up to" in capacity.curve_answer(never)
    at_once_ = curve(at_once(200, 2), slo="5s")
    assert at_once_["today"]["rate_per_s"] is None
    assert all(len(each["points"]) == 40 for each in at_once_["curves"])
    assert "no steady rate; 2 concurrency slots keep" in capacity.curve_answer(at_once_)


def test_where_slots_slow_each_other_the_curve_is_coarser_and_the_rate_is_of_the_slots_asked_for() -> None:
    made, _ = crowd(1500)
    found = curve(made, slo="5s")
    assert {len(each["points"]) for each in found["curves"]} == {12}
    assert [each["target_known"] for each in found["curves"]] == [each["asked"] for each in found["curves"]]
    more = found["curves"][-1]
    assert {point["p95_s"]["high"] for point in more["points"]} == {None}, "more than were ever busy: unbounded"
    assert capacity.curve_answer(found).endswith("jobs/s.")


def test_a_curve_is_of_the_workers_of_a_queue() -> None:
    made = Made()
    for queue, seed in (("one", 1), ("two", 2)):
        random = np.random.default_rng(seed)
        arrivals = np.cumsum(random.exponential(0.9, 200))
        made.run(arrivals.tolist(), random.exponential(1.0, 200).tolist(), 2, queue=queue, first_pid=10 * seed)
    assert curve(made, "two")["queues"] == ["two"]
    assert curve(made, "two")["other_queues"] == [["one"]]
    with pytest.raises(InvalidQuery, match="no job of queue 'three' here; known queues: one, two"):
        curve(made, "three")
    with pytest.raises(InvalidQuery, match="leave the quantile out"):
        curve(made, quantile=0.9)


def test_one_job_is_no_crash() -> None:
    made = Made()
    made.run([0.0], [1.0], 1)
    found = pool(made)
    assert not now(found)["reached"]
    assert "1 job with 1 concurrency slot is too few" in pool(made, rate=0.1)["forecast"]["problem"]


def test_only_jobs_without_inference() -> None:
    made = Made()
    made.run([0.0] * 100, [0.5] * 100, 2, models=("",))
    (model,) = pool(made)["models"]
    assert model["model"] is None
    assert model["now"]["rate_per_s"]["value"] == pytest.approx(4.0, rel=0.01)


def test_one_of_two_models() -> None:
    made = Made()
    made.run([0.0] * 400, [0.5 if n % 2 == 0 else 2.0 for n in range(400)], 4, models=("short", "long"))
    found = pool(made, model="short", rate=4.0)
    assert [model["model"] for model in found["models"]] == ["short"]
    assert found["forecast"]["service_s"] == pytest.approx(0.5, rel=0.05)
    with pytest.raises(InvalidQuery, match="short"):
        pool(made, model="nobody")


def test_the_last_time_of_what_was_recorded() -> None:
    made = Made()
    end = made.run([0.0] * 100, [1.0] * 100, 2, bulk="old")
    made.run([end + 7200] * 100, [0.5] * 100, 2, bulk="new", first_pid=11)
    store = made.store()
    (recent,) = capacities.system_capacity(store, Question(last="30m"))["pools"]
    assert recent["models"][0]["now"]["service_s"] == pytest.approx(0.5)
    (old,) = capacities.system_capacity(store, Question(["old"]))["pools"]
    assert old["models"][0]["now"]["service_s"] == pytest.approx(1.0)
    # Nothing between two bulks is read, and each is told apart.
    (both,) = capacities.system_capacity(store, Question(["old", "new"]))["pools"]
    assert [bulk["id"] for bulk in both["bulks"]] == ["old", "new"]


def test_the_api_answers_and_says_what_is_wrong() -> None:
    store = at_once(60, 2).store()
    app = FastAPI()
    api.install(app, store)
    client = TestClient(app)
    good = client.get("/api/capacity", params={"bulk": ["b"], "rate": 1.0, "slo": "5s"})
    assert good.status_code == 200
    assert good.json()["schema"] == "bulkscope.capacity/1"
    assert good.json()["asked"] == {"rate_per_s": 1.0, "slo_s": 5.0, "quantile": 0.95, "model": None, "workers": None}
    unknown = client.get("/api/capacity", params={"bulk": "c"})
    assert (unknown.status_code, unknown.json()["nearest"]) == (404, ["b"])
    for query, says in (
        ({"bulk": "b", "last": "1h"}, "not both"),
        ({"last": "soon"}, "30m"),
        ({"bulk": "b", "rate": -1}, "above 0"),
        ({"bulk": "b", "quantile": 2}, "between 0 and 1"),
        ({"bulk": "b", "slo": "x"}, "30m"),
        ({"bulk": "b", "workers": 0}, "1 to 1000"),
        ({"bulk": "b", "model": "x"}, "known models: m"),
    ):
        answer = client.get("/api/capacity", params=query)
        assert answer.status_code == 400
        assert says in answer.json()["error"]
    progress = client.get("/api/capacity/progress", params={"bulk": "b"})
    assert progress.json() == {"sent": 60, "ended": 60}
    empty = TestClient(FastAPI())
    api.install(empty.app, Store(Path(":memory:")))
    assert "empty" in empty.get("/api/capacity").json()["error"]


def test_the_words_hold_the_numbers() -> None:
    made, bulks = counts({1: 1.0, 2: 2.0})
    found = capacities.system_capacity(made.store(), Question(bulks, rate=1.0, slo="5s"))
    written = io.StringIO()
    capacity.text(found, Output(file=written, width=200))
    said = written.getvalue()
    rate = found["pools"][0]["models"][0]["now"]["rate_per_s"]["value"]
    assert f"sustains {rate:.3g}" in said
    assert "Up to" in said
    assert "workers fit" in said
    marked = capacity.markdown(found)
    assert marked.startswith("# Queue q")
    assert "| w1 | 1 | at once | 150 |" in marked


@pytest.mark.parametrize(
    ("rates", "named"), [({1: 1.0, 2: 1.9, 3: 1.98}, ["3", "2", "6"]), ({1: 1.0, 2: 2.0}, ["2", "4"])]
)
def test_fewer_workers_that_do_nearly_as_much_are_named(rates: dict[int, float], named: list[str]) -> None:
    (said,) = (line for line in capacity.sentences(pool(*counts(rates))) if "measured rates" in line)
    assert re.findall(r"(\d+) concurrency slots", said) == named


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("b", "--last", "1h"), "not both"),
        (("b", "--rate", "-1"), "above 0"),
        (("b", "--restart"), "--sweep"),
        (("b", "--sweep", "x.toml"), "BULK"),
        (("--source", "elasticsearch"), ""),
    ],
)
def test_the_command_says_what_cannot_be_asked(
    words: tuple[str, ...], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    db = tmp_path / "s.duckdb"
    at_once(60, 2).store(db).close()
    assert command([*words, "--db", str(db)]) == 2
    assert says in capsys.readouterr().err


def test_the_command_reads_a_file_and_a_studio(tmp_path: Path) -> None:
    db = tmp_path / "s.duckdb"
    at_once(60, 2).store(db).close()

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(BIN / "bulkscope"), "capacity", *words, "--db", str(db)], capture_output=True, text=True, check=False
        )

    local = run("latest", "--format", "json", "--rate", "1.5", "--slo", "10s")
    assert local.returncode == 0, local.stderr
    with studio(db, "--no-host", "--retention", "10000d"):
        asked_of_studio = run("b", "--format", "json", "--rate", "1.5", "--slo", "10s")
        unknown = run("c")
    assert json.loads(asked_of_studio.stdout) == json.loads(local.stdout)
    assert unknown.returncode == 2
    assert "Nearest: b" in unknown.stderr


@pytest.mark.parametrize(("cpu", "bounded"), [(0.8, True), (0.3, False)])
def test_a_host_that_the_inferences_fill_bounds_what_more_workers_bring(cpu: float, bounded: bool) -> None:
    made, bulks = counts({1: 1.0, 2: 2.0})
    store = made.store()
    store.connection().execute(
        f"UPDATE spans SET resource_id = 'r', cpu_time = cpu_time * {cpu};"
        " INSERT INTO resources VALUES ('r', '{\"bulk.worker.cpus\":2}')"
    )
    first, last = (
        store.query(f"SELECT {which}(start_ns) AS t FROM spans WHERE bulk_id = 'w2'")["t"][0].as_py()
        for which in ("min", "max")
    )
    store.connection().execute(
        "INSERT INTO points BY NAME SELECT t AS time_ns, 'system.cpu.utilization' AS name, 'gauge' AS type,"
        " 'h' AS host_name, '{\"state\":\"user\"}' AS attributes, 0.95 AS value FROM range(?, ?, 1000000000) r(t)",
        [first, last],
    )
    (found,) = capacities.system_capacity(store, Question(bulks))["pools"]
    (model,) = found["models"]
    one, two = model["levels"]
    assert (one["host_cpu_share"], two["host_cpu_share"]) == (None, pytest.approx(0.95))
    most = {item["places"]: item for item in model["scaling"]["ceilings"]}
    # Where others fill the host, more workers may still take from them.
    by_host, by_places = two["rate_per_s"]["value"] / 0.95, 4.0
    assert most[4]["most_per_s"] == pytest.approx(by_host if bounded else by_places, rel=0.05)
    assert most[4]["by_cores"] == bounded


# --- what senders and callers get wrong ---------------------------------------------------------


@pytest.mark.parametrize("wait", [1e300, -9e9, 1e9, float("inf"), float("nan")])
@pytest.mark.parametrize("column", ["wait", "delay"])
def test_a_wait_that_no_clock_measured_changes_no_answer(wait: float, column: str) -> None:
    made = at_once(60, 2)
    store = made.store()
    try:
        connection = store.connection()
        # A retry's enqueue is told by its wait alone.
        connection.execute("UPDATE spans SET attempt = 2 WHERE span_id = 'cb-7'")
        connection.execute("UPDATE spans SET wait = NULL, delay = NULL WHERE span_id = 'cb-7'")
        without = [capacities.system_capacity(store, question) for question in (Question(["b"]), Question(last="1h"))]
        connection.execute(f"UPDATE spans SET {column} = ? WHERE span_id = 'cb-7'", [wait])
        connection.close()
        found = [capacities.system_capacity(store, question) for question in (Question(["b"]), Question(last="1h"))]
    finally:
        store.close()
    assert json.dumps(found) == json.dumps(without)


@pytest.mark.parametrize("name", ["last", "slo"])
def test_a_time_that_is_too_long_says_what_is_allowed(name: str) -> None:
    store = at_once(20, 1).store()
    app = FastAPI()
    api.install(app, store)
    try:
        with TestClient(app) as http:
            for given in ("99999999999w", "9" * 400 + "d", "10001d", "9" * 5000 + "s"):
                answer = http.get("/api/capacity", params={name: given})
                assert answer.status_code == 400, given
                assert "10000d is the most" in answer.json()["error"], given
            assert http.get("/api/capacity", params={name: "10000d"}).status_code == 200
    finally:
        store.close()


def test_cpu_time_is_the_mean_of_the_jobs_that_have_it() -> None:
    made = at_once(40, 2)
    inferences = [row for row in made.rows if row["kind"] == "INTERNAL"]
    for n, row in enumerate(inferences):
        row["cpu_time"] = None if n % 4 == 0 else 0.5
    assert now(pool(made))["cpu_s"] == pytest.approx(0.5)
    for row in inferences:
        row["cpu_time"] = None
    assert now(pool(made))["cpu_s"] is None
