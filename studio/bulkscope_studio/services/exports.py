"""The records of one bulk as a table, to be read elsewhere."""

from __future__ import annotations

import pyarrow as pa

from bulkscope_studio.services import bulks, jobs, questions
from bulkscope_studio.services.errors import InvalidQuery
from bulkscope_studio.storage import summaries
from bulkscope_studio.storage.store import Store

# By what is exported: the question in SQL, of the tables of docs/sql.md. Jobs have columns that SQL does not compute.
_QUESTIONS = {
    "attempts": "FROM attempts($bulk) ORDER BY enqueued_ns, started_ns, job, span_id",
    "inferences": "FROM inferences WHERE bulk = $bulk ORDER BY started_ns, span_id",
    "spans": "FROM spans WHERE bulk = $bulk ORDER BY started_ns, span_id",
    "logs": "FROM logs WHERE bulk = $bulk ORDER BY time_ns, span_id, body",
}
WHAT = ("jobs", *_QUESTIONS)
# A bulk of 300,000 jobs has a million spans, 300 MB of them.
MOST_ROWS, MOST_BYTES = 5_000_000, 2**29


def table(store: Store, bulk_id: str, what: str = "jobs", now_ns: int | None = None) -> pa.Table:
    """Return the ``jobs``, ``attempts``, ``inferences``, ``spans`` or ``logs`` of a bulk, oldest first.

    Units are in the names of columns (docs/sql.md). ``latest`` is the newest bulk with jobs. Raises ``NotFound``, and
    ``InvalidQuery`` for what there is not, or too much of.
    """
    if what not in WHAT:
        raise InvalidQuery(f"there is no {what!r} of a bulk; one of {', '.join(WHAT)}")
    if bulk_id == "latest":
        bulk_id = bulks.latest(store)
    if what == "jobs":
        return jobs.table(store, bulk_id, now_ns)
    if summaries.extent(store, bulk_id) is None:
        raise bulks.not_found(store, bulk_id)
    found = questions.run(store, _QUESTIONS[what], {"bulk": bulk_id}, None, MOST_ROWS, MOST_BYTES)
    if found.cut is not None:
        raise InvalidQuery(
            f"the {what} of {bulk_id} are more than an export takes ({found.cut}); take parts of them with"
            " 'bulkscope sql', by the time"
        )
    return found.rows
