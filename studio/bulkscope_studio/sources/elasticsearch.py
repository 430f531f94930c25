"""Bulks in Elasticsearch. What belongs to one is read with ES|QL into tables of the studio, in memory, and from there
on nothing differs: the same SQL, the same formulas, the same report, the same explanation.

Elasticsearch keeps the start of a span in milliseconds and its duration in nanoseconds, so times of day are up to
1 ms off; waits, durations, tokens, CPU and memory are exact. What processes say of themselves in metrics (when they
lived, what they dropped, how near they came to their limits) is in Prometheus, and absent here.
"""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from bulkscope import conventions as c
from bulkscope_studio.elastic import client as http
from bulkscope_studio.elastic import environment, esql
from bulkscope_studio.elastic.client import Client
from bulkscope_studio.elastic.streams import LOGS, TRACES
from bulkscope_studio.services import (
    bulks,
    capacities,
    checks,
    comparisons,
    digests,
    endings,
    explanations,
    exports,
    listing,
    reports,
    sides,
    whatifs,
)
from bulkscope_studio.sources import documents
from bulkscope_studio.sources.elastic_bulk import Loader, notes
from bulkscope_studio.sources.source import (
    Answer,
    Change,
    Found,
    InvalidQuery,
    NotFound,
    Question,
    Trouble,
    Unnamed,
    Value,
    Wanted,
)
from bulkscope_studio.storage import summaries
from bulkscope_studio.storage.store import Store, TooLong, Unavailable, first_line

# What `bulks.esql` names beside the bulk's id, and the type that an absent one is given.
_BULKS = {
    f"attributes.{c.JOB_ID}": "STRING", f"attributes.{c.BULK_OUTCOME}": "STRING", f"attributes.{c.JOB_ATTEMPT}": "LONG",
    f"attributes.{c.BULK_FAILURE_DOMAIN}": "STRING", f"attributes.{c.GEN_AI_MODEL}": "STRING", "status.code": "STRING",
    f"attributes.{c.PROCESS_PID}": "LONG", f"resource.attributes.{c.PROCESS_PID}": "LONG",
    f"resource.attributes.{c.HOST_NAME}": "STRING", "event_name": "STRING",
    f"attributes.{c.JOB_EXPIRES}": "DOUBLE",
}  # fmt: skip

_LISTED = pa.schema([
    ("bulk_id", pa.string()),
    *((name, pa.int64()) for name in (
        "first_ns", "last_ns", "spans", "logs", "start_ns", "end_ns", "sent", "jobs", "done", "failed", *c.UNBEGUN,
    )),
    ("models", pa.list_(pa.string())),
])  # fmt: skip


def client() -> Client:
    """Return a client of ELASTICSEARCH_URL with what ``environment.credentials`` finds, which may be nothing."""
    url = environment.address(os.environ, "ELASTICSEARCH_URL", environment.ELASTICSEARCH)
    return Client("Elasticsearch", url, environment.credentials(os.environ), "ELASTICSEARCH_URL")


@contextmanager
def told() -> Iterator[None]:
    """Raise what is wrong with Elasticsearch, or with the store in memory, as the trouble of a source."""
    try:
        yield
    except (http.Trouble, TooLong, Unavailable) as error:
        raise Trouble(str(error)) from error
    except duckdb.OutOfMemoryException as error:
        raise Trouble(
            f"what was read of Elasticsearch needs more room than there is ({first_line(error)}): make room in "
            f"{tempfile.gettempdir()}, name a larger folder in TMPDIR, or ask for a smaller bulk"
        ) from error
    except duckdb.Error as error:
        raise Trouble(
            f"what was read of Elasticsearch cannot be put into tables ({first_line(error)}); the report of a studio "
            "that received the same bulk says more, and please report this as a fault of Bulkscope's"
        ) from error


class ElasticsearchSource:
    """Reads the data streams that the Collector writes. Of kept runs there are none."""

    def __init__(self, asked: Client) -> None:
        self.client = asked

    @classmethod
    @contextmanager
    def open(cls) -> Iterator[ElasticsearchSource]:
        """Give the source that the environment names; raises ``Trouble``."""
        with told():
            yield cls(client())

    @property
    def place(self) -> str:
        return self.client.url

    def bulks(self) -> list[Answer]:
        """Return the newest 10,000 bulks, newest first."""
        return [_listed(row) for row in self._bulks()]

    def _bulks(self) -> list[dict[str, Any]]:
        with told():
            known = esql.fields(self.client, TRACES)
            if f"attributes.{c.BULK_ID}" not in known:
                return []
            known |= esql.fields(self.client, LOGS)
            absent = [(path, kind) for path, kind in _BULKS.items() if path not in known]
            found: list[dict[str, Any]] = pa.table(
                esql.query(self.client, "bulks", {}, absent, rows=esql.ROWS)
            ).to_pylist()
        return found

    def listed(self, wanted: Wanted, verdicts: bool = True) -> Answer:
        """Return a page of the newest 10,000 bulks; verdicts, and when a bulk will end, are in the reports of each."""
        for name in ("service", "host", "worker", "verdict"):
            if getattr(wanted, name) is not None:
                raise InvalidQuery(f"bulks in Elasticsearch are not looked through by {name}: leave --{name} out")
        with told(), self._empty() as store:
            _add_listed(store, self._bulks())
            return listing.bulks(store, None, endings.Ends(store), wanted)

    def outside(self) -> Answer | None:
        return None

    def report(self, bulk: str, by_host: bool = False) -> Answer:
        with self._answering(bulk) as (bulk_id, store, more):
            found = _report(store, more, bulk_id, by_host)
            if not found["complete"]:
                found["ending"] = _ending(store, more, bulk_id)
            return found

    def frozen(self, bulk: str) -> Answer:
        raise InvalidQuery("a page is saved from a studio's file, which has the bulk's log too: leave --source out")

    def digest(self, bulk: str) -> Answer:
        with self._answering(bulk) as (bulk_id, store, more):
            report = _report(store, more, bulk_id)
            beside = _beside(store, more, bulk_id)
            if not report["complete"]:
                report["ending"] = endings.ending_of(store, beside, waiting_known=False)
            return digests.digest_of(
                store, report, lambda: explanations.explanation_of(store, beside, drops_known=False)
            )

    def ending(self, bulk: str) -> Answer:
        """Return when a bulk will end; of other bulks what has begun is known here, and not what waits."""
        with self._answering(bulk) as (bulk_id, store, more):
            return _noted(_ending(store, more, bulk_id), more)

    def explanation(self, bulk: str) -> Answer:
        """Return why a bulk took as long as it did; what was dropped on the way is not known here."""
        with self._answering(bulk) as (bulk_id, store, more):
            beside = _beside(store, more, bulk_id)
            return _noted(explanations.explanation_of(store, beside, drops_known=False), more)

    def whatif(self, bulk: str, change: Change) -> Answer:
        """Return what a bulk would have taken; how much its workers hold of memory limits is not known here."""
        whatifs.asked(change)  # what means nothing is said before anything is read
        with self._answering(bulk) as (bulk_id, store, more):
            beside = _beside(store, more, bulk_id)
            return _noted(whatifs.whatif_of(store, beside, change), more)

    def comparison(self, a: str, b: str | None, models: bool = False) -> Answer:
        among = _Sides(self)
        with told():
            found = comparisons.compare(among, a, b, models)
        return found | {"notes": notes(sum(among.repeated.values(), Counter()))}

    def check(self, bulk: str, against: str, max_slower: str) -> Answer:
        checks.allowed(max_slower)  # what means nothing is said before anything is read
        among = _Sides(self)
        with told():
            found = checks.check(among, bulk, against, max_slower)
        return found | {"notes": [*found["notes"], *notes(sum(among.repeated.values(), Counter()))]}

    def capacity(self, question: Question) -> Answer:
        """Return what the system sustained while one bulk had jobs."""
        capacities.asked(question)  # what means nothing is said before anything is read
        if len(question.bulks) != 1:
            raise Unnamed("from Elasticsearch one bulk at a time is read: name one")
        with self._answering(question.bulks[0]) as (bulk_id, store, more):
            asked = replace(question, bulks=[bulk_id])
            windows = capacities.windows(store, asked)
            first, last = windows[0][0], max(window[1] for window in windows)
            more.add_beside(first, last, first)
            found = capacities.capacity_of(store, windows, asked)
        for pool in found["pools"][:1]:
            pool["notes"] += more.notes()
        return found

    def runs(self) -> list[Answer]:
        return []

    def run(self, name: str) -> Answer:
        raise NotFound(name, [], "run")

    def keep(self, name: str, bulks: Sequence[str], replace: bool = False) -> Answer:
        raise InvalidQuery("runs are kept beside the studio's file, from what is in it: leave --source out")

    def drop(self, name: str) -> Answer:
        raise NotFound(name, [], "run")

    def export(self, bulk: str, what: str) -> pa.Table:
        """Return the jobs of a bulk; its records as they were taken are Elasticsearch's own to export."""
        if what != "jobs":
            raise InvalidQuery(f"from Elasticsearch the jobs are exported; ask it for the {what} itself")
        with self._answering(bulk) as (bulk_id, store, more):
            beside = explanations.beside(store, bulk_id)
            # Until when anything was heard of anything: what says whether a job that runs is lost.
            more.add_beside(beside.first_ns, beside.last_ns, beside.bulk.window[0])
            return exports.table(store, bulk_id, what)

    def sql(self, text: str, params: Mapping[str, Value], limit: int) -> Found:
        raise InvalidQuery("SQL is asked of the studio: leave --source out, or ask Elasticsearch itself by ES|QL")

    def named(self, bulk: str) -> str:
        """Return the id of the bulk that is named, by an id or as ``latest``."""
        return bulks.newest(self.bulks()) if bulk == "latest" else bulk

    def not_found(self, bulk: str) -> NotFound:
        """Return what says that there is no such bulk."""
        return NotFound(bulk, bulks.nearest(bulk, [row["id"] for row in self.bulks()]))

    @contextmanager
    def loaded(self, bulk_id: str) -> Iterator[tuple[Store, Loader]]:
        """Give a store in memory with the spans, job events and resources of one bulk, and what can add to it."""
        with self._empty() as store:
            yield store, Loader(self.client, store, bulk_id)

    @contextmanager
    def _empty(self) -> Iterator[Store]:
        """Give a store in memory.

        What does not fit into memory is in a folder of its own, which only this user can read and which ends with it:
        DuckDB's default is a folder in the one that the command is run in.
        """
        with tempfile.TemporaryDirectory(prefix="bulkscope-") as folder:
            store = Store(Path(":memory:"))
            try:
                store.connection().execute("SET GLOBAL temp_directory = ?", [folder])
                yield store
            finally:
                store.close()

    @contextmanager
    def _answering(self, bulk: str) -> Iterator[tuple[str, Store, Loader]]:
        bulk_id = self.named(bulk)
        try:
            with told(), self.loaded(bulk_id) as (store, more):
                yield bulk_id, store, more
        except NotFound as error:  # the store knows no other bulk
            raise self.not_found(bulk_id) from error


class _Sides:
    """What is compared. ``repeated`` counts what came more than once, by bulk: one may be read for both sides."""

    def __init__(self, source: ElasticsearchSource) -> None:
        self._source = source
        self.repeated: dict[str, Counter[str]] = {}

    def bulk(self, name: str) -> sides.Tables | None:
        with self._source.loaded(name) as (store, more):
            self.repeated[name] = more.repeated
            return sides.tables(store, name, alone=True)

    def run(self, name: str) -> None:
        return None

    def latest(self) -> str:
        return self._source.named("latest")

    def names(self) -> list[str]:
        return [row["id"] for row in self._source.bulks()]


def _listed(row: dict[str, Any]) -> Answer:
    """Return a row of ``bulks.esql`` as ``bulks.list_bulks`` does."""
    models = row["models"] if isinstance(row["models"], list) else [row["models"]]
    start_ns = row["start_ms"] * 10**6
    end_ns = max(row["end_ns"] or start_ns, start_ns)  # a duration beyond 64 bits makes none
    return {
        "id": row["bulk"], "start_ns": start_ns, "end_ns": end_ns, "jobs": row["jobs"], "done": row["done"],
        "failed": row["failed"], **{name: row[name] for name in c.UNBEGUN},
        "models": sorted(model for model in models if model is not None),
        "duration_s": (end_ns - start_ns) / 1e9,
        "ending": None,  # each bulk would have to be read: the report of one says it
    }  # fmt: skip


def _summary(row: dict[str, Any], answer: Answer) -> dict[str, Any]:
    """Return a row of ``bulks.esql`` as one of the table of bulks; what is not known of it is absent."""
    return {
        "bulk_id": answer["id"], "first_ns": answer["start_ns"], "spans": 0, "logs": 0,
        "last_ns": max(answer["end_ns"], (row["seen_ms"] or 0) * 10**6),
        "start_ns": answer["start_ns"], "end_ns": answer["end_ns"], "sent": answer["jobs"],
        **{name: answer[name] for name in ("jobs", "done", "failed", "models", *c.UNBEGUN)},
    }  # fmt: skip


def _add_listed(store: Store, rows: list[dict[str, Any]]) -> None:
    """Add rows of ``bulks.esql`` to the table of bulks of a store without records, which the list is read from."""
    listed = [_summary(row, _listed(row)) for row in rows]
    if not listed:
        return
    connection = store.connection()
    summaries.ensure(connection)
    # When anything was last heard of anything: a bulk of which nothing is heard any more has stopped.
    last_ns = max(row["last_ns"] for row in listed)
    documents.insert(store, "logs", [{"time_ns": last_ns}])
    rows_of = pa.Table.from_pylist([*listed, {"spans": 0, "logs": 1}], schema=_LISTED)
    connection.register("incoming", rows_of).execute("INSERT INTO bulks BY NAME SELECT * FROM incoming")
    connection.unregister("incoming")


def _report(store: Store, more: Loader, bulk_id: str, by_host: bool = False) -> Answer:
    own = bulks.own(store, bulk_id)
    more.add_shares(*own.window)
    # What came more than once is said of the bulk's own records: what comes later reads those of others as well.
    return _noted(reports.report_of(store, own, by_host), more)


def _beside(store: Store, more: Loader, bulk_id: str) -> explanations.Beside:
    beside = explanations.beside(store, bulk_id)
    more.add_beside(beside.first_ns, beside.last_ns, beside.bulk.window[0])
    return beside


def _ending(store: Store, more: Loader, bulk_id: str) -> Answer:
    return endings.ending_of(store, _beside(store, more, bulk_id), waiting_known=False)


def _noted(answer: Answer, more: Loader) -> Answer:
    answer["notes"] = [*answer["notes"], *more.notes()]
    return answer
