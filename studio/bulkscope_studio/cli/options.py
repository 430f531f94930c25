"""Options that several commands have."""

from __future__ import annotations

import argparse
from pathlib import Path

from bulkscope_studio.sources import resolve

LATEST = "latest"


def bulk(parser: argparse.ArgumentParser, default: str | None = LATEST) -> None:
    """Add the bulk that is asked about."""
    parser.add_argument("bulk", nargs="?", default=default, help="id of the bulk (default: latest, the newest one)")


def source(parser: argparse.ArgumentParser) -> None:
    """Add ``--source`` and ``--db``."""
    parser.add_argument(
        "--source",
        choices=resolve.SOURCES,
        default=resolve.SOURCES[0],
        help="where the bulk is stored: the studio's file, or Elasticsearch at ELASTICSEARCH_URL, asked with "
        "ELASTIC_PASSWORD or ELASTICSEARCH_API_KEY (default: studio)",
    )
    db(parser)


def db(parser: argparse.ArgumentParser, default: str | None = None) -> None:
    """Add ``--db``."""
    parser.add_argument("--db", type=Path, default=default, help="the studio's file")


def output(parser: argparse.ArgumentParser, *more: str, default: str = "text") -> None:
    """Add ``--format``, with ``more`` formats beside text and JSON."""
    parser.add_argument("--format", choices=("text", "json", *more), default=default)
