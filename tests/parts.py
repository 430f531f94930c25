"""The parts of the suite: which tests need more than this environment, and that each of them says so.

A test that starts a server of Go or Java, makes another environment, opens a browser, runs the whole demo or takes
long has the marker of it; ``./run test`` leaves these out. Folders and fixtures are marked here. What gets at such a
thing (the binaries, the environments, the browser) asks for the marker with ``demand``, so that none is forgotten.
"""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

import pytest

HERE = Path(__file__).parent
LEFT_OUT = ("engines", "compat", "browser", "demo", "containers", "slow")
# Measures the CPU or the time of its own process: what runs beside it would be measured too.
ALONE = "alone"
# Which tests ``./run test --chance`` runs; hypothesis marks its own.
CHANCE = "chance or hypothesis"
FOLDERS = {"engines": "engines", "compatibility": "compat", "containers": "containers"}
FIXTURES = {"browser": "browser", "prometheus": "engines", "old_python": "compat"}

# How the reason of a skip begins that BULKSCOPE_NO_SKIP=1 does not forbid.
_CANNOT = "this machine cannot: "

_running: list[pytest.Item] = []


def mark(items: list[pytest.Item]) -> None:
    """Give each test the markers of its folder and of its fixtures."""
    for item in items:
        if item.path.is_relative_to(HERE):
            folder = item.path.relative_to(HERE).parts[0]
            used = FIXTURES.keys() & getattr(item, "fixturenames", ())
            for marker in {FOLDERS.get(folder), *(FIXTURES[name] for name in used)} - {None}:
                item.add_marker(marker)


def begin(item: pytest.Item) -> None:
    """Say which test runs; of this process, one after the other."""
    _running[:] = [item]


def end() -> None:
    """Say that it has ended."""
    _running.clear()


def demand(marker: str) -> None:
    """Fail the running test when it has not said that it needs what ``marker`` stands for."""
    for item in _running:
        if item.get_closest_marker(marker) is None:
            pytest.fail(f"{item.nodeid} needs what ./run test leaves out: @pytest.mark.{marker} must say so")


def cannot_be_here(reason: str) -> NoReturn:
    """Skip the running test for what the machine is, and nothing that is installed on it would change."""
    pytest.skip(_CANNOT + reason)


def is_allowed(reason: str) -> bool:
    """Tell whether a test may be skipped for this also where none may be skipped."""
    return reason.removeprefix("Skipped: ").startswith(_CANNOT)
