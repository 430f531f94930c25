"""Tests for which one thing is set up, a module's servers or a folder's, run in one process of pytest-xdist.

So do those that open a browser and those that start containers, whose networks come and go: at each, Chromium drops
every request that it has under way (``net::ERR_NETWORK_CHANGED``, in four of a run's tests).

Its own groups are of no effect from pytest 9.2 on, which no longer reads the ids that xdist 3.8 marks them in. So each
process writes down the groups of what it has collected, and the scheduler of them all reads that.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest

# The folder of the processes' files; they inherit it from who starts them.
FOLDER = "BULKSCOPE_TEST_GROUPS"
# Markers of tests that are never side by side.
APART = ("browser", "containers")


def of(item: pytest.Item) -> str:
    """Return the name of a test's group; its own id where it shares nothing."""
    if any(item.get_closest_marker(marker) for marker in APART):
        return "-".join(APART)
    fixtures = item._fixtureinfo.name2fixturedefs if isinstance(item, pytest.Function) else {}
    for definitions in fixtures.values():
        if definitions[-1].scope == "package":
            return definitions[-1].baseid
    # Those of the session each process makes for itself; those without a place are pytest's and its plugins'.
    shared = [name for name in sorted(fixtures) if fixtures[name][-1].scope == "module" and fixtures[name][-1].baseid]
    if not shared:
        return item.nodeid
    indices = item.callspec.indices if hasattr(item, "callspec") else {}
    return "-".join([item.nodeid.partition("::")[0], *(f"{name}{indices[name]}" for name in shared if name in indices)])


def begin(config: pytest.Config) -> None:
    """Make the folder, in the process that will start others."""
    if config.getoption("numprocesses", None):
        os.environ[FOLDER] = tempfile.mkdtemp()


def end(config: pytest.Config) -> None:
    """Remove the folder where it was made."""
    if config.getoption("numprocesses", None) and FOLDER in os.environ:
        shutil.rmtree(os.environ.pop(FOLDER), ignore_errors=True)


def write(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Write down the groups of a process's tests."""
    if hasattr(config, "workerinput"):
        found = {item.nodeid: of(item) for item in items}
        (Path(os.environ[FOLDER]) / config.workerinput["workerid"]).write_text(json.dumps(found))


def scheduler(config: pytest.Config, log: Any) -> Any:
    """Return xdist's scheduler of groups, with ours."""
    from xdist.scheduler import LoadScopeScheduling  # not in the environments with other versions

    groups: dict[str, str] = {}

    class Scheduling(LoadScopeScheduling):  # type: ignore[misc, unused-ignore]
        def add_node_collection(self, node: Any, collection: list[str]) -> None:
            groups.update(json.loads((Path(os.environ[FOLDER]) / node.gateway.id).read_text()))
            super().add_node_collection(node, collection)

        def _split_scope(self, nodeid: str) -> str:
            return groups[nodeid]

    return Scheduling(config, log)
