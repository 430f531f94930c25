"""The tables of ``schema.sql`` as the receiver fills them: columns, their types, the attributes that have one.

A number has a column only where it is credible (``credible.py``). Beyond it the column is NULL, and the value stays
among the attributes as it came.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from bulkscope import conventions as c
from bulkscope_studio.storage import credible

TYPES = {"s": pa.string(), "i": pa.int64(), "n": pa.int32(), "d": pa.float64(), "b": pa.bool_(),
         "D": pa.list_(pa.float64()), "I": pa.list_(pa.int64())}  # fmt: skip


def _columns(text: str) -> list[tuple[str, str]]:
    return [(name, kind) for name, _, kind in (word.partition(":") for word in text.split())]


SPANS = _columns(
    "trace_id:s span_id:s parent_span_id:s name:s kind:s start_ns:i end_ns:i status:s status_message:s scope:s "
    "resource_id:s service_name:s service_instance_id:s host_name:s pid:i bulk_id:s bulk_id_source:s job_id:s "
    "bulk_size:i outcome:s failure_domain:s error_type:s enqueue_duration:d http_route:s http_method:s "
    "http_status:n queue:s task:s wait:d delay:d attempt:n wait_ratio:d model:s provider:s input_tokens:i "
    "output_tokens:i cached_tokens:i ttft:d prefill:d decode:d cpu_time:d cpu_utilization:d cpu_exact:b "
    "cpu_pressure:d cpu_throttled:d memory_start:i memory_peak:i memory_growth:i memory_file:i memory_anon:i "
    "memory_limit:i memory_exact:b tokens_per_second:d decode_tokens_per_second:d attributes:s events:s links:s "
    "dropped:i cpu_wait:d worker:s import_time:d batch_size:i expires:d parent_bulk_id:s"
)
LOGS = _columns(
    "time_ns:i observed_ns:i trace_id:s span_id:s severity_number:n severity:s event_name:s body:s scope:s "
    "resource_id:s service_name:s service_instance_id:s host_name:s pid:i bulk_id:s job_id:s attributes:s dropped:i "
    "worker:s"
)
POINTS = _columns(
    "time_ns:i start_ns:i name:s unit:s type:s temporality:s monotonic:b scope:s resource_id:s service_name:s "
    "service_instance_id:s host_name:s pid:i attributes:s value:d count:i sum:d min:d max:d bounds:D buckets:I "
    "detail:s worker:s"
)
RESOURCES = _columns("resource_id:s attributes:s")
INGEST = _columns("time_ns:i signal:s transport:s outcome:s reason:s records:i")
TABLES = {"spans": SPANS, "logs": LOGS, "points": POINTS, "resources": RESOURCES, "ingest": INGEST}

SPAN_ATTRIBUTES = {
    c.BULK_ID: "bulk_id", c.BULK_ID_SOURCE: "bulk_id_source", c.JOB_ID: "job_id", c.BULK_SIZE: "bulk_size",
    c.BULK_OUTCOME: "outcome", c.BULK_FAILURE_DOMAIN: "failure_domain", c.ERROR_TYPE: "error_type",
    c.BULK_ENQUEUE_DURATION: "enqueue_duration", c.HTTP_ROUTE: "http_route", c.HTTP_REQUEST_METHOD: "http_method",
    c.HTTP_RESPONSE_STATUS_CODE: "http_status", c.MESSAGING_DESTINATION: "queue", c.TASK_NAME: "task",
    c.TIME_IN_QUEUE: "wait", c.JOB_DELAY: "delay", c.JOB_IMPORT: "import_time", c.JOB_ATTEMPT: "attempt",
    c.JOB_WAIT_RATIO: "wait_ratio", c.JOB_EXPIRES: "expires", c.BULK_PARENT_ID: "parent_bulk_id",
    c.GEN_AI_MODEL: "model", c.GEN_AI_PROVIDER: "provider", c.GEN_AI_INPUT_TOKENS: "input_tokens",
    c.GEN_AI_OUTPUT_TOKENS: "output_tokens", c.GEN_AI_CACHED_TOKENS: "cached_tokens", c.GEN_AI_TTFT: "ttft",
    c.GEN_AI_PREFILL: "prefill", c.GEN_AI_DECODE: "decode", c.CPU_TIME: "cpu_time",
    c.CPU_UTILIZATION: "cpu_utilization", c.CPU_EXACT: "cpu_exact", c.CPU_PRESSURE: "cpu_pressure",
    c.CPU_THROTTLED: "cpu_throttled", c.CPU_WAIT: "cpu_wait",
    c.MEMORY_START: "memory_start", c.MEMORY_PEAK: "memory_peak",
    c.MEMORY_GROWTH: "memory_growth", c.MEMORY_FILE: "memory_file", c.MEMORY_ANON: "memory_anon",
    c.MEMORY_LIMIT: "memory_limit", c.MEMORY_EXACT: "memory_exact", c.TOKENS_PER_SECOND: "tokens_per_second",
    c.BATCH_SIZE: "batch_size", c.DECODE_TOKENS_PER_SECOND: "decode_tokens_per_second",
}  # fmt: skip
LOG_ATTRIBUTES = {c.BULK_ID: "bulk_id", c.JOB_ID: "job_id"}
# Services number their bulks, and their own spans say so: 7 is the bulk that our headers call "7".
IDS = frozenset((c.BULK_ID, c.JOB_ID, c.BULK_PARENT_ID))

_RANGES: dict[str, credible.Range] = {**credible.SPANS, "pid": (0, 2**32)}
OUT_OF_RANGE = "number out of range"


@dataclass(frozen=True, slots=True)
class Place:
    """The column of an attribute: its name and kind (``s i n d b``), and the numbers that it takes."""

    column: str
    kind: str
    low: float = -math.inf
    high: float = math.inf


def _places(columns: list[tuple[str, str]], names: dict[str, str]) -> dict[str, Place]:
    kinds = dict(columns)
    return {key: Place(name, kinds[name], *_RANGES.get(name, ())) for key, name in names.items()}


SPAN_PLACES = _places(SPANS, SPAN_ATTRIBUTES)
# A parent tells of a job whose process was killed: its span says whose work it was.
JOB_PID = _places(SPANS, {c.PROCESS_PID: "pid"})[c.PROCESS_PID]


def to_arrow(table: str, rows: list[list[Any]]) -> pa.Table:
    """Return rows of ``table``, each a list in the order of its columns, as an Arrow table."""
    columns = TABLES[table]
    arrays = [pa.array(values, TYPES[kind]) for (_, kind), values in zip(columns, zip(*rows, strict=True), strict=True)]
    return pa.table(arrays, names=[name for name, _ in columns])
