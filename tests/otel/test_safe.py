"""What telemetry raises, or its log lines make the application's handlers raise, does not reach the application."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from bulkscope import _safe


class SoftTimeLimitExceeded(Exception):
    """As the one of billiard: its name is what tells."""


class Raising(logging.Filter):
    """A filter of an application that does not work."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self._error = error

    def filter(self, record: logging.LogRecord) -> bool:
        raise self._error


@pytest.fixture
def raising(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(_safe, "_reported", set())  # what was said before is not said at this level
    broken = Raising(request.param)
    logging.getLogger("bulkscope").addFilter(broken)
    yield
    logging.getLogger("bulkscope").removeFilter(broken)


@_safe.guarded
def fails() -> None:
    raise ValueError("ours")


@pytest.mark.parametrize("raising", [KeyError("a filter"), RecursionError()], indirect=True, ids=repr)
def test_an_applications_filter_that_raises_at_our_line(raising: None) -> None:
    assert fails() is None
    _safe.log_once("somewhere", "a line")
    _safe.log(logging.WARNING, "a line")


@pytest.mark.parametrize("raising", [SoftTimeLimitExceeded()], indirect=True, ids=repr)
def test_a_time_limit_that_strikes_while_we_log_passes_on(raising: None) -> None:
    with pytest.raises(SoftTimeLimitExceeded):
        fails()


def test_a_time_limit_that_strikes_in_our_code_passes_on() -> None:
    @_safe.guarded
    def struck() -> None:
        raise SoftTimeLimitExceeded

    with pytest.raises(SoftTimeLimitExceeded):
        struck()
