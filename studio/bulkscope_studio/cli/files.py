"""Tables as files: the options and the way out that ``export`` and ``sql`` have."""

from __future__ import annotations

import argparse
from pathlib import Path

import pyarrow as pa

from bulkscope_studio.rendering import tables
from bulkscope_studio.rendering.output import Unreadable, deliver
from bulkscope_studio.sources.source import InvalidQuery, Trouble


def add(parser: argparse.ArgumentParser, *more: str, default: str) -> None:
    """Add ``--format``, with ``more`` formats beside those of files, and ``-o``."""
    parser.add_argument(
        "--format", choices=(*more, *tables.FORMATS), help=f"default: by the ending of FILE, else {default}"
    )
    parser.add_argument("-o", "--output", metavar="FILE", type=Path, help="write to FILE (default: standard output)")


def chosen(given: argparse.Namespace, default: str) -> str:
    """Return the format that was asked for, by its name or by the ending of the file."""
    ending = "" if given.output is None else given.output.suffix.removeprefix(".").lower()
    return str(given.format or (ending if ending in tables.FORMATS else default))


def write(found: pa.Table, kind: str, file: Path | None) -> None:
    """Write a table to a file, or to the standard output. Raises ``InvalidQuery`` and ``Trouble``."""
    _, binary = tables.FORMATS[kind]
    try:
        deliver(tables.written(found, kind), file, binary)
    except Unreadable:
        raise InvalidQuery(
            f"{kind} is binary, and this is a terminal: write it to a file with -o NAME.{kind}, send it through a "
            "pipe, or take --format csv"
        ) from None
    except BrokenPipeError:
        raise
    except OSError as error:
        raise Trouble(f"{file or 'the standard output'} cannot be written: {error.strerror or error}") from error
