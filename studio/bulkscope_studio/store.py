"""The DuckDB file: who may open it, and how it is read."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path

import duckdb
import pyarrow as pa

SCHEMA = files("bulkscope_studio").joinpath("schema.sql").read_text()


class StoreLocked(Exception):
    """Another process holds the file; ``holder`` says which, as far as it is known."""

    def __init__(self, path: Path, holder: str) -> None:
        super().__init__(f"{path} is held by {holder}")
        self.holder = holder


class Store:
    """One open store. ``memory_limit`` bounds DuckDB's own memory; ``threads`` its worker threads."""

    def __init__(self, path: Path, *, read_only: bool = False, memory_limit: str = "160MB", threads: int = 2) -> None:
        self.path = path
        if not read_only:
            path.parent.mkdir(parents=True, exist_ok=True)
        config = {"memory_limit": memory_limit, "threads": threads, "preserve_insertion_order": "false"}
        try:
            self._connection = duckdb.connect(str(path), read_only=read_only, config=config)
        except duckdb.IOException as error:
            if "lock" not in str(error).lower():
                raise
            found = re.search(r"PID (\d+)", str(error))
            raise StoreLocked(path, f"process {found[1]}" if found else "another process") from error
        if not read_only:
            self._connection.execute(SCHEMA)

    def connection(self) -> duckdb.DuckDBPyConnection:
        """Return a new cursor, to be used by one thread."""
        return self._connection.cursor()

    def query(self, sql: str, params: Mapping[str, object] | None = None) -> pa.Table:
        """Return the result of a SELECT with named parameters (``$name``); safe from any thread."""
        cursor = self._connection.cursor()
        try:
            # As a relation: the result of `execute` is copied once more on its way to Arrow, and warns of it.
            return cursor.sql(sql, params=dict(params) if params else None).to_arrow_table()
        finally:
            cursor.close()

    def close(self) -> None:
        """Close the file; a read-write one is checkpointed by DuckDB."""
        self._connection.close()
