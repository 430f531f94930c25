"""One bulk of Elasticsearch in a store: its own records, and what an answer needs of what ran beside it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pyarrow as pa

from bulkscope import conventions as c
from bulkscope_studio.elastic import esql
from bulkscope_studio.elastic.client import Client
from bulkscope_studio.elastic.streams import HOSTS, LOGS, TRACES
from bulkscope_studio.sources import documents
from bulkscope_studio.sources.documents import MILLISECOND_NS, Row
from bulkscope_studio.storage import sql, summaries
from bulkscope_studio.storage.store import Store
from bulkscope_studio.text import wording

MINUTE_MS = 60_000
SAMPLED_EVERY_MS = 10_000  # collector-config.yaml
# A span is found by its start: one that is longer than this and began before a window is not seen in it.
LONGEST_MS = 24 * 3600 * 1000
HOUR_MS = 3600 * 1000  # jobs that are longer have heartbeats to tell that they went on

_BULK, _MODEL, _HOST = f"attributes.{c.BULK_ID}", f"attributes.{c.GEN_AI_MODEL}", f"resource.attributes.{c.HOST_NAME}"
_PARENT = f"attributes.{c.BULK_PARENT_ID}"


@dataclass(frozen=True, slots=True)
class _Metric:
    """A metric of the Collector's host metrics, and which values of one attribute count."""

    name: str
    attribute: str
    values: str


# Idle and waiting for a disk are not work.
_SHARES = (
    _Metric(c.M_SYSTEM_CPU_UTILIZATION, "state", 'NOT IN ("idle", "wait", "iowait")'),
    _Metric(c.M_SYSTEM_MEMORY_UTILIZATION, "state", '== "used"'),
)
_AMOUNTS = (
    # The states that add up to all memory: cached holds the reclaimable slabs, used the others.
    _Metric(c.M_SYSTEM_MEMORY_USAGE, "state", 'NOT IN ("slab_reclaimable", "slab_unreclaimable")'),
    _Metric(c.M_SYSTEM_PAGING_FAULTS, "type", '== "major"'),
)

# What `window_events.esql` and `kills.esql` name that no document may have yet, and the type that an absent one has.
_HEARD = {
    f"attributes.{c.JOB_ID}": "STRING", **{
        f"resource.attributes.{name}": "STRING"
        for name in (c.SERVICE_NAME, c.SERVICE_INSTANCE_ID, c.HOST_NAME, c.CONTAINER_ID, c.K8S_POD_NAME, c.WORKER_SLOT)
    },
    f"resource.attributes.{c.PROCESS_PID}": "LONG",
}  # fmt: skip


_BY_START = {"after_ms": ("start_ms", -1), "after_id": ("record_id", "")}

_BEGUN = """
SELECT job_id, list(time_ns ORDER BY time_ns) AS times FROM logs
WHERE event_name = $started AND job_id IS NOT NULL AND time_ns BETWEEN $first AND $last
  AND bulk_id IS NOT DISTINCT FROM $bulk
GROUP BY job_id
"""


def _times(extent: esql.Columns) -> tuple[int, int, int]:
    """Return what ``esql.pages_in_time`` takes: first and last in ms, and the number of rows; none where none is."""
    ((first, last, number),) = zip(extent["first_ms"], extent["last_ms"], extent["number"], strict=True)
    return (0, -1, 0) if first is None else (first, last, number)


def notes(repeated: Counter[str]) -> list[str]:
    """Return the sentence that says how many records came more than once; none where none did."""
    said = [wording.count(number, kind) for kind, number in sorted(repeated.items(), reverse=True) if number]
    return [f"Came more than once, and count once: {' and '.join(said)} that were sent again."] if said else []


class Loader:
    """Reads one bulk into a store as it is made, and on demand what ran beside it.

    A record that Elasticsearch has more than once is read once: the Collector sends again what was not answered.
    ``repeated`` counts the others, by what they are. Raises ``Trouble`` when Elasticsearch cannot be asked.
    """

    def __init__(self, client: Client, store: Store, bulk_id: str) -> None:
        self._client, self._store, self._bulk = client, store, bulk_id
        self._traces, self._logs = esql.fields(client, TRACES), esql.fields(client, LOGS)
        self._hosts: set[str] = set()
        self.repeated: Counter[str] = Counter()
        self._own()

    @cached_property
    def _metrics(self) -> set[str]:
        return esql.fields(self._client, HOSTS)

    def _own(self) -> None:
        self._add_own_events()
        if _BULK in self._traces:
            columns = self._known(documents.SPAN, self._traces)
            nested = _PARENT in self._traces
            if not nested:
                del columns["bulk_id"]  # is known
            found = esql.query(self._client, "bulk_extent", {"bulk": self._bulk}, pattern=TRACES, unit=1)
            pages = esql.pages_in_time(
                self._client, "bulk_spans", {"bulk": self._bulk}, _BY_START, _times(found), 1,
                [] if nested else [(_PARENT, "STRING")],
                columns=", ".join(columns.values()),
            )  # fmt: skip
            self._add_spans(pages, columns, None if nested else self._bulk)
        hosts = self._column("SELECT host_name FROM spans UNION SELECT host_name FROM logs")
        self._hosts = set(hosts) - {None}
        self._add_kills()

    def _known(self, columns: dict[str, str], fields: set[str]) -> dict[str, str]:
        return {column: path for column, path in columns.items() if path in fields}

    def _column(self, text: str) -> list[Any]:
        values: list[Any] = self._store.query(text)[0].to_pylist()
        return values

    def _add_spans(self, pages: Iterable[esql.Columns], columns: dict[str, str], bulk: str | None) -> None:
        """Add spans, of one bulk or of others."""
        for page in pages:  # each is stored before the next is asked for
            once = documents.once(page, "start_ms", "record_id")
            self.repeated["span"] += len(page["start_ms"]) - len(once["start_ms"])
            begun = self._begun(once["start_ms"][0], once["start_ms"][-1], bulk)
            found, resources = documents.spans(once, columns, begun)
            if bulk is not None:
                found["bulk_id"] = [bulk] * len(once["start_ms"])
            documents.insert_columns(self._store, "spans", found)
            documents.insert(self._store, "resources", resources)

    def _begun(self, first_ms: int, last_ms: int, bulk: str | None) -> dict[str, list[int]]:
        """Return when jobs of a bulk, or of others, said that they began, in ns: those whose spans begin in a time."""
        times = {"first": first_ms * MILLISECOND_NS, "last": (last_ms + 2) * MILLISECOND_NS}
        found = self._store.query(_BEGUN, {"started": c.EVENT_JOB_STARTED, "bulk": bulk, **times}).to_pydict()
        return dict(zip(found["job_id"], found["times"], strict=True))

    def _events_known(self) -> dict[str, str]:
        """Return the columns of events that there are; none where no job has ever said that it began."""
        known = self._known(documents.EVENT, self._logs)
        return known if {"bulk_id", "event_name", "span_id"} <= set(known) else {}

    def _unheard(self) -> list[tuple[str, str]]:
        return [(path, kind) for path, kind in _HEARD.items() if path not in self._logs]

    def _add_own_events(self) -> None:
        columns = self._events_known()
        if not columns:
            return
        found = esql.query(self._client, "bulk_extent", {"bulk": self._bulk}, pattern=LOGS, unit=MILLISECOND_NS)
        after = {"after_ns": ("time_ns", -1), "after_id": ("event_id", "")}
        pages = esql.pages_in_time(
            self._client, "bulk_events", {"bulk": self._bulk}, after, _times(found), MILLISECOND_NS,
            columns=", ".join(columns.values()),
        )  # fmt: skip
        for page in pages:
            rows, resources = documents.events(page, columns)
            self.repeated["log record"] += len(page["time_ns"]) - len(rows)
            documents.insert(self._store, "logs", rows)
            documents.insert(self._store, "resources", resources)

    def _add_kills(self) -> None:
        """Add what others on the host of a job that went silent counted of kills for memory: the proof of one."""
        silent = self._silent() if {c.OOM_KILLS, "host_name"} <= set(self._events_known()) else set()
        if not silent:
            return
        hosts, asked = esql.several("host", {host for host, _ in silent})
        times = [seen for _, seen in silent]
        window = {"first": esql.date(min(times)), "last": esql.date(max(times) + MINUTE_MS)}
        params = window | hosts | {"bulk": self._bulk}
        after = {"after_half": ("half_minute", -1), "after_id": ("proof_id", "")}
        for page in esql.pages(self._client, "kills", params, after, self._unheard(), hosts=asked):
            documents.insert(self._store, "logs", documents.proofs(page))

    def _silent(self) -> set[tuple[str, int]]:
        """Return (host, last heard of, ms) of jobs that began and have not ended."""
        lost = self._store.query(sql.load("lost"), {"bulk": self._bulk, "silent_ns": 2**62, **summaries.EVER})
        hosts = self._store.query("SELECT span_id, max(host_name) AS host FROM logs GROUP BY span_id").to_pydict()
        of = dict(zip(hosts["span_id"], hosts["host"], strict=True))
        found = zip(lost["span_id"].to_pylist(), lost["seen_ns"].to_pylist(), strict=True)
        return {(of[span], seen // MILLISECOND_NS) for span, seen in found if of.get(span) is not None}

    def notes(self) -> list[str]:
        """Return what to say beside an answer: what of the records that were read came more than once."""
        return notes(self.repeated)

    def add_shares(self, first_ns: int, last_ns: int) -> None:
        """Add how much of its hosts was in use, up to ``last_ns``, the end of the bulk."""
        first, last = first_ns // MILLISECOND_NS, last_ns // MILLISECOND_NS
        rows = []
        for metric in _SHARES:
            found = self._samples(metric, first, last + SAMPLED_EVERY_MS)
            # A share is of the time since the sample before: the first one after the end still tells of the bulk.
            after = {row["host_name"]: row["time_ms"] for row in reversed(found) if row["time_ms"] > last}
            rows += [
                row | {"time_ns": min(row["time_ns"], last_ns)}
                for row in found
                if row["time_ms"] <= after.get(row["host_name"], last)
            ]
        documents.insert(self._store, "points", rows)

    def add_beside(self, first_ns: int, last_ns: int, begin_ns: int) -> None:
        """Add what others did from ``first_ns`` to ``last_ns``, and of the bulk's hosts from ``begin_ns`` on."""
        self._add_other_events(first_ns, last_ns)
        self._add_other_spans(first_ns, last_ns)
        # Those that a report has read are among these, and twice the same sample would be twice as much.
        self._store.connection().execute("DELETE FROM points")
        first, last = begin_ns // MILLISECOND_NS, last_ns // MILLISECOND_NS
        for metric in (*_SHARES, *_AMOUNTS):
            documents.insert(self._store, "points", self._samples(metric, first, last))
        # By their times alone: silence tells of nothing before the first record of all, or after the last.
        documents.insert(self._store, "logs", [{"time_ns": time_ns} for time_ns in self._heard()])

    def _add_other_events(self, first_ns: int, last_ns: int) -> None:
        if not self._events_known():
            return
        params = self._window(first_ns, last_ns) | {"first": esql.date(first_ns // MILLISECOND_NS)}
        after = {"after_id": ("attempt_id", "")}
        for page in esql.pages(self._client, "window_events", params, after, self._unheard()):
            documents.insert(self._store, "logs", documents.heard(page))

    def _add_other_spans(self, first_ns: int, last_ns: int) -> None:
        if _BULK not in self._traces:
            return
        columns = self._known(documents.OTHER_SPAN, self._traces)
        models, asked = esql.several(
            "model", self._column("SELECT DISTINCT model FROM rules.inferences ORDER BY model") or [""]
        )
        absent = [] if _MODEL in self._traces else [(_MODEL, "STRING")]
        since = {"since": esql.date(first_ns // MILLISECOND_NS - LONGEST_MS)}
        params = self._window(first_ns, last_ns) | models
        # Of all spans: more than those that are asked for, so that the first pages are of a short time.
        times = _times(esql.query(self._client, "window_extent", params | since))
        pages = esql.pages_in_time(
            self._client, "window_spans", params, _BY_START, times, 1, absent,
            columns=", ".join(columns.values()), models=asked,
        )  # fmt: skip
        self._add_spans(pages, columns, None)

    def _window(self, first_ns: int, last_ns: int) -> dict[str, Any]:
        last = esql.date(last_ns // MILLISECOND_NS + 1)
        return {"bulk": self._bulk, "first_ns": first_ns, "last_ns": last_ns, "last": last}

    def _heard(self) -> list[int]:
        """Return when anything was first heard of anything, and when last, in ns; nothing when there is no record."""
        found = []
        for pattern, known, unit_ns in (
            (TRACES, self._traces, MILLISECOND_NS), (LOGS, self._logs, 1), (HOSTS, self._metrics, MILLISECOND_NS)
        ):  # fmt: skip
            for order in ("ASC", "DESC") if known else ():
                found += esql.query(self._client, "outermost", {}, pattern=pattern, order=order, unit_ns=unit_ns)[
                    "time_ns"
                ]
        if "duration" in self._traces and found:
            since = {"since": esql.date(max(found) // MILLISECOND_NS - HOUR_MS)}
            found += [time for time in esql.query(self._client, "last_end", since)["time_ns"] if time is not None]
        return [min(found), max(found)] if found else []

    def _samples(self, metric: _Metric, first: int, last: int) -> list[Row]:
        """Return a metric of the bulk's hosts, rows of ``points`` with time_ms beside, in the order of time."""
        value, attribute = f"metrics.{metric.name}", f"attributes.{metric.attribute}"
        if not self._hosts or not {value, attribute, _HOST} <= self._metrics:
            return []
        hosts, asked = esql.several("host", self._hosts)
        rows: list[Row] = []
        while True:
            window = {"first": esql.date(first), "last": esql.date(last), **hosts}
            page = esql.query(
                self._client, "hosts", window, rows=esql.ROWS, value=value, attribute=attribute, values=metric.values,
                hosts=asked,
            )  # fmt: skip
            found: list[Row] = pa.table(page).to_pylist()
            if len(found) < esql.ROWS or found[-1]["time_ms"] == found[0]["time_ms"]:
                rows += found
                break
            first = found[-1]["time_ms"]  # of which some hosts may be missing: it comes again, whole
            rows += [row for row in found if row["time_ms"] < first]
        return [documents.sample(row, metric.name, metric.attribute) for row in rows]
