"""Celery's pools of greenlets: ``-P gevent`` and ``-P eventlet``.

Celery patches the standard library when its command begins. By then telemetry would have threads and locks of its own,
and the patched ones wait for those without ever meeting: an eventlet worker stopped, a gevent worker's metrics failed
with "Cannot switch to a different thread". Patched before, they are greenlets like the application's.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from itertools import pairwise

_POOLS = ("gevent", "eventlet")


def _worker_of_greenlets(words: Sequence[str]) -> bool:
    """Tell whether a command line is Celery's (``celery …``, ``python -m celery …``) and names a pool of greenlets."""
    names = [os.path.splitext(os.path.basename(word))[0] for word in words]
    celery = "celery" in names[:2] or ("-m", "celery") in pairwise(words)
    return celery and any(word.endswith(_POOLS) for word in words)


def patch_early(words: Sequence[str]) -> None:
    """Let Celery patch the standard library now, where the command line ``words`` asks for it; never raises.

    By its own function: it keeps what it needs unpatched, and doing it a second time changes nothing.
    """
    if not _worker_of_greenlets(words):
        return
    try:
        import_module("celery").maybe_patch_concurrency(list(words))
    except Exception as error:  # the pool's library is not installed, for one: Celery will say so
        print(f"bulkscope: the greenlets could not be set up before telemetry: {error!r}", file=sys.stderr)
