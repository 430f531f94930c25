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


def report(where: str) -> None:
    """Log the exception being handled: the first time at a place as a warning, then at debug level.

    A fault in a hot path would otherwise write a traceback for every request. A time limit that struck while
    our code ran is not ours and passes on: the signal comes once, and the job would go on without a limit.
    """
    error = sys.exc_info()[1]
    if error is not None and _TIME_LIMITS.intersection(kind.__name__ for kind in type(error).__mro__):
        raise error
    level = logging.DEBUG if where in _reported else logging.WARNING
    _reported.add(where)
    logger.log(
        level,
        "Bulkscope could not record telemetry in %s; the application is not affected",
        where,
        exc_info=True,
    )


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
