"""Which source the options of a command name: a running studio, its file when none runs, or Elasticsearch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from bulkscope_studio.sources.elasticsearch import ElasticsearchSource
from bulkscope_studio.sources.file import FileSource
from bulkscope_studio.sources.source import Source
from bulkscope_studio.sources.studio import StudioSource
from bulkscope_studio.storage import address
from bulkscope_studio.storage.paths import default_db

Warn = Callable[[str], None]
SOURCES = ("studio", "elasticsearch")


class Options(Protocol):
    """``source`` is one of ``SOURCES``, ``db`` the studio's file or None for the usual one."""

    source: str
    db: Path | None


def place(db: Path | None) -> Path:
    """Return the studio's file, where none is named the usual one."""
    return db or default_db()


@contextmanager
def open(options: Options, warn: Warn) -> Iterator[Source]:
    """Give the source that the options name; ``warn`` is told what an answer does not say. Raises ``Trouble``."""
    if options.source == "elasticsearch":
        with ElasticsearchSource.open() as elastic:
            yield elastic
        return
    with running(options.db, warn) as studio:
        if studio is not None:
            yield studio
            return
    with FileSource.open(place(options.db)) as file:
        yield file


@contextmanager
def running(db: Path | None, warn: Warn) -> Iterator[StudioSource | None]:
    """Give the studio that runs on a file; None where none does."""
    note = address.read(place(db))
    if note is None:
        yield None
        return
    with StudioSource.open(place(db), note, warn) as studio:
        yield studio
