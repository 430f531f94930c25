"""Where a running studio can be reached: a small file beside the store, which the studio holds for as long as it lives.

A studio that was killed leaves the file, but not the lock on it. Its process id would prove nothing: another process
may have it by then, after a start of the machine or in a container almost surely.
"""

from __future__ import annotations

import fcntl
import json
import os
import urllib.parse
from dataclasses import asdict, dataclass, field
from pathlib import Path

from bulkscope_studio.storage import storefile

# A note has some 150 bytes.
_MOST = 4096
# The notes that this process holds, by their paths.
_held: dict[Path, int] = {}


@dataclass(frozen=True, slots=True)
class Runtime:
    """A running studio: its process, the addresses it listens on, and the token that it asks commands for, if any."""

    pid: int
    web: str
    otlp_http: str
    otlp_grpc: str
    token: str = field(default="", repr=False)


def _path(db: Path) -> Path:
    db = storefile.resolved(db)
    return db.with_name(db.name + ".studio.json")


def read(db: Path) -> Runtime | None:
    """Return the studio that serves ``db``, or None when none runs; by whatever links ``db`` leads to the store."""
    try:
        note = os.open(_path(db), os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        return _read(os.read(note, _MOST)) if _is_held(note) else None
    except OSError:  # a folder, or on a file system that has no locks
        return None
    finally:
        os.close(note)


def _is_held(note: int) -> bool:
    try:
        fcntl.flock(note, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False


def _read(text: bytes) -> Runtime | None:
    try:
        found = Runtime(**json.loads(text))
        web = urllib.parse.urlsplit(found.web)
    except (ValueError, TypeError, AttributeError, RecursionError):
        return None
    return found if isinstance(found.pid, int) and web.scheme == "http" and web.hostname else None


def write(db: Path, runtime: Runtime) -> None:
    """Say that ``runtime`` serves ``db``, until ``remove`` or the end of this process. Raises ``OSError``."""
    path = _path(db)
    partial = path.with_suffix(".partial")
    note = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        fcntl.flock(note, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.write(note, json.dumps(asdict(runtime)).encode())
        partial.replace(path)
    except BaseException:
        os.close(note)
        partial.unlink(missing_ok=True)
        raise
    _held[path] = note


def remove(db: Path) -> None:
    """Take the note of this process away again."""
    path = _path(db)
    note = _held.pop(path, None)
    if note is not None:
        path.unlink(missing_ok=True)
        os.close(note)
