"""What a recorded number can be. Beyond it nothing can have measured it: to every reader such a number is absent.

The decoder leaves its column empty, and readers check again: stores of before hold such numbers, and so does
Elasticsearch. The bounds are wide on purpose: 30 years of seconds, 2^40 tokens, 2^53 bytes (the last integer that a
double holds exactly). Sums of 10^6 of them fit 64 bits, and seconds as nanoseconds, added to a time of today, do too.
"""

from __future__ import annotations

import re

import pyarrow as pa
import pyarrow.compute as pc

Range = tuple[float, float]

SECONDS: Range = (0.0, 999_999_999.0)
TOKENS: Range = (0, 2**40)
BYTES: Range = (0, 2**53)
# Of cores that are counted apart from the time, and of counters that are not read in one moment.
SHARE: Range = (-0.1, 1.1)
CORES: Range = (1e-3, 1e6)
_RATE: Range = (0.0, 1e12)
_UTILIZATION: Range = (0.0, 1e3)
ANY: Range = (-1e18, 1e18)

SPANS: dict[str, Range] = {
    "bulk_size": (0, 10**9), "batch_size": (1, 10**9), "enqueue_duration": SECONDS, "http_status": (0, 999),
    # A skewed clock makes a wait negative, which is told, not hidden.
    "wait": (-SECONDS[1], SECONDS[1]), "delay": SECONDS, "import_time": SECONDS, "expires": SECONDS,
    "attempt": (0, 10**6), "wait_ratio": (-1e9, 1e9),
    "input_tokens": TOKENS, "output_tokens": TOKENS, "cached_tokens": TOKENS,
    "ttft": SECONDS, "prefill": SECONDS, "decode": SECONDS,
    "cpu_time": SECONDS, "cpu_utilization": _UTILIZATION, "cpu_pressure": _UTILIZATION, "cpu_throttled": SECONDS,
    "cpu_wait": SECONDS,
    "memory_start": BYTES, "memory_peak": BYTES, "memory_growth": (-BYTES[1], BYTES[1]), "memory_file": BYTES,
    "memory_anon": BYTES, "memory_limit": BYTES,
    "tokens_per_second": _RATE, "decode_tokens_per_second": _RATE,
}  # fmt: skip
# The points that are shares; the value of any other is in ``ANY``.
SHARES = (
    "system.cpu.utilization", "system.memory.utilization", "bulk.system.pressure", "bulk.worker.memory.utilization",
)  # fmt: skip


def numbers(column: pa.ChunkedArray, bounds: Range) -> pa.ChunkedArray:
    """Return a column of numbers with those out of bounds absent, NaN too."""
    low, high = bounds
    inside = pc.and_(pc.greater_equal(column, low), pc.less_equal(column, high))
    return pc.if_else(inside, column, pa.scalar(None, column.type))


def table(found: pa.Table) -> pa.Table:
    """Return a table of what queries have read with its numbers credible, the cores of the workers among them."""
    bounds = SPANS | {"cpus": CORES}
    for index, field in enumerate(found.schema):
        if field.name in bounds and (pa.types.is_integer(field.type) or pa.types.is_floating(field.type)):
            found = found.set_column(index, field.name, numbers(found[field.name], bounds[field.name]))
    return found


def _within(expression: str, bounds: Range) -> str:
    """Return SQL for the number where it is within; NaN, which DuckDB sorts after all others, is not."""
    low, high = bounds
    return f"CASE WHEN {expression} BETWEEN {low!r} AND {high!r} THEN {expression} END"


_WORKER = "rules.worker_name(worker, host_name, pid, service_instance_id, service_name)"


def macros() -> str:
    """Return SQL of macros: ``rules.credible_COLUMN(x)`` for each number of a span and for the cores of a worker, and
    ``rules.credible_point(name, value)``."""
    shares = ", ".join(f"'{name}'" for name in SHARES)
    point = f"CASE WHEN name IN ({shares}) THEN {_within('value', SHARE)} ELSE {_within('value', ANY)} END"
    return f"CREATE OR REPLACE MACRO rules.credible_point(name, value) AS {point};\n" + "".join(
        f"CREATE OR REPLACE MACRO rules.credible_{name}(x) AS {_within('x', bounds)};\n"
        for name, bounds in (SPANS | {"cpus": CORES}).items()
    )


def _replaced(columns: dict[str, str], named: set[str]) -> str:
    known = [f"{expression} AS {name}" for name, expression in columns.items() if name in named]
    return f" REPLACE ({', '.join(known)})" if known else ""


def _spans(named: set[str]) -> str:
    return _replaced({"worker": _WORKER} | {name: _within(name, bounds) for name, bounds in SPANS.items()}, named)


def _logs(named: set[str]) -> str:
    return _replaced({"worker": _WORKER}, named)


def _points(named: set[str]) -> str:
    return _replaced({"worker": _WORKER, "value": "rules.credible_point(name, value)"}, named)


def reading(text: str) -> str:
    """Return a query in which the tables hold credible numbers alone, and each row the name of its worker.

    A view of each table stands before it, under the table's name. It has the columns that the text names, of which
    DuckDB reads what is asked for: all of them cost 8 ms of CPU a query to bind, the few that are named 1 ms.
    """
    named = set(re.findall(r"\w+", text))
    views = [
        f"{table} AS NOT MATERIALIZED (SELECT *{columns} FROM rules.recorded_{table})"
        for table, columns in (("spans", _spans(named)), ("logs", _logs(named)), ("points", _points(named)))
        if table in named and columns
    ]
    if not views:
        return text
    start = _HEAD.match(text)
    body = text[start.end() if start is not None else 0 :]
    if SAMPLE in body and views[0].startswith(
        "spans "
    ):  # of the table's blocks, which a sample of the view would all read
        body, views[0] = body.replace(SAMPLE, ""), views[0].replace("rules.recorded_spans", f"main.spans {SAMPLE}")
    rest = body.removeprefix("WITH ")
    return f"WITH {', '.join(views)}{',' if rest != body else ''}\n{rest}"


# Where a query says that a sample of the blocks of spans may do.
SAMPLE = "/*sample*/"
# Comments and space before the first word.
_HEAD = re.compile(r"(?:\s|--[^\n]*\n)*")
