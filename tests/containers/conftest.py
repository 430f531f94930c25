"""One engine and one stack for all tests of this folder, which run in one process: the stack comes up once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import parts
from tests.containers import engine, images
from tests.containers import stack as stacks
from tests.containers.stack import Stack

HERE = Path(__file__).parent


@pytest.fixture(scope="package")
def docker() -> Iterator[None]:
    """An engine with all images that cannot be had elsewhere; skips the test where no engine can run."""
    parts.demand("containers")
    if reason := engine.why_not():
        parts.cannot_be_here(reason)
    with engine.running():
        images.make()
        yield


@pytest.fixture(scope="package")
def stack(docker: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The stack with the demo, up and healthy as far as ``./run stack up`` says."""
    with stacks.up(tmp_path_factory.mktemp("stack")) as running:
        said = running.said["up"]
        assert said.code == 0, said.text[-4000:] + running.run("logs", "--tail", "30").text
        yield running


# What a module does to the stack decides when it may: the end comes last, and what asks for an untouched stack first.
ORDER = ("test_stack", "test_limits", "test_security", "test_images", "test_outages", "test_full_disk", "test_down")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    places = [at for at, item in enumerate(items) if item.path.parent == HERE]
    ours = sorted((items[at] for at in places), key=lambda item: ORDER.index(item.path.stem))
    for at, item in zip(places, ours, strict=True):
        items[at] = item
