"""The tables that a user's SQL reads (``public.sql``), made anew on the connection that runs it."""

from __future__ import annotations

import re
from importlib.resources import files

import duckdb

from bulkscope_studio.storage import views

_TEXT = files("bulkscope_studio.storage").joinpath("public.sql").read_text(encoding="utf-8")
TABLES = frozenset(re.findall(r"^CREATE TEMP VIEW (\w+)", _TEXT, re.MULTILINE))
MACROS = frozenset({"jobs", "attempts"})


def make(connection: duckdb.DuckDBPyConnection, listed: str, latest: str | None) -> None:
    """Make the views. ``listed`` are the parts of a WITH that end in ``listed`` (``summaries.listed``).

    ``latest`` is the bulk of that name.
    """
    literal = "NULL" if latest is None else "'" + latest.replace("'", "''") + "'"
    file = views.file(connection)
    # Not by `format`: a bulk's name may hold braces, and comes last.
    text = _TEXT.replace("{bulks}", views.qualified(listed, file)).replace("{file}", file).replace("{latest}", literal)
    connection.execute(text)
