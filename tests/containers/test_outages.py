"""Each container killed, restarted and upgraded while spans and points come in: nothing acknowledged is missing."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.containers import bulks, engine, images
from tests.containers.bulks import MODELS, PROMPTS, eventually
from tests.containers.load import Load, under_load
from tests.containers.stack import Stack

pytestmark = pytest.mark.timeout(1800)

BACKENDS = ("elasticsearch", "prometheus", "collector")
OTHERS = ("kibana", "node-exporter", "api", "worker")


@pytest.fixture(scope="module")
def load(stack: Stack) -> Iterator[Load]:
    with under_load(stack, "outages") as running:
        yield running


def healthy(stack: Stack, name: str) -> Any:
    container = stack.containers()[name]
    state = container["State"]
    return state["Running"] and state.get("Health", {}).get("Status", "healthy") == "healthy" and container


def kill(stack: Stack, *names: str) -> None:
    """As the kernel does: a kill by Docker would count as an operator's wish, and no restart would follow."""
    before = stack.containers()
    for name in names:
        os.kill(before[name]["State"]["Pid"], 9)

    def again(name: str) -> Any:
        container = healthy(stack, name)
        return container and container["RestartCount"] > before[name]["RestartCount"]

    for name in names:
        eventually(lambda name=name: again(name))


def test_killed_services_come_back_and_the_bulk_of_the_moment_is_whole(stack: Stack, load: Load) -> None:
    bulks.send(stack, "through-kills", MODELS[0], PROMPTS * 4)
    for name in BACKENDS:
        kill(stack, name)
    assert bulks.done(stack, "through-kills")["done"] == 4 * len(PROMPTS)
    eventually(lambda: stack.report("through-kills")["total"]["inferences"]["count"] == 4 * len(PROMPTS))


def test_the_other_services_come_back_as_well(stack: Stack, load: Load) -> None:
    kill(stack, *OTHERS)
    bulks.send(stack, "after-kills", MODELS[1])
    assert bulks.done(stack, "after-kills")["done"] == len(PROMPTS)


def test_restarted_and_upgraded_under_load(stack: Stack, load: Load) -> None:
    names = stack.containers()
    engine.docker("restart", *(names[name]["Id"] for name in BACKENDS))
    eventually(lambda: all(healthy(stack, name) for name in BACKENDS))
    before = {name: names[name]["Image"] for name in (*BACKENDS, "kibana", "valkey", "node-exporter")}
    tags = {name: images.pinned()[name] for name in before}
    try:
        # Another image under the same name, as a newer build of one is; also after a run that was ended just here.
        label = f"upgraded={time.time_ns()}"
        for tag in tags.values():
            engine.docker("build", "--tag", tag, "--label", label, "-", text=f"FROM {tag}\n")
        said = stack.run("up", "--demo", name="upgrade")
    finally:
        for name, tag in tags.items():
            engine.docker("tag", before[name], tag)
    assert said.code == 0, said.text
    after = {name: one["Image"] for name, one in stack.containers().items()}
    assert [name for name in before if after[name] == before[name]] == []
    assert [name for name in before if not healthy(stack, name)] == []


def test_nothing_that_was_acknowledged_is_missing(stack: Stack, load: Load) -> None:
    assert load.refused > 0, "the Collector was away for a while, so some tries were refused"
    assert len(load.spans) > 1000
    spans, points = set(load.spans), set(load.points)
    eventually(lambda: not load.missing_spans() & spans)
    eventually(lambda: not load.missing_points() & points)
