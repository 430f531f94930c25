"""The end of the stack: data is kept unless somebody says otherwise, and then all of it goes."""

from __future__ import annotations

from typing import Any

import pytest

from tests.containers import bulks, engine
from tests.containers.bulks import MODELS, PROMPTS, eventually
from tests.containers.stack import Stack

pytestmark = pytest.mark.timeout(1800)


def volumes() -> set[str]:
    return set(
        engine.docker("volume", "ls", "--quiet", "--filter", "label=com.docker.compose.project=bulkscope").split()
    )


def test_down_asks_before_it_deletes_and_keeps_all_otherwise(stack: Stack) -> None:
    bulks.send(stack, "kept", MODELS[0])
    assert bulks.done(stack, "kept")["done"] == len(PROMPTS)

    def whole() -> Any:
        found = stack.report("kept")
        return found["complete"] and found["total"]["inferences"]["count"] == len(PROMPTS) and found

    before = eventually(whole)
    made = set(stack.compose()["volumes"])
    assert {name.removeprefix("bulkscope_") for name in volumes()} == made
    said = stack.run("down", "--volumes", answer="no\n", name="asked")
    assert said.code == 1
    assert "Nothing was stopped or deleted." in said.text
    ended = {name for name, one in stack.containers().items() if not one["State"]["Running"]}
    assert ended == {"setup", "setup-kibana"}

    assert stack.run("down").code == 0
    assert stack.containers() == {}
    assert {name.removeprefix("bulkscope_") for name in volumes()} == made
    said = stack.run("up", "--demo", name="up again")
    assert said.code == 0, said.text
    after = eventually(lambda: stack.report("kept"))
    # A host's sample of the bulk's time may have come after the first report.
    assert {name: after[name] for name in after if name != "hosts"} == {
        name: before[name] for name in before if name != "hosts"
    }


def test_down_with_volumes_leaves_nothing(stack: Stack) -> None:
    said = stack.run("down", "--volumes", "--yes", name="deleted")
    assert said.code == 0, said.text
    assert stack.containers() == {}
    assert volumes() == set()
    networks = engine.docker("network", "ls", "--format", "{{.Name}}").split()
    assert set(networks) == {"bridge", "host", "none"}
