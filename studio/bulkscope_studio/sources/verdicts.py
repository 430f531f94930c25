"""Verdicts as documents of Elasticsearch: ``bulkscope explain --publish`` writes them, Kibana shows and watches them.

One document a bulk in the data stream ``bulkscope-verdicts``, which ``bulkscope setup`` makes. Its ``_id`` follows from
the bulk's id, so that a second run finds it: what says the same stays untouched, another verdict replaces it where it
is. A data stream takes new documents only, and older ones by the index that holds them.
"""

from __future__ import annotations

import hashlib
import time
import urllib.parse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from bulkscope_studio.elastic import esql
from bulkscope_studio.elastic.client import Client, Trouble
from bulkscope_studio.elastic.streams import VERDICTS
from bulkscope_studio.services import capacities, explanations, reports
from bulkscope_studio.sources.elasticsearch import ElasticsearchSource, told
from bulkscope_studio.sources.source import InvalidQuery, NotFound

SCHEMA = "bulkscope.verdict/1"
STREAM = VERDICTS
LOOKS = 5  # of several runs at once one gets on each time
PAUSE_S = 0.5  # a document is found a second after it was written at the latest; writers wait for that
_HITS = {"hits": {"hits": [{"_index": str, "_source": dict, "_seq_no": int, "_primary_term": int}]}}

Document = dict[str, Any]
State = Literal["created", "changed", "unchanged", "nothing to judge"]


@dataclass(frozen=True, slots=True)
class Published:
    """What became of one bulk; ``verdict`` is its title, None where there was nothing to judge."""

    bulk: str
    state: State
    verdict: str | None


def document(report: Mapping[str, Any], explanation: Mapping[str, Any]) -> Document:
    """Return what is published of a bulk, from its report and explanation (the JSON of the API).

    Times are ISO 8601, durations seconds, sizes bytes. What is absent is left out. ``@timestamp`` is the last end
    that was heard of, so that the verdict stands beside the bulk on a time axis.
    """
    verdict, inferences = explanation["verdict"], report["total"]["inferences"]
    start, end = (None if report[key] is None else esql.date(report[key] // 10**6) for key in ("start_ns", "end_ns"))
    wait, makespan = explanation["wait"] or {}, explanation["makespan"] or {}
    found = {
        "@timestamp": end or start,
        "schema": SCHEMA,
        "bulk": {
            "id": report["id"], "state": explanation["state"], "start": start, "end": end,
            "models": [group["name"] for group in report["models"]],
        },
        "verdict": {
            "code": verdict["code"], "title": verdict["title"], "text": verdict["text"],
            "also": list(explanation["also"]), "next": [change["text"] for change in explanation["next"]],
            "notes": list(explanation["notes"]),
        },
        "duration_s": None if start is None or end is None else (report["end_ns"] - report["start_ns"]) / 1e9,
        "jobs": explanation["progress"],
        "wait": {"measured_s": wait.get("measured"), "expected_s": wait.get("expected"), "ratio": wait.get("ratio")},
        "makespan": {"measured_s": makespan.get("measured"), "floor_s": makespan.get("floor")},
        "time_s": explanation["time_s"],
        "workers": explanation["workers"],
        "tokens": {
            "input": inferences["input_tokens"], "output": inferences["output_tokens"],
            "per_s": inferences["tokens_per_s"],
        },
        "cpu_s": inferences["cpu_s"],
        "memory_peak_bytes": inferences["memory_peak_bytes"],
    }  # fmt: skip
    return dict(_present(found))


def _present(found: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in found.items():
        if isinstance(value, Mapping):
            value = dict(_present(value))
        if value is not None and value != {} and value != []:
            yield key, value


def identity(bulk: str) -> str:
    """Return a document's ``_id``: a bulk's id may be longer than Elasticsearch takes, and hold any character."""
    return hashlib.sha256(bulk.encode("utf-8", "surrogatepass")).hexdigest()


def judged(source: ElasticsearchSource, bulk: str) -> Document | None:
    """Return the document of a bulk as Elasticsearch has it now; None where there is nothing of it to judge."""
    try:
        with source.loaded(bulk) as (store, more):
            beside = explanations.beside(store, bulk)
            report = reports.report_of(store, beside.bulk)
            more.add_beside(beside.first_ns, beside.last_ns, beside.bulk.window[0])
            return document(report, explanations.explanation_of(store, beside, drops_known=False))
    except NotFound:
        return None


def publish(client: Client, found: Document, now_s: float) -> State:
    """Write one document, unless it is there and says the same; raises ``Trouble``."""
    name = identity(found["bulk"]["id"])
    body = {"@timestamp": esql.date(int(now_s * 1000)), **found, "published": esql.date(int(now_s * 1000))}
    for look in range(LOOKS):
        if look:
            client.sleep(PAUSE_S)
        there = _there(client, name)
        if there is None:
            path = f"/{STREAM}/_create/{name}?refresh=wait_for&require_data_stream=true"
        elif _says(there["_source"]) == _says(body):
            return "unchanged"
        else:
            index = urllib.parse.quote(there["_index"], safe="")
            seen = f"if_seq_no={there['_seq_no']}&if_primary_term={there['_primary_term']}"
            path = f"/{index}/_doc/{name}?refresh=wait_for&{seen}"
        # 409: another run was here meanwhile. Sent again after a lost answer it would be the same.
        answer = client.request("PUT", path, body, allowed=(404, 409))
        if answer.status == 404:
            raise _missing(client)
        if answer.status != 409:
            return "created" if there is None else "changed"
    raise Trouble(f"other runs keep changing the verdict of bulk {found['bulk']['id']!r}; run it again")


def _there(client: Client, name: str) -> Document | None:
    query = {"query": {"ids": {"values": [name]}}, "seq_no_primary_term": True, "sort": [{"published": "desc"}]}
    answer = client.request("POST", f"/{STREAM}/_search", query, allowed=(404,))
    if answer.status == 404:
        raise _missing(client)
    hits: list[Document] = answer.like(_HITS)["hits"]["hits"]
    return hits[0] if hits else None


def _says(document: Document) -> Document:
    """Return what counts: a document is not another one for having been written later."""
    return {key: value for key, value in document.items() if key != "published"}


def _missing(client: Client) -> Trouble:
    return Trouble(f"there is no data stream {STREAM} at {client.url}; 'bulkscope setup --only elasticsearch' makes it")


def named(source: ElasticsearchSource, bulk: str) -> list[str]:
    """Return the id of one bulk, as a list of what is to publish; raises ``NotFound``."""
    bulk_id = source.named(bulk)
    if bulk_id not in (row["id"] for row in source.bulks()):
        raise source.not_found(bulk_id)
    return [bulk_id]


def ended(source: ElasticsearchSource, last: str) -> list[str]:
    """Return the ids of the bulks that ended in the ``last`` time, as in ``30m``, the oldest first."""
    try:
        since_ns = time.time_ns() - int(capacities.seconds(last) * 1e9)
    except InvalidQuery as error:
        raise InvalidQuery(f"--last: {error}") from error
    return [row["id"] for row in reversed(source.bulks()) if row["end_ns"] >= since_ns]


def publish_all(source: ElasticsearchSource, bulks: list[str]) -> Iterator[Published]:
    """Judge and publish each of ``bulks``, one after the other; raises the ``Trouble`` of a source."""
    for bulk in bulks:
        with told():
            found = judged(source, bulk)
            state: State = "nothing to judge" if found is None else publish(source.client, found, time.time())
        yield Published(bulk, state, None if found is None else found["verdict"]["title"])
