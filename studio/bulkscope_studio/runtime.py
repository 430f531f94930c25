"""Where a running studio can be reached: a small file beside the store."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Runtime:
    """A running studio: its process and the addresses it listens on."""

    pid: int
    web: str
    otlp_http: str
    otlp_grpc: str


def _path(db: Path) -> Path:
    return db.with_name(db.name + ".studio.json")


def read(db: Path) -> Runtime | None:
    """Return the studio that serves ``db``, or None when none runs."""
    try:
        runtime = Runtime(**json.loads(_path(db).read_text()))
        os.kill(runtime.pid, 0)
    except PermissionError:
        return runtime  # alive, and somebody else's
    except (OSError, ValueError, TypeError):
        return None
    return runtime


def write(db: Path, runtime: Runtime) -> None:
    """Say that ``runtime`` serves ``db``."""
    partial = _path(db).with_suffix(".partial")
    partial.write_text(json.dumps(asdict(runtime)))
    partial.replace(_path(db))


def remove(db: Path) -> None:
    """Take the note away again."""
    _path(db).unlink(missing_ok=True)
