"""Named runs: what a comparison reads of some bulks, kept in files beside the store, which retention does not touch.

One run is one Parquet file in ``<db>.runs/``: the rows of three tables one after another, with a column ``table`` that
says which is which. No prompt and no answer is among them, since none is recorded.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from bulkscope_studio.storage import credible, storefile, views

FORMAT = "bulkscope.run/1"
MOST_NOTE = 10_000
_META = b"bulkscope.run"
_TABLE = "table"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_TABLES = ("attempts", "inferences", "requests")
# What the pages and the command line take for something else.
_TAKEN = ("latest",)


@dataclass(frozen=True, slots=True)
class Tables:
    """What is read of one or several bulks to compare them: ``queries/report_*.sql``, and a column ``bulk_id``."""

    attempts: pa.Table
    inferences: pa.Table
    requests: pa.Table


class Trouble(Exception):
    """What is wrong with a run and what to do about it."""


class Exists(Trouble):
    """There is a run of that name already."""


class Unwritable(Trouble):
    """The run cannot be written, through no fault of who asked."""


class Unknown(Trouble):
    """There is no run of that name."""


@dataclass(frozen=True, slots=True)
class Run:
    """A kept run. ``damaged`` says why it cannot be read, and then only ``name`` and ``bytes`` are known."""

    name: str
    bulks: tuple[str, ...]
    models: tuple[str, ...]
    jobs: int
    inferences: int
    kept_ns: int | None
    start_ns: int | None
    bytes: int
    damaged: str | None = None
    note: str = ""


def folder(db: Path) -> Path:
    """Return where the runs of a store are."""
    db = storefile.resolved(db)
    return db.with_name(db.name + ".runs")


def _path(db: Path, name: str) -> Path:
    if not _NAME.fullmatch(name) or name in _TAKEN:
        raise Trouble(
            f"{name!r} cannot name a run: use letters, digits, '.', '_' and '-', at most 64, a letter or digit first"
            + (f", and not {name!r}" if name in _TAKEN else "")
        )
    return folder(db) / f"{name}.parquet"


def keep(db: Path, name: str, tables: Tables, *, replace: bool = False, note: str = "") -> Run:
    """Write a run, whole or not at all. Raises ``Exists`` unless ``replace``, ``Trouble`` for a bad name."""
    path = _path(db, name)
    if path.exists() and not replace:
        raise _taken(name)
    _fits(note)
    joined, columns = [], {}
    for kind in _TABLES:
        table: pa.Table = getattr(tables, kind)
        columns[kind] = table.column_names
        joined.append(table.append_column(_TABLE, pa.array([kind] * len(table), pa.string())))
    whole = pa.concat_tables(joined, promote_options="permissive")
    attempts, inferences = tables.attempts, tables.inferences
    starts = [*attempts["enqueue_ns"].to_pylist(), *inferences["start_ns"].to_pylist()]
    jobs = set(zip(attempts["bulk_id"].to_pylist(), attempts["job_id"].to_pylist(), strict=True))
    meta = {
        "format": FORMAT,
        "columns": columns,
        "kept_ns": time.time_ns(),
        "start_ns": min((at for at in starts if at is not None), default=None),
        "bulks": list(dict.fromkeys(whole["bulk_id"].to_pylist())),
        "models": sorted(set(inferences["model"].to_pylist()) - {None}),
        "jobs": len(jobs),
        "inferences": len(inferences),
        "note": note,
    }
    whole = whole.replace_schema_metadata({_META: json.dumps(meta).encode()})
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _partial(path) as partial:
            _write(whole, partial)
            if replace:
                partial.replace(path)
            else:
                _link(partial, path)
    except OSError as error:
        raise Unwritable(f"the run {name!r} cannot be written to {path.parent}: {error}") from error
    return _run(path)


def annotate(db: Path, name: str, note: str) -> Run:
    """Change the note of a run; raises ``Unknown``, and ``Trouble`` for one that cannot be read or a note too long."""
    path = _path(db, name)
    _fits(note)
    meta = _meta(path) | {"note": note}
    try:
        whole = pq.read_table(path).replace_schema_metadata({_META: json.dumps(meta).encode()})
    except (OSError, pa.ArrowException) as error:
        raise _damaged(path, error) from error
    try:
        with _partial(path) as partial:
            _write(whole, partial)
            partial.replace(path)
    except OSError as error:
        raise Unwritable(f"the run {name!r} cannot be written to {path.parent}: {error}") from error
    return _run(path)


def _fits(note: str) -> None:
    if len(note) > MOST_NOTE:
        raise Trouble(f"a note has at most {MOST_NOTE:,} characters, and this one {len(note):,}")


def _taken(name: str) -> Exists:
    return Exists(f"there is a run {name!r} already; give another name, or replace it with --replace")


def _link(partial: Path, path: Path) -> None:
    try:
        os.link(partial, path)  # fails when somebody else was quicker, which replacing would not
    except FileExistsError as error:
        raise _taken(path.stem) from error


def _write(table: pa.Table, path: Path) -> None:
    pq.write_table(table, path, compression="zstd")
    with path.open("rb") as written:
        os.fsync(written.fileno())


@contextlib.contextmanager
def _partial(path: Path) -> Iterator[Path]:
    partial = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.partial")
    try:
        yield partial
    finally:
        partial.unlink(missing_ok=True)


def exists(db: Path, name: str) -> bool:
    """Say whether there is such a run; a text that cannot name one names none."""
    try:
        return _path(db, name).exists()
    except Trouble:
        return False


def names(db: Path) -> list[str]:
    """Return the names of all runs, sorted."""
    return sorted(path.stem for path in folder(db).glob("*.parquet") if _NAME.fullmatch(path.stem))


def every(db: Path) -> list[Run]:
    """Return all runs, the one kept last first."""
    found = []
    for name in names(db):
        path = folder(db) / f"{name}.parquet"
        try:
            found.append(_run(path))
        except Unknown:
            continue  # dropped in between
        except Trouble as trouble:
            found.append(Run(name, (), (), 0, 0, None, None, path.stat().st_size, str(trouble)))
    return sorted(found, key=lambda run: (-(run.kept_ns or 0), run.name))


def of_bulks(db: Path) -> dict[str, list[Run]]:
    """Return by the id of each kept bulk the runs that it is in, the one kept last first."""
    found: dict[str, list[Run]] = {}
    for run in every(db):
        for bulk in run.bulks:
            found.setdefault(bulk, []).append(run)
    return found


def show(db: Path, name: str) -> Run:
    """Return one run; raises ``Unknown``, or ``Trouble`` when it cannot be read."""
    return _run(_path(db, name))


def load(db: Path, name: str) -> Tables:
    """Return a run's tables; raises ``Unknown``, or ``Trouble`` when it cannot be read."""
    path = _path(db, name)
    columns = _meta(path)["columns"]
    try:
        whole = pq.read_table(path)
        kinds = whole[_TABLE].to_pylist()
        parts = {
            kind: credible.table(whole.filter(pa.array([each == kind for each in kinds])).select(columns[kind]))
            for kind in _TABLES
        }
    except FileNotFoundError as error:
        raise Unknown(f"there is no run {name!r}") from error
    except (OSError, pa.ArrowException, KeyError) as error:
        raise _damaged(path, error) from error
    if "decides" not in columns["attempts"]:  # kept by an older version
        parts["attempts"] = views.decided(parts["attempts"])
    for name, kind in (("called_off", pa.string()), ("repeated", pa.int64())):
        if name not in columns["attempts"]:  # so did it these
            parts["attempts"] = parts["attempts"].append_column(name, pa.nulls(len(parts["attempts"]), kind))
    return Tables(**parts)


def drop(db: Path, name: str) -> None:
    """Delete a run; raises ``Unknown``, and ``Unwritable`` where it cannot be."""
    path = _path(db, name)
    try:
        path.unlink()
    except FileNotFoundError as error:
        raise Unknown(f"there is no run {name!r}") from error
    except OSError as error:
        raise Unwritable(f"{path} cannot be deleted: {error.strerror}") from error


def _meta(path: Path) -> dict[str, Any]:
    try:
        raw = (pq.read_schema(path).metadata or {}).get(_META)
    except FileNotFoundError as error:
        raise Unknown(f"there is no run {path.stem!r}") from error
    except (OSError, pa.ArrowException) as error:
        raise _damaged(path, error) from error
    if raw is None:
        raise Trouble(f"{path} is no run of Bulkscope; move it away")
    found: dict[str, Any] = json.loads(raw)
    if found.get("format") != FORMAT:
        raise Trouble(
            f"the run {path.stem!r} has the format {found.get('format')!r}, and this version reads {FORMAT!r}: "
            "use the version that kept it, or keep its bulks again"
        )
    return found


def _damaged(path: Path, error: Exception) -> Trouble:
    said = str(error).splitlines()[0] if str(error) else type(error).__name__
    return Trouble(f"the run {path.stem!r} cannot be read ({said}); drop it with: bulkscope runs drop {path.stem}")


def _run(path: Path) -> Run:
    try:
        there = path.stat()
    except FileNotFoundError as error:
        raise Unknown(f"there is no run {path.stem!r}") from error
    except OSError as error:
        raise _damaged(path, error) from error
    return _read(path, there.st_size, there.st_mtime_ns, there.st_ino)


# A run is replaced by another file, and never written to. Lists of bulks name the runs of each, again and again.
@lru_cache(maxsize=1000)
def _read(path: Path, size: int, *version: int) -> Run:
    meta = _meta(path)
    return Run(
        path.stem, tuple(meta["bulks"]), tuple(meta["models"]), meta["jobs"], meta["inferences"], meta["kept_ns"],
        meta["start_ns"], size, note=meta.get("note", ""),
    )  # fmt: skip
