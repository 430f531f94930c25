"""What must not change an explanation does not, what must does, and parts add up to their wholes."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from tests.rows import BEGIN_NS
from tests.simulator.scenarios import Scenario, scenarios
from tests.studio.explaining import Job, Tables, explain, ns, silly, simulated, sums, table, written

# Of every verdict one, and what is special: another bulk, retries, kills, two hosts, two models, delays, lost spans.
NAMES = (
    "unfit/mix/bandwidth", "unfit/skew/-2/0.6", "failure/retried/3", "failure/killed/often", "overload/refused/503/2.5",
    "memory/killed/once/4/5.0/3.0", "cpu/hosts/2", "bandwidth/other/4/1.7", "contention/lock/history/4/0.5/decode",
    "headroom/mixed", "headroom/models", "headroom/delayed",
)  # fmt: skip
TIMES = ("start_ns", "end_ns", "time_ns", "observed_ns")
DURATIONS = ("wait", "delay", "ttft", "prefill", "decode", "cpu_time", "cpu_throttled", "cpu_wait", "enqueue_duration")


@cache
def known() -> dict[str, Scenario]:
    return {scenario.name: scenario for scenario in scenarios()}


@cache
def whole(name: str) -> tuple[Tables, float, dict[str, Any]]:
    tables, now = simulated(known()[name])
    return tables, now, explain(tables, known()[name].bulk, now)


def text(found: dict[str, Any]) -> str:
    return json.dumps(found, ensure_ascii=False, allow_nan=False)


def changed(tables: Tables, columns: Iterable[str], change: Callable[[pa.ChunkedArray], pa.Array]) -> Tables:
    made = dict(tables)
    for name, content in tables.items():
        for column in columns:
            if column in content.column_names:
                values = change(content[column])
                content = content.set_column(content.column_names.index(column), column, values)
        made[name] = content
    return made


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", NAMES)
def test_the_same_data_give_the_same_text_in_whatever_order_they_came(name: str, seed: int) -> None:
    tables, now, found = whole(name)
    order = np.random.default_rng(seed)
    mixed = {key: content.take(order.permutation(len(content))) for key, content in tables.items()}
    assert text(explain(mixed, known()[name].bulk, now)) == text(found)


@pytest.mark.parametrize("seconds", [-12_345.678_901_234, pytest.param(86_400 * 37, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", NAMES)
def test_nothing_hangs_on_the_time_of_day(name: str, seconds: float) -> None:
    tables, now, found = whole(name)
    by = round(seconds * 1e9)
    later = changed(tables, TIMES, lambda column: pc.add(column, by))
    assert text(explain(later, known()[name].bulk, now + by / 1e9)) == text(found)


@pytest.mark.parametrize("name", NAMES)
def test_new_names_change_names_only(name: str) -> None:
    tables, now, found = whole(name)
    bulk = known()[name].bulk
    columns = ("bulk_id", "job_id", "host_name", "model", "service_instance_id", "resource_id", "trace_id")
    old: set[str] = set()
    for content in tables.values():
        for column in columns:
            if column in content.column_names:
                old |= set(pc.drop_null(pc.unique(content[column])).to_pylist())
    # In another order than before, so that nothing hangs on which name comes first.
    new = {each: f"N{number:06d}" for number, each in enumerate(sorted(old, reverse=True))}

    def rename(column: pa.ChunkedArray) -> pa.Array:
        return pa.array([None if each is None else new[each] for each in column.to_pylist()], pa.string())

    renamed = explain(changed(tables, columns, rename), new[bulk], now)
    # The ids of these scenarios' bulks are words of the texts too.
    bulks = set(tables["spans"]["bulk_id"].to_pylist())
    parts = re.compile("|".join(re.escape(each) for each in sorted(old - bulks, key=len, reverse=True)))
    expected = json.loads(parts.sub(lambda hit: new[hit[0]], text(found)))
    assert renamed.pop("id") == new[bulk]
    assert expected.pop("id") == bulk
    assert text(renamed).replace(f"/bulk/{new[bulk]}", f"/bulk/{bulk}") == text(expected)


def doubled(tables: Tables) -> Tables:
    """Let everything take twice as long, from the beginning on."""
    longer = changed(tables, TIMES, lambda column: pc.add(pc.multiply(pc.subtract(column, BEGIN_NS), 2), BEGIN_NS))
    return changed(longer, DURATIONS, lambda column: pc.multiply(column, 2))


SECONDS = ("time_s", "makespan", "wait", "path")


@pytest.mark.parametrize("name", ["headroom/mixed", "headroom/delayed", "failure/retried/3", "cpu/hosts/2"])
def test_twice_as_long_is_twice_the_seconds(name: str) -> None:
    tables, now, found = whole(name)
    longer = explain(doubled(tables), known()[name].bulk, 2 * now)
    for part in SECONDS:
        for key, value in found[part].items():
            if value is None or isinstance(value, int | str) or key == "ratio":
                assert longer[part][key] == pytest.approx(value), (part, key)
            else:
                assert longer[part][key] == pytest.approx(2 * value, abs=1e-6), (part, key)
    for key in ("own_s", "others_s", "dispatch_s", "capacity_s"):
        assert longer["workers"][key] == pytest.approx(2 * found["workers"][key], abs=1e-6)


def split(tables: Tables, seed: int) -> Tables:
    """Give every second job, by chance, to a bulk "b"; each bulk has a request of its own at the same time."""
    chance = random.Random(seed)
    jobs = sorted(set(pc.drop_null(tables["spans"]["job_id"]).to_pylist()))
    theirs = {job for job in jobs if chance.random() < 0.5}

    def divide(content: pa.Table) -> pa.Table:
        bulks = [
            "b" if job in theirs else bulk
            for job, bulk in zip(content["job_id"].to_pylist(), content["bulk_id"].to_pylist(), strict=True)
        ]
        return content.set_column(content.column_names.index("bulk_id"), "bulk_id", pa.array(bulks, pa.string()))

    asked = tables["spans"].filter(pc.equal(tables["spans"]["kind"], "SERVER")).to_pylist()
    rest = divide(tables["spans"].filter(pc.not_equal(tables["spans"]["kind"], "SERVER")))
    both = [row | {"bulk_size": len(jobs) - len(theirs)} for row in asked]
    both += [row | {"bulk_id": "b", "bulk_size": len(theirs), "span_id": f"b{row['span_id'][1:]}"} for row in asked]
    return tables | {"spans": pa.concat_tables([rest, table("spans", both)]), "logs": divide(tables["logs"])}


@pytest.mark.parametrize("name", ["headroom/once/4/60", "headroom/once/2/240", "headroom/lengths/join"])
@pytest.mark.parametrize("seed", [1, 2])
def test_two_interleaved_bulks_see_each_other_as_others(name: str, seed: int) -> None:
    tables, now, one = whole(name)
    parts = split(tables, seed)
    a, b = (explain(parts, bulk, now) for bulk in ("bulk", "b"))
    for key in ("delay", "prefill", "decode", "inference_rest", "other_work", "work", "wait_dispatch", "wait_absent"):
        assert a["time_s"][key] + b["time_s"][key] == pytest.approx(one["time_s"][key], abs=1e-3), key
    waited = [found["time_s"]["wait_own"] + found["time_s"]["wait_others"] for found in (a, b)]
    assert sum(waited) == pytest.approx(one["time_s"]["wait_own"], abs=1e-3)
    assert one["time_s"]["wait_others"] == one["workers"]["others_s"] == 0
    assert min(found["time_s"]["wait_others"] for found in (a, b)) > 0
    assert a["workers"]["own_s"] + b["workers"]["own_s"] == pytest.approx(one["workers"]["own_s"])
    last = max((a, b), key=lambda found: found["makespan"]["measured"])
    # The one that ends last was there as long as the whole: for it the other's seconds are the rest of it.
    assert last["workers"]["own_s"] + last["workers"]["others_s"] == pytest.approx(one["workers"]["own_s"], abs=1e-2)
    assert last["path"]["length"] == pytest.approx(one["path"]["length"])
    work = last["path"]["work_own"] + last["path"]["work_others"]
    assert work == pytest.approx(one["path"]["work_own"], abs=1e-2)
    assert last["path"]["jobs"] == one["path"]["jobs"]
    assert {found["verdict"]["code"] for found in (a, b, one)} == {"at_capacity_workers"}
    assert not [wrong for found in (a, b) for wrong in sums(found) + silly(found)]


def test_times_are_told_apart_to_the_nanosecond() -> None:
    """Seconds since 1970 in a double are known to 0.2 µs only; the difference of times is taken before."""
    jobs = [Job("a", 1.0, 1.0, 2.0), Job("b", 1.0, 2.0, 3.0)]
    tables = written(jobs)
    shifted = changed(tables, ("end_ns",), lambda column: pc.add(column, 1))
    before, after = explain(tables)["time_s"]["work"], explain(shifted)["time_s"]["work"]
    assert after - before == pytest.approx(2e-9, abs=1e-12)
    assert ns(1.0) + 1 == BEGIN_NS + 10**9 + 1
