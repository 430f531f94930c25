"""Bulkscope: see where a bulk of prompts spends its time, without touching the code that runs it.

For code that no instrumentation covers there are ``enqueue``, ``dequeue`` and ``inference``.
"""

from __future__ import annotations

import _thread
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bulkscope._public import dequeue, enqueue, inference

__all__ = ["__version__", "dequeue", "enqueue", "inference"]

__version__ = "0.1.0"

# Most seconds that a fork waits for another thread's import; it takes 0.2 s.
_FORK_WAITS_S = 5.0
# Not one of ``threading``: eventlet complains of a reentrant lock that was there before it patched.
_importing = _thread.allocate_lock()
_waited: set[int] = set()  # threads that hold it while they fork


def resolve() -> None:
    """Import what the names above stand for.

    Set-up does, before the application runs. Without set-up the first look-up does, and a fork in another thread waits
    until it is over: a child that is forked in an import inherits the module's lock, and waits for ever at its own
    first look-up (1 of 500 forks beside four threads).
    """
    with _importing:
        from bulkscope import _public

        for name in ("dequeue", "enqueue", "inference"):
            globals()[name] = getattr(_public, name)


def _before_fork() -> None:
    if _importing.acquire(timeout=_FORK_WAITS_S):
        _waited.add(_thread.get_ident())


def _after_fork() -> None:
    if _thread.get_ident() in _waited:
        _waited.discard(_thread.get_ident())
        _importing.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)


def __getattr__(name: str) -> Any:
    # On first use: the studio and the launcher import this package too, and need none of it.
    if name in ("dequeue", "enqueue", "inference"):
        resolve()
        return globals()[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
