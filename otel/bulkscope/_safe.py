"""Telemetry never breaks the application that carries it: errors of ours end here."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

logger = logging.getLogger("bulkscope")
_reported: set[str] = set()


def report(where: str) -> None:
    """Log the exception being handled: the first time at a place as a warning, then at debug level.

    A fault in a hot path would otherwise write a traceback for every request.
    """
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
