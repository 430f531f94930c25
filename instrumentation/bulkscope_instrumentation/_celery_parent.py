"""What the parent of Celery's pool tells of children that cannot: they were killed, and their jobs with them.

Celery calls ``Request.on_failure`` there, for an ordinary failure as well, of which the child has told by itself.
Of solo, threads and greenlets there is nothing to tell: what ends them ends their parent too.
"""

from __future__ import annotations

import math
import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

from bulkscope._host.kernel import oom_kills
from bulkscope._host.resource import filling_slot
from bulkscope._jobs.work import Work
from bulkscope._safe import guarded

_KEPT = "_bulkscope_loss"
# Of several children that the kernel kills in a row, the first is told when all have been counted.
_SAME_KILLS_S = 1.0
# Slots of children that went are told for as long as their jobs may be: with one job a child thousands come and go.
_SLOTS = 1000


@dataclass(slots=True)
class _Loss:
    """A job whose process is gone: why, and when (ns since the epoch) its parent learnt of it.

    ``domain`` is the failure's where the error does not say it; ``again``: Celery has it done again; ``done``: it was
    done before its process went.
    """

    error: BaseException
    at_ns: int
    domain: str | None
    again: bool
    done: bool = False


class _Kinds(NamedTuple):
    wrapped: Any
    lost: Any
    gone: tuple[Any, ...]
    exits_are_told: bool


@cache
def _kinds() -> _Kinds:
    import billiard.common
    from billiard.einfo import ExceptionWithTraceback
    from celery.exceptions import Terminated, TimeLimitExceeded, WorkerLostError

    return _Kinds(
        ExceptionWithTraceback,
        WorkerLostError,
        (WorkerLostError, TimeLimitExceeded, Terminated),
        hasattr(billiard.common, "terminate_handler_fired"),
    )


def prepare() -> None:
    """Import what a loss will be held against, before there are jobs: a pool forks in any moment."""
    _kinds()


class Parent:
    """The wrappers of Celery's ``Request``. ``work`` returns the job of one."""

    def __init__(self, work: Callable[[Any], Work]) -> None:
        self._work = work
        self._kills: int | None = None
        self._kills_rose = -math.inf
        self._slots: dict[int, str] = {}  # by pid

    def create_child(self, wrapped: Callable[..., Any], instance: Any, args: Any, kwargs: Any) -> Any:
        """Wrap what starts a child of the pool: a worker is the slot, whichever child fills it."""
        index = args[0] if args else kwargs.get("i")
        if not isinstance(index, int):
            return wrapped(*args, **kwargs)
        with filling_slot(index + 1) as slot:
            child = wrapped(*args, **kwargs)
        self._note(getattr(child, "pid", None), slot)
        return child

    @guarded
    def _note(self, pid: int | None, slot: str) -> None:
        if pid is not None:
            self._slots.pop(pid, None)  # the newest last
            self._slots[pid] = slot
            while len(self._slots) > _SLOTS:
                del self._slots[next(iter(self._slots))]

    def on_failure(self, wrapped: Callable[..., Any], instance: Any, args: Any, kwargs: Any) -> Any:
        """Wrap what Celery calls when an attempt has failed, or its process is gone."""
        loss = self._loss(instance, *args, **kwargs)
        try:
            return wrapped(*args, **kwargs)
        finally:
            if loss is not None:
                self._tell(instance, loss)

    @guarded
    def _loss(
        self, request: Any, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False
    ) -> _Loss | None:
        """Return what has befallen the process of a job; None where the process has told of it by itself."""
        if return_ok:
            return None
        kinds, error = _kinds(), exc_info.exception
        if isinstance(error, kinds.wrapped):
            error = error.exc
        # A job that exits (SystemExit) ends its span, and then its process: billiard before 4.3 calls that lost.
        if not isinstance(error, kinds.gone) or ("exitcode" in str(error) and not kinds.exits_are_told):
            return None
        if request.time_start is None or request.worker_pid in (None, os.getpid()):
            return None  # no child had it
        domain = "resource" if isinstance(error, kinds.lost) and self._killed_for_memory(error) else None
        # Cancelled for want of a connection, or with its worker: if the broker has the message still, the next gets it.
        again = bool(getattr(request, "_already_cancelled", False)) and not request.acknowledged
        loss = vars(request)[_KEPT] = _Loss(error, time.time_ns(), domain, again)
        return loss

    @guarded
    def _tell(self, request: Any, loss: _Loss) -> None:
        vars(request).pop(_KEPT, None)
        if not loss.done:
            self._work(request).tell(
                loss.error,
                pid=request.worker_pid,
                slot=self._slots.get(request.worker_pid),
                started_ns=int(request.time_start * 1e9),
                ended_ns=loss.at_ns,
                attempt=(request.request_dict.get("retries") or 0) + 1,
                domain=loss.domain,
                retry=loss.again,
            )

    def _killed_for_memory(self, error: BaseException) -> bool:
        """Tell whether the kernel has killed a process for memory, and a kill it was that this one went by."""
        risen = self.kills_have_risen()
        by = re.search(r"signal (\d+)", str(error))
        return bool(risen) and (by is None or by[1] == "9")

    @guarded
    def kills_have_risen(self, **_: Any) -> bool:
        """Tell whether the kernel has killed processes for memory since this was last asked, or just before that."""
        before, self._kills = self._kills, oom_kills()
        if before is not None and self._kills is not None and self._kills > before:
            self._kills_rose = time.monotonic()
        return time.monotonic() - self._kills_rose < _SAME_KILLS_S


def _noted(request: Any) -> _Loss | None:
    found = vars(request).get(_KEPT)
    return found if isinstance(found, _Loss) else None


def reject(wrapped: Callable[..., Any], instance: Any, args: Any, kwargs: Any) -> Any:
    """Wrap what gives a message back to the broker, which may hand it out again."""
    loss = _noted(instance)
    if loss is not None and not instance.acknowledged:
        loss.again = bool(kwargs.get("requeue", args[0] if args else False))
    return wrapped(*args, **kwargs)


def success_was_stored(wrapped: Callable[..., Any], instance: Any, args: Any, kwargs: Any) -> Any:
    """Wrap Celery's question whether a job whose process is gone had been done."""
    found, loss = wrapped(*args, **kwargs), _noted(instance)
    if loss is not None:
        loss.done = bool(found)
    return found


def retry_worker_lost(wrapped: Callable[..., Any], instance: Any, args: Any, kwargs: Any) -> Any:
    """Wrap what publishes a job whose process is gone once more."""
    found, loss = wrapped(*args, **kwargs), _noted(instance)
    if loss is not None:
        loss.again = bool(found)
    return found
