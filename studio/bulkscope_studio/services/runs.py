"""Bulks kept under a name beside the store, where the retention leaves them alone.

All raise ``InvalidQuery`` for a name that cannot be one and for a run that cannot be read, ``Unavailable`` where it
cannot be written.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from bulkscope_studio.services import bulks, sides
from bulkscope_studio.services.errors import Conflict, InvalidQuery, NotFound
from bulkscope_studio.storage import saved_runs
from bulkscope_studio.storage.saved_runs import Tables
from bulkscope_studio.storage.store import Store, Unavailable


@contextmanager
def _told(store: Store, name: str) -> Iterator[None]:
    try:
        yield
    except saved_runs.Unknown as error:
        raise NotFound(name, bulks.nearest(name, saved_runs.names(store.path)), "run") from error
    except saved_runs.Exists as error:
        raise Conflict(str(error)) from error
    except saved_runs.Unwritable as error:
        raise Unavailable(str(error)) from error
    except saved_runs.Trouble as error:
        raise InvalidQuery(str(error)) from error


def keep(store: Store, name: str, ids: Sequence[str], replace: bool, note: str = "") -> dict[str, Any]:
    """Keep bulks under a name; raises ``NotFound`` for a bulk, ``Conflict`` for a run of that name."""
    if not ids:
        raise InvalidQuery("name at least one bulk to keep")
    parts: dict[str, Tables] = {}
    for bulk in ids:
        wanted = bulks.latest(store) if bulk == "latest" else bulk
        found = sides.tables(store, wanted)
        if found is None:
            raise bulks.not_found(store, bulk)
        parts[wanted] = found
    with _told(store, name):
        return asdict(saved_runs.keep(store.path, name, sides.joined(list(parts.values())), replace=replace, note=note))


def annotate(store: Store, name: str, note: str) -> dict[str, Any]:
    """Change the note of a kept run; raises ``NotFound``."""
    with _told(store, name):
        return asdict(saved_runs.annotate(store.path, name, note))


def show(store: Store, name: str) -> dict[str, Any]:
    """Return one kept run; raises ``NotFound``."""
    with _told(store, name):
        return asdict(saved_runs.show(store.path, name))


def drop(store: Store, name: str) -> dict[str, Any]:
    """Delete a kept run; raises ``NotFound``."""
    with _told(store, name):
        saved_runs.drop(store.path, name)
    return {"dropped": name}


def every(store: Store) -> list[dict[str, Any]]:
    """Return all kept runs, the one kept last first."""
    return [asdict(run) for run in saved_runs.every(store.path)]
