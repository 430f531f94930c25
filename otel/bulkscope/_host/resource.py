"""What every record says about the process it came from."""

from __future__ import annotations

import os
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import unquote

from bulkscope import conventions as c
from bulkscope._host.proc import Proc

# The process that bears an instance id which the user gave, as it is; inherited by forks and by processes it starts.
_BEARER = "BULKSCOPE_INSTANCE_PID"
# The slot of a pool that a process fills: a variable, because some pools fork and some start an interpreter anew.
_SLOT = "BULKSCOPE_WORKER_SLOT"
# The process that has taken its slot out of the variable, and the slot: what a job starts must not find it there.
_filled: tuple[int, str] | None = None


def _given() -> dict[str, str]:
    """Return the resource attributes that the user set, as the SDK reads them."""
    pairs = (pair.partition("=") for pair in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "").split(","))
    return {name.strip(): unquote(value.strip()) for name, _, value in pairs}


def _instance_id() -> str:
    """Return an id that no other process has: a fresh one each call, or the user's.

    Forks, and workers that a server starts, inherit the user's: theirs end in their process id.
    """
    given = _given().get(c.SERVICE_INSTANCE_ID)
    if not given:
        return str(uuid.uuid4())
    pid = str(os.getpid())
    return given if os.environ.setdefault(_BEARER, pid) == pid else f"{given}-{pid}"


@contextmanager
def filling_slot(number: int) -> Iterator[str]:
    """Have the process that is started inside fill slot ``number`` (from 1 up) of this one's pool; yield its name.

    What an operator calls a worker lives on while the processes that do its jobs come and go.
    """
    before, name = os.environ.get(_SLOT), f"{os.getpid()}#{number}"
    os.environ[_SLOT] = name
    try:
        yield name
    finally:
        if before is None:
            os.environ.pop(_SLOT, None)
        else:
            os.environ[_SLOT] = before


def process_attributes() -> dict[str, Any]:
    """Return what differs between a process and its forks: instance id, pid, and the slot that it fills in a pool."""
    found = {c.SERVICE_INSTANCE_ID: _instance_id(), c.PROCESS_PID: os.getpid()}
    slot = _slot()
    return found if slot is None else found | {c.WORKER_SLOT: slot}


def _slot() -> str | None:
    """Return the slot that this process fills, or None; the first call takes it, for this process alone."""
    global _filled
    pid = os.getpid()
    given = os.environ.get(_SLOT)
    if given is not None and not given.startswith(f"{pid}#"):  # this one's own pool is about to start another
        del os.environ[_SLOT]
        _filled = (pid, given)
    return _filled[1] if _filled is not None and _filled[0] == pid else None


def attributes(proc: Proc | None = None) -> dict[str, Any]:
    """Return the resource attributes that Bulkscope adds; what cannot be read, or is set by the user, is left out.

    ``bulk.worker.cpus`` is in cores (a quota makes it a fraction), ``bulk.worker.cpu.set`` names them, and
    ``bulk.worker.memory.limit`` is in bytes.
    """
    proc = proc or Proc()
    found = {
        c.HOST_NAME: socket.gethostname(),
        c.CONTAINER_ID: proc.container_id(),
        c.WORKER_CPUS: proc.allowed_cores(),
        c.WORKER_CPU_SET: proc.allowed_cpus(),
        c.WORKER_MEMORY_LIMIT: proc.memory_limit(),
    }
    # In a container the user may know better than the kernel: the host's name there is the container's id.
    given = _given()
    return process_attributes() | {
        name: value for name, value in found.items() if value is not None and name not in given
    }
