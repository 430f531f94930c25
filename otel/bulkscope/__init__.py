"""Bulkscope: see where a bulk of prompts spends its time, without touching the code that runs it.

For code that no instrumentation covers there are ``enqueue``, ``dequeue`` and ``inference``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bulkscope._public import dequeue, enqueue, inference

__all__ = ["__version__", "dequeue", "enqueue", "inference"]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    # On first use: the studio and the launcher import this package too, and need none of it.
    if name in ("dequeue", "enqueue", "inference"):
        from bulkscope import _public

        return getattr(_public, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
