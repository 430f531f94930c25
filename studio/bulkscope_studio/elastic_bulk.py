"""One bulk of Elasticsearch in a store: its own records, and what an answer needs of what ran beside it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pyarrow as pa

from bulkscope import conventions as c
from bulkscope_studio import documents, esql, sql, summaries
from bulkscope_studio.analysis import facts, wording
from bulkscope_studio.documents import MILLISECOND_NS, Events, Row
from bulkscope_studio.setup.client import Client
from bulkscope_studio.store import Store

TRACES, LOGS, HOSTS = "traces-*.otel-*", "logs-*.otel-*", "metrics-hostmetricsreceiver.otel-*"
MINUTE_MS = 60_000
SAMPLED_EVERY_MS = 10_000  # collector-config.yaml
# A span is found by its start: one that is longer than this and began before a window is not seen in it.
LONGEST_MS = 24 * 3600 * 1000
HOUR_MS = 3600 * 1000  # jobs that are longer have heartbeats to tell that they went on

_BULK, _MODEL, _HOST = f"attributes.{c.BULK_ID}", f"attributes.{c.GEN_AI_MODEL}", f"resource.attributes.{c.HOST_NAME}"


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
        for name in (c.SERVICE_NAME, c.SERVICE_INSTANCE_ID, c.HOST_NAME, c.CONTAINER_ID, c.K8S_POD_NAME)
    },
    f"resource.attributes.{c.PROCESS_PID}": "LONG",
}  # fmt: skip


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
        self._seen: set[tuple[str, str]] = set()  # (trace, span) of each span that was read
        self.repeated: Counter[str] = Counter()
        self._own()

    @cached_property
    def _metrics(self) -> set[str]:
        return esql.fields(self._client, HOSTS)

    def _own(self) -> None:
        events = self._own_events()
        if _BULK in self._traces:
            columns = self._known(documents.SPAN, self._traces)
            after = {"after_ms": ("start_ms", -1), "after_id": ("record_id", "")}
            bulk = {"bulk": self._bulk}
            pages = esql.pages(self._client, "bulk_spans", bulk, after, columns=", ".join(columns.values()))
            self._add_spans(pages, columns, documents.begun(events.values()))
        documents.insert(self._store, "logs", events.values())
        documents.insert(self._store, "resources", documents.limits(events.values()))
        del events
        hosts = self._column("SELECT host_name FROM spans UNION SELECT host_name FROM logs")
        self._hosts = set(hosts) - {None}
        self._add_kills()

    def _known(self, columns: dict[str, str], fields: set[str]) -> dict[str, str]:
        return {column: path for column, path in columns.items() if path in fields}

    def _column(self, text: str) -> list[Any]:
        values: list[Any] = self._store.query(text)[0].to_pylist()
        return values

    def _add_spans(self, pages: Iterable[esql.Columns], columns: dict[str, str], begun: dict[str, list[int]]) -> None:
        for page in pages:  # each is stored before the next is asked for: a span is 2.4 kB here, 0.1 kB there
            spans: list[Row] = []
            resources: dict[str, Row] = {}
            for row, resource in documents.spans(page, columns, begun):
                key = row.get("trace_id") or "", row["span_id"]
                if key in self._seen:
                    self.repeated["span"] += 1
                    continue
                self._seen.add(key)
                spans.append(row)
                if resource is not None:
                    resources[resource["resource_id"]] = resource
            documents.insert(self._store, "spans", spans)
            documents.insert(self._store, "resources", resources.values())

    def _events_known(self) -> dict[str, str]:
        """Return the columns of events that there are; none where no job has ever said that it began."""
        known = self._known(documents.EVENT, self._logs)
        return known if {"bulk_id", "event_name", "span_id"} <= set(known) else {}

    def _unheard(self) -> list[tuple[str, str]]:
        return [(path, kind) for path, kind in _HEARD.items() if path not in self._logs]

    def _own_events(self) -> Events:
        columns = self._events_known()
        rows: Events = {}
        if columns:
            after = {"after_ns": ("time_ns", -1), "after_id": ("event_id", "")}
            bulk, named = {"bulk": self._bulk}, ", ".join(columns.values())
            for page in esql.pages(self._client, "bulk_events", bulk, after, columns=named):
                found = documents.events(page, columns)
                self.repeated["log record"] += len(page["time_ns"]) - len(found)
                rows |= found
        return rows

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
        lost = self._store.query(sql.load("page_lost"), {"bulk": self._bulk, "silent_ns": 2**62, **summaries.EVER})
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

    def add_beside(self, first_ns: int, last_ns: int) -> None:
        """Add what ``api.bulk_explanation`` reads beside the bulk, from ``first_ns`` to ``last_ns``."""
        begun = self._add_other_events(first_ns, last_ns)
        self._add_other_spans(first_ns, last_ns, begun)
        first, last = (first_ns + facts.HISTORY_NS) // MILLISECOND_NS, last_ns // MILLISECOND_NS
        for metric in (*_SHARES, *_AMOUNTS):
            documents.insert(self._store, "points", self._samples(metric, first, last))
        # By their times alone: silence tells of nothing before the first record of all, or after the last.
        documents.insert(self._store, "logs", [{"time_ns": time_ns} for time_ns in self._heard()])

    def _add_other_events(self, first_ns: int, last_ns: int) -> dict[str, list[int]]:
        columns = self._events_known()
        rows: list[Row] = []
        if columns:
            params = self._window(first_ns, last_ns) | {"first": esql.date(first_ns // MILLISECOND_NS)}
            after = {"after_id": ("span_id", "")}
            for page in esql.pages(self._client, "window_events", params, after, self._unheard()):
                rows += documents.heard(page)
        documents.insert(self._store, "logs", rows)
        return documents.begun(rows)

    def _add_other_spans(self, first_ns: int, last_ns: int, begun: dict[str, list[int]]) -> None:
        if _BULK not in self._traces:
            return
        columns = self._known(documents.OTHER_SPAN, self._traces)
        models, asked = esql.several(
            "model", self._column("SELECT DISTINCT model FROM spans WHERE model IS NOT NULL ORDER BY model") or [""]
        )
        absent = [] if _MODEL in self._traces else [(_MODEL, "STRING")]
        since = esql.date(first_ns // MILLISECOND_NS - LONGEST_MS)
        after = {"after_ms": ("start_ms", -1), "after_id": ("record_id", "")}
        params = self._window(first_ns, last_ns) | models | {"since": since}
        named = ", ".join(columns.values())
        pages = esql.pages(self._client, "window_spans", params, after, absent, columns=named, models=asked)
        self._add_spans(pages, columns, begun)

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
