"""Bulkscope: see where a bulk of prompts spends its time, without touching the code that runs it.

For code that no instrumentation covers there are ``enqueue``, ``dequeue`` and ``inference``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bulkscope._public import dequeue, enqueue, inference

__all__ = ["__version__", "dequeue", "enqueue", "inference"]

__version__ = "0.1.0"


def resolve() -> None:
    """Import what the names above stand for.

    Set-up does, before the application runs. A look-up that imports holds a lock for a moment, and a child that is
    forked in it waits for ever at its own first look-up.
    """
    from bulkscope import _public

    for name in ("dequeue", "enqueue", "inference"):
        globals()[name] = getattr(_public, name)


def __getattr__(name: str) -> Any:
    # On first use: the studio and the launcher import this package too, and need none of it.
    if name in ("dequeue", "enqueue", "inference"):
        resolve()
        return globals()[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
