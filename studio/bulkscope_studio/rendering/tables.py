"""A table as a file: CSV, JSON, JSON lines, Parquet or Arrow, the same from the API and from commands."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from io import BytesIO
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from bulkscope_studio.text import wording

# By name: the media type, and whether it is binary.
FORMATS = {
    "csv": ("text/csv; charset=utf-8", False), "json": ("application/json", False),
    "jsonl": ("application/jsonl; charset=utf-8", False),
    "parquet": ("application/vnd.apache.parquet", True), "arrow": ("application/vnd.apache.arrow.stream", True),
}  # fmt: skip
_AT_A_TIME = 10_000


def written(table: pa.Table, kind: str) -> bytes:
    """Return a table in one of ``FORMATS``.

    JSON is a list of objects, in ``jsonl`` one a line. In CSV a list of texts is one text, and what else it has no cell
    for is JSON.
    """
    return _WRITERS[kind](table)


def _csv(table: pa.Table) -> bytes:
    sink = BytesIO()
    for at, field in enumerate(table.schema):
        if pa.types.is_dictionary(field.type):
            table = table.set_column(at, field.name, table[at].cast(field.type.value_type))
        elif pa.types.is_list(field.type) and pa.types.is_string(field.type.value_type):
            table = table.set_column(at, field.name, pc.binary_join(table[at], ", "))
        elif pa.types.is_nested(field.type) or pa.types.is_interval(field.type) or pa.types.is_binary(field.type):
            texts = [None if value is None else _json(value).decode() for value in table[at].to_pylist()]
            table = table.set_column(at, field.name, pa.array(texts, pa.string()))
    pyarrow.csv.write_csv(table, sink)
    return sink.getvalue()


def _lines(table: pa.Table) -> Iterator[bytes]:
    for batch in table.to_batches(_AT_A_TIME):  # rows as objects take 20 times the table's memory
        columns = [column.to_pylist() for column in batch.columns]
        names = batch.schema.names
        for values in zip(*columns, strict=True):
            yield _json(dict(zip(names, values, strict=True)))


def _rows(table: pa.Table) -> bytes:
    return b"[\n" + b",\n".join(_lines(table)) + b"\n]\n" if table.num_rows else b"[]\n"


def _jsonl(table: pa.Table) -> bytes:
    return b"".join(line + b"\n" for line in _lines(table))


def _json(value: object) -> bytes:
    return orjson.dumps(value, default=_other, option=orjson.OPT_NON_STR_KEYS)


def _other(value: object) -> Any:
    """Return what JSON has no word for as text: decimals, durations; bytes as hexadecimal digits."""
    return value.hex() if isinstance(value, bytes) else str(value)


def cells(table: pa.Table) -> Iterator[list[str]]:
    """Yield the texts of each row; what is absent is a dash."""
    columns = [column.to_pylist() for column in table.columns]
    for values in zip(*columns, strict=True):
        yield [_cell(value) for value in values]


def _cell(value: object) -> str:
    if value is None:
        return wording.ABSENT
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list | dict | bytes):
        return _json(value).decode()
    return str(value)


def _parquet(table: pa.Table) -> bytes:
    sink = BytesIO()
    pyarrow.parquet.write_table(table, sink, compression="zstd")
    return sink.getvalue()


def _arrow(table: pa.Table) -> bytes:
    sink = BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


_WRITERS: dict[str, Callable[[pa.Table], bytes]] = {
    "csv": _csv, "json": _rows, "jsonl": _jsonl, "parquet": _parquet, "arrow": _arrow,
}  # fmt: skip
