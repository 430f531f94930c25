"""Telemetry never breaks the application that carries it: errors of ours end here."""

from __future__ import annotations

import functools
import logging
import sys
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

logger = logging.getLogger("bulkscope")
_reported: set[str] = set()

# What libraries raise from a signal handler, wherever the main thread is: Celery's, RQ's, Huey's.
_TIME_LIMITS = frozenset(("SoftTimeLimitExceeded", "BaseTimeoutException", "TaskTimeout"))


def _is_time_limit(error: BaseException | None) -> bool:
    return error is not None and not _TIME_LIMITS.isdisjoint(kind.__name__ for kind in type(error).__mro__)


def report(where: str) -> None:
    """Log the exception being handled: the first time at a place as a warning, then at debug level.

    A fault in a hot path would otherwise write a traceback for every request. A time limit that struck while
    our code ran is not ours and passes on: the signal comes once, and the job would go on without a limit.
    """
    error = sys.exc_info()[1]
    if error is not None and _is_time_limit(error):
        raise error
    log_once(
        where,
        "Bulkscope could not record telemetry in %s; the application is not affected",
        where,
        exc_info=True,
    )


def log(level: int, message: str, *arguments: object, exc_info: bool = False) -> None:
    """Log as Bulkscope; what the application's handlers and filters raise at it ends here, but for a time limit."""
    try:
        logger.log(level, message, *arguments, exc_info=exc_info)
    except Exception as error:
        if _is_time_limit(error):
            raise


def log_once(where: str, message: str, *arguments: object, exc_info: bool = False) -> None:
    """Log a warning the first time at a place, then at debug level."""
    level = logging.DEBUG if where in _reported else logging.WARNING
    _reported.add(where)
    log(level, message, *arguments, exc_info=exc_info)


def guarded(function: Callable[P, R]) -> Callable[P, R | None]:
    """Return ``function`` with every ``Exception`` reported instead of raised (``None`` is returned then)."""

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R | None:
        try:
            return function(*args, **kwargs)
        except Exception:
            report(f"{function.__module__}.{function.__qualname__}")
            return None

    return call


class _Once(logging.Filter):
    """Lets a logger say each of its messages once, whatever is filled in."""

    def __init__(self) -> None:
        super().__init__()
        self._said: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        """Tell whether the record is the first of its message."""
        new = str(record.msg) not in self._said
        self._said.add(str(record.msg))
        return new


def say_once(name: str) -> None:
    """Let the logger ``name`` say each of its messages once.

    For one that quotes what whoever sends a request has sent, with each request.
    """
    logging.getLogger(name).addFilter(_Once())
