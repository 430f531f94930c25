"""The store's file before anything is read from it: what may be opened, and with what DuckDB is allowed to do."""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Mapping
from pathlib import Path

import duckdb

# DuckDB calls a file by its name without the ending, and the database of views beside it so (`views.py`).
RULES = "rules"
MEMORY = ":memory:"
# Nothing leaves the machine and no code is loaded: without these a SQLite file lets DuckDB download an extension.
_CLOSED: Mapping[str, str] = {
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "allow_community_extensions": "false",
    "allow_persistent_secrets": "false",
}
# No SQL of ours names a file, so none may be opened but the store, its log and what DuckDB spills beside it. One in
# memory is told where to spill when it is open, which this forbids.
# No statement may change a setting.
_NO_FILES: Mapping[str, str] = {"enable_external_access": "false", "lock_configuration": "true"}
# What the tables of a store have had since the first version; DuckDB may have others of the same name.
_COLUMNS: Mapping[str, frozenset[str]] = {
    "resources": frozenset({"resource_id", "attributes"}),
    "spans": frozenset({"trace_id", "span_id", "start_ns", "end_ns", "resource_id", "bulk_id", "job_id", "attributes"}),
    "logs": frozenset({"time_ns", "trace_id", "span_id", "event_name", "body", "resource_id", "attributes"}),
    "points": frozenset({"time_ns", "name", "type", "resource_id", "attributes", "value"}),
    "ingest": frozenset({"time_ns", "signal", "transport", "outcome", "reason", "records"}),
}
# DuckDB's file: a header of 4 KiB with its magic at byte 8, then two of the database, of which the one with the higher
# iteration holds; blocks begin behind them.
_MAGIC_AT, _HEADER, _BLOCKS_AT = 8, 4096, 3 * 4096
_ITERATION, _BLOCKS = struct.Struct("<8xQ"), struct.Struct("<32xQQ")
_OTHERS = ((b"SQLite format 3\0", "a SQLite database"), (b"PAR1", "a Parquet file"), (b"\x1f\x8b", "a gzip file"))
_KINDS = (
    (stat.S_ISDIR, "a folder; name a file in it"), (stat.S_ISFIFO, "a pipe"), (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"), (stat.S_ISBLK, "a device"),
)  # fmt: skip


class Unfit(Exception):
    """The file cannot be a store; the message says why, to be put behind its name."""


def resolved(path: Path) -> Path:
    """Return the file itself where ``path`` leads to it by links: what stands beside it is found by every name."""
    return path if str(path) == MEMORY else Path(os.path.realpath(path))


def connect(path: Path, *, read_only: bool, config: Mapping[str, object]) -> duckdb.DuckDBPyConnection:
    """Open a store, and make the file and its folder (for this user alone) where they are missing and may be written.

    Raises ``Unfit`` for what is no store or is cut short, and otherwise as ``duckdb.connect``. A file that is not a
    store of ours is not altered.
    """
    if str(path) != MEMORY:
        if not read_only and not path.is_symlink():  # where a link leads may be a disk that is not mounted
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = resolved(path)
        if path.stem.lower() == RULES:
            raise Unfit(f"the name {path.stem} is taken by the rules that are read beside a store; rename it")
        short = _look(path)
    if str(path) == MEMORY:
        return duckdb.connect(MEMORY, config={**config, **_CLOSED})
    connection = duckdb.connect(str(path), read_only=read_only, config={**config, **_CLOSED, **_NO_FILES})
    try:
        _refuse_foreign(connection)
        if short:
            _refuse_cut(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection


def _look(path: Path) -> bool:
    """Raise ``Unfit`` for what DuckDB should not be given; say whether the file is shorter than its header has it."""
    try:
        mode = path.stat().st_mode
        for is_kind, name in _KINDS:
            if is_kind(mode):
                raise Unfit(f"it is {name}")
        with path.open("rb") as file:
            return _short(file.read(_BLOCKS_AT), file.fileno())
    except FileNotFoundError:
        return False
    except OSError as error:
        raise Unfit(error.strerror or str(error)) from error


def _short(head: bytes, descriptor: int) -> bool:
    if not head:
        raise Unfit("it is empty; delete it, and the studio makes it anew")
    for magic, name in _OTHERS:
        if head.startswith(magic):
            raise Unfit(f"it is {name}")
    if head[_MAGIC_AT : _MAGIC_AT + 4] != b"DUCK":
        raise Unfit("it is no database of DuckDB")
    if len(head) < _BLOCKS_AT:
        raise _cut(len(head), _BLOCKS_AT)
    return os.fstat(descriptor).st_size < _BLOCKS_AT + _wanted(head)


def _wanted(head: bytes) -> int:
    """Return the bytes of all blocks that the header counts."""
    newest = max(_HEADER, 2 * _HEADER, key=lambda at: int(_ITERATION.unpack_from(head, at)[0]))
    count, size = _BLOCKS.unpack_from(head, newest)
    return int(count) * int(size)


def _cut(has: int, needs: int) -> Unfit:
    return Unfit(
        f"it is cut short: it has {has} bytes, and what it holds needs {needs} at least; put a whole copy in its "
        "place, or move it away and begin a new one"
    )


def _refuse_cut(connection: duckdb.DuckDBPyConnection, path: Path) -> None:
    """Raise ``Unfit`` when blocks that are in use lie behind the file's end.

    A file that is shorter than its header counts may be whole: DuckDB cuts free blocks off after it has written it.
    """
    try:
        sizes = connection.execute(
            "SELECT block_size, total_blocks, free_blocks FROM pragma_database_size()"
            " WHERE database_name = current_database()"
        )
        block_size, total, free = (int(size) for size in sizes.fetchall()[0])
        there = (path.stat().st_size - _BLOCKS_AT) // block_size
        last = max([-1, *_blocks(connection)])
    except duckdb.Error as error:  # blocks that tell where the others are
        raise Unfit(f"it is cut short or damaged ({str(error).splitlines()[0]})") from error
    needed = max(last + 1, there + (total - there - free))
    if needed > there:
        raise _cut(path.stat().st_size, _BLOCKS_AT + needed * block_size)


def _blocks(connection: duckdb.DuckDBPyConnection) -> list[int]:
    """Return the last block of each table, and of what is known of the tables."""
    found = [row[0] for row in connection.execute("SELECT max(block_id) FROM pragma_metadata_info()").fetchall()]
    for name in _tables(connection):
        found += (
            connection.execute(
                "SELECT greatest(max(block_id), max(list_max(additional_block_ids))) FROM pragma_storage_info($name)",
                {"name": name},
            ).fetchone()
            or ()
        )
    return [int(block) for block in found if block is not None]


def _tables(connection: duckdb.DuckDBPyConnection) -> dict[str, set[str]]:
    """Return the columns of each table and view."""
    tables: dict[str, set[str]] = {}
    rows = connection.execute(
        "SELECT table_name, column_name FROM duckdb_columns() WHERE NOT internal AND database_name = current_database()"
    ).fetchall()
    for table, column in rows:
        tables.setdefault(table, set()).add(column)
    return tables


def _refuse_foreign(connection: duckdb.DuckDBPyConnection) -> None:
    """Raise ``Unfit`` for a database with tables that are not a store's; one without any is a store that begins."""
    tables = _tables(connection)
    if not tables:
        return
    strange = [name for name, columns in _COLUMNS.items() if name in tables and not columns <= tables[name]]
    if strange or "resources" not in tables:  # the first that a store makes
        raise Unfit(f"it is a DuckDB database of something else (tables: {', '.join(sorted(tables)[:5])})")
