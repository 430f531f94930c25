"""The gauges of the overview, against a plain reading of the same points."""

from __future__ import annotations

import json
import random
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from bulkscope_studio.storage.store import Store
from tests import chance, rows
from tests.rows import BEGIN_NS
from tests.studio import odd

QUEUES, HOSTS = ("a", "b"), ("h1", "h2")
NAMES = {
    "depth": "bulk.queue.depth", "age": "bulk.queue.oldest_age", "busy": "bulk.worker.busy",
    "cpu": "system.cpu.utilization", "ram": "system.memory.utilization", "psi": "bulk.system.pressure",
}  # fmt: skip


def point(rolled: random.Random) -> dict[str, Any]:
    """Return a point as some process reports it; of the states that count and of others."""
    series = rolled.choice(list(NAMES))
    attributes: dict[str, str] = {}
    if series in ("depth", "age"):
        attributes = {"messaging.destination.name": rolled.choice(QUEUES)}
    elif series == "cpu":
        attributes = {"state": rolled.choice(["idle", "user"])}
    elif series == "ram":
        attributes = {"state": rolled.choice(["used", "free"])}
    elif series == "psi":
        attributes = {"level": rolled.choice(["some", "full"]), "resource": rolled.choice(["cpu", "io"])}
    text = json.dumps(attributes, sort_keys=True, separators=rolled.choice([(",", ":"), (", ", ": ")]))
    # A number that nothing can have measured is absent.
    value = rolled.choice([rolled.random(), rolled.random(), 1e300])
    return {
        "time_ns": BEGIN_NS + rolled.randrange(10 * odd.SECOND), "name": NAMES[series], "type": "gauge", "value": value,
        "resource_id": rolled.choice(HOSTS), "attributes": text if attributes else None,
    }  # fmt: skip


def read(points: list[dict[str, Any]], bin_ns: int) -> dict[tuple[int, str], float | None]:
    """Return the value of each series in each bin, one step after the other."""
    wanted = {"cpu": {"state": "idle"}, "ram": {"state": "used"}, "psi": {"level": "some", "resource": "cpu"}}
    each: dict[tuple[int, str], dict[Any, list[float]]] = defaultdict(lambda: defaultdict(list))
    for one in points:
        series = next(key for key, name in NAMES.items() if name == one["name"])
        attributes = json.loads(one["attributes"] or "{}")
        if series in wanted and attributes != wanted[series]:
            continue
        of = one["attributes"] if series in ("depth", "age") else (one["resource_id"], one["attributes"])
        found = each[one["time_ns"] // bin_ns * bin_ns // 10**6, series][of]
        if one["value"] < 1e18:
            found.append(1 - one["value"] if series == "cpu" else one["value"])
    made: dict[tuple[int, str], float | None] = {}
    for key, by in each.items():
        means = [sum(values) / len(values) for values in by.values() if values]
        how = {"depth": sum, "busy": sum, "age": max}.get(key[1], lambda values: sum(values) / len(values))
        made[key] = how(means) if means else None
    return made


@pytest.mark.chance
@pytest.mark.parametrize("seed", range(4 * chance.TIMES))
def test_gauges_are_what_a_plain_reading_gives(seed: int, tmp_path: Path) -> None:
    rolled = chance.rng(seed)
    points = [point(rolled) for _ in range(600)]
    bin_ns = (1, 2, 3, 60)[seed % 4] * odd.SECOND
    store = Store(tmp_path / "s.duckdb")
    connection = store.connection()
    rows.insert(connection, {"points": rows.table("points", points)})
    connection.close()
    given = {"from_ns": BEGIN_NS, "to_ns": BEGIN_NS + 10 * odd.SECOND, "bin_ns": bin_ns}
    found = {(row["t_ms"], row["series"]): row["value"] for row in odd.page(store, "points", given)}
    store.close()
    wanted = read(points, bin_ns)
    assert found.keys() == wanted.keys()
    assert {key for _, key in found} == set(NAMES)
    for key, value in wanted.items():
        assert found[key] == (None if value is None else pytest.approx(value, abs=1e-9)), key
