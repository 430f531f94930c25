"""For all tests: telemetry in memory, markers by ``parts``; with BULKSCOPE_NO_SKIP=1 what could run is not skipped."""

from __future__ import annotations

import os
from collections.abc import Generator
from typing import TYPE_CHECKING, Any

import pytest

from tests import groups, parts

if TYPE_CHECKING:
    from tests.telemetry import Telemetry


@pytest.fixture
def telemetry() -> Telemetry:
    """What is recorded in this process during the test."""
    from tests import telemetry as recording  # whoever needs none of it does not wait for OpenTelemetry

    recorded = recording.telemetry()
    recorded.clear()
    return recorded


def pytest_configure(config: pytest.Config) -> None:
    groups.begin(config)


def pytest_unconfigure(config: pytest.Config) -> None:
    groups.end(config)


@pytest.hookimpl(tryfirst=True)  # before any is left out by its markers
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    parts.mark(items)
    groups.write(config, items)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    return groups.scheduler(config, log) if config.getoption("dist") == "loadgroup" else None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    parts.begin(item)
    try:
        return (yield)
    finally:
        parts.end()


def _refuse(report: pytest.TestReport | pytest.CollectReport) -> None:
    if not report.skipped or hasattr(report, "wasxfail") or os.environ.get("BULKSCOPE_NO_SKIP") != "1":
        return
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    if parts.is_allowed(reason):
        return
    report.outcome = "failed"
    report.longrepr = f"{report.nodeid} would be skipped, and BULKSCOPE_NO_SKIP=1 forbids it: {reason}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    _refuse(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    _refuse(report)
    return report
