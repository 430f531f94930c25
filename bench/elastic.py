"""What ``bulkscope report``, ``explain`` and ``capacity`` cost on a large bulk, read from Elasticsearch.

    python bench/elastic.py [--jobs N] [--beside N]

The documents are those of the tests' sample, spans and log records as the Collector's would be stored, in a real engine
with the field types of OpenTelemetry's data streams: one bulk of ``--jobs`` jobs, three spans and two log records each,
and another of ``--beside`` before it, which a report must not read. Each command is a process of its own, imports
included. CPU counts all its threads, the peak is its resident memory; beside it is the CPU that the engine took for it.
Needs ``./run engines``.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from bulkscope import conventions as c  # noqa: E402
from bulkscope_studio.storage.store import Store  # noqa: E402
from bulkscope_studio.storage.tables import LOG_ATTRIBUTES, SPAN_ATTRIBUTES  # noqa: E402
from tests import rows  # noqa: E402
from tests.engines import servers, templates  # noqa: E402
from tests.processes import BIN  # noqa: E402
from tests.studio import sample  # noqa: E402

TRACES, LOGS = "traces-generic.otel-default", "logs-generic.otel-default"
BATCH = 5000
COMMANDS = ("report", "explain", "capacity")
TICKS = os.sysconf("SC_CLK_TCK")


def _attributes(row: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    return {name: row[column] for name, column in names.items() if row[column] is not None}


def _span(row: dict[str, Any]) -> dict[str, Any]:
    status = {"status": {"code": "Error"}} if row["status"] == "ERROR" else {}
    return {
        "@timestamp": row["start_ns"] // 10**6, "duration": row["end_ns"] - row["start_ns"],
        "kind": row["kind"].capitalize(), "attributes": _attributes(row, SPAN_ATTRIBUTES), **status,
    }  # fmt: skip


def _log(row: dict[str, Any]) -> dict[str, Any]:
    event = {"event_name": row["event_name"]} if row["event_name"] else {}
    attributes = _attributes(row, LOG_ATTRIBUTES) | ({c.JOB_ATTEMPT: 1} if event else {})
    return {
        "@timestamp": f"{row['time_ns'] // 10**6}.{row['time_ns'] % 10**6:06d}", "severity_text": row["severity"],
        "body": {"text": row["body"]}, "attributes": attributes, **event,
    }  # fmt: skip


def documents(store: Store) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (data stream, document) of each span and log record of a store."""
    found = store.query("SELECT resource_id, attributes FROM resources").to_pylist()
    resources = {row["resource_id"]: {"attributes": json.loads(row["attributes"])} for row in found}
    kept = ("trace_id", "span_id", "parent_span_id", "name")
    for table, stream, made in (("spans", TRACES, _span), ("logs", LOGS, _log)):
        cursor = store.connection()
        for batch in cursor.sql(f"SELECT * FROM {table}").to_arrow_reader(BATCH):
            for row in batch.to_pylist():
                same = {name: row[name] for name in kept if row.get(name) is not None}
                where = {"resource": resources[row["resource_id"]], "scope": {"name": row["scope"]}}
                yield stream, made(row) | same | where


def load(url: str, store: Store) -> int:
    """Store every span and log record; returns how many."""
    number, lines = 0, []
    for stream, document in documents(store):
        lines += [b'{"create":{"_index":"%s"}}' % stream.encode(), orjson.dumps(document)]
        number += 1
        if len(lines) >= 2 * BATCH:
            _send(url, lines)
            lines = []
    if lines:
        _send(url, lines)
    servers.ask("POST", f"{url}/*/_refresh")
    return number


def _send(url: str, lines: list[bytes]) -> None:
    body = b"\n".join([*lines, b""])
    answer = orjson.loads(servers.http("POST", f"{url}/_bulk", body, "application/x-ndjson", timeout=600))
    if answer["errors"]:
        raise SystemExit(
            next(item["create"]["error"]["reason"] for item in answer["items"] if "error" in item["create"])
        )


def _cpu(pid: int) -> float:
    """Return the CPU seconds that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def measure(url: str, engine: int, command: str, bulk: str) -> tuple[float, float, float, float]:
    """Return the wall seconds, CPU seconds and peak bytes of a command, and the CPU seconds of the engine."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "BULKSCOPE_", "ELASTIC"))
    }
    words = [str(BIN / "bulkscope"), command, bulk, "--source", "elasticsearch", "--format", "json"]
    before, began = _cpu(engine), time.perf_counter()
    with tempfile.TemporaryFile() as out:
        process = subprocess.Popen(words, env=kept | {"ELASTICSEARCH_URL": url}, stdout=out)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        took = time.perf_counter() - began
        out.seek(0)
        if process.returncode:
            raise SystemExit(f"bulkscope {command} ended with {process.returncode}")
        json.load(out)
    return took, used.ru_utime + used.ru_stime, used.ru_maxrss * 1024, _cpu(engine) - before


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=100_000)
    parser.add_argument("--beside", type=int, default=0)
    given = parser.parse_args()
    if given.jobs < 1 or given.beside < 0:
        parser.error("--jobs must be 1 or more, --beside 0 or more")
    with tempfile.TemporaryDirectory() as name, servers.elasticsearch(Path(name) / "elastic") as server:
        templates.install(server.url)
        start, total = rows.BEGIN_NS, 0
        for bulk, jobs, seed in (("beside", given.beside, 8), ("sample-001", given.jobs, 7)):
            if not jobs:
                continue
            print(f"storing {jobs:,} jobs", file=sys.stderr)
            store = Store(Path(name) / f"{bulk}.duckdb")
            sample.fill(store.connection(), 1, jobs, seed=seed, start_ns=start, faults=False)
            if bulk == "beside":
                for table in ("spans", "logs"):
                    store.connection().execute(f"UPDATE {table} SET bulk_id = 'beside'")
            start = store.query("SELECT max(end_ns) AS last FROM spans")["last"][0].as_py() + rows.SECOND
            total += load(server.url, store)
            store.close()
        assert server.process is not None
        print(f"{given.jobs:,} jobs in the bulk, {given.beside:,} beside it; {total:,} documents\n")
        print("| | wall s | CPU s | peak RSS, MiB | Elasticsearch, CPU s |\n|---|---:|---:|---:|---:|")
        for command in COMMANDS:
            took, cpu, peak, engine = measure(server.url, server.process.pid, command, "sample-001")
            print(f"| `{command}` | {took:.1f} | {cpu:.1f} | {peak / 2**20:.0f} | {engine:.1f} |", flush=True)


if __name__ == "__main__":
    main()
