"""Lists of ``/api/v1``: spark lines of bulks, histograms of logs, and what there is to filter by."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bulkscope_studio.services import figures, jobs, listing, records, reports
from bulkscope_studio.services.endings import Ends
from bulkscope_studio.services.errors import InvalidQuery, NotFound
from bulkscope_studio.storage import summaries
from bulkscope_studio.storage.store import Store
from tests.rows import BEGIN_NS, SECOND, add, span
from tests.studio.sample import HOST, MODELS, fill


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    made = Store(tmp_path_factory.mktemp("lists") / "s.duckdb")
    fill(made.connection(), bulks=3, jobs=40, workers=4)
    summaries.ensure(made.connection())
    yield made
    made.close()


def listed(store: Store, **wanted: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = listing.bulks(
        store, listing.Verdicts(store), Ends(store), listing.Wanted(**wanted)
    )["bulks"]  # fmt: skip
    return found


def test_a_spark_line_is_of_the_bulks_own_time_and_counts_each_job_once(store: Store) -> None:
    rows = listed(store, spark=8)
    assert {row["id"]: sum(row["spark_jobs"]) for row in rows} == {
        row["id"]: row["done_jobs"] + row["failed_jobs"] for row in rows
    }
    for row in rows:
        length = (row["end_ns"] - row["start_ns"]) / 8
        ends = store.query(
            "SELECT end_ns FROM spans WHERE kind = 'CONSUMER' AND bulk_id = $bulk AND outcome IS DISTINCT FROM 'retry'",
            {"bulk": row["id"]},
        )["end_ns"].to_pylist()
        expected = Counter(min(7, int((end - row["start_ns"]) // length)) for end in ends)
        assert row["spark_jobs"] == [expected[n] for n in range(8)]
    assert all("spark_jobs" not in row for row in listed(store))
    assert [len(row["spark_jobs"]) for row in listed(store, spark=40, limit=2, offset=1)] == [40, 40]
    assert listed(store, spark=3, search="nothing") == []
    for bins in (0, listing.MOST_SPARKS + 1):
        with pytest.raises(InvalidQuery):
            listed(store, spark=bins)


def test_a_bulk_of_one_moment_has_a_spark_line(tmp_path: Path) -> None:
    store = Store(tmp_path / "s.duckdb")
    add(store.connection(), "spans", [span("CONSUMER", BEGIN_NS, BEGIN_NS, bulk_id="b", job_id="j", span_id="s",
                                           trace_id="t")])  # fmt: skip
    summaries.ensure(store.connection())
    (row,) = listed(store, spark=4)
    assert row["spark_jobs"] == [1, 0, 0, 0]
    store.close()


def test_a_histogram_counts_what_the_list_of_logs_has(store: Store) -> None:
    for filters in (
        {}, {"bulk": "sample-001"}, {"severity": "error"}, {"text": "done in"},
        {"service": "bulk-worker", "host": HOST},
        {"from_ns": BEGIN_NS + 5 * SECOND}, {"to_ns": BEGIN_NS + 9 * SECOND}, {"text": "nothing says this"},
    ):  # fmt: skip
        found = records.histogram(store, records.Lines(**filters), 7)
        lines = records.logs(store, records.Lines(**filters, limit=1000))["logs"]
        assert found["total"] == len(lines), filters
        edges = [n * found["bin_s"] * 1e9 for n in range(8)]
        for name, number in records.SEVERITIES.items():
            of = [row["time_ns"] - found["from_ns"] for row in lines if number <= row["severity_number"] < number + 4]
            counts = [sum(first <= at < last for at in of) for first, last in pairwise(edges)]
            counts[-1] += sum(at == found["to_ns"] - found["from_ns"] for at in of)
            assert found["records"][name] == counts, (filters, name)


def test_a_histogram_tells_of_records_without_severity_and_of_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path / "s.duckdb")
    empty = records.histogram(store, records.Lines(), 5)
    assert (empty["total"], {len(counts) for counts in empty["records"].values()}) == (0, {5})
    add(store.connection(), "logs", [
        {"time_ns": BEGIN_NS, "severity_number": number, "event_name": event}
        for number, event in ((None, None), (0, None), (24, None), (25, None), (9, "bulk.job.heartbeat"))
    ])  # fmt: skip
    found = records.histogram(store, records.Lines(), 2)["records"]
    assert {name: counts for name, counts in found.items() if sum(counts)} == {"fatal": [1, 0], "unknown": [3, 0]}
    assert sum(records.histogram(store, records.Lines(heartbeats=True), 2)["records"]["info"]) == 1
    with pytest.raises(InvalidQuery):
        records.histogram(store, records.Lines(severity="loud"))
    with pytest.raises(InvalidQuery):
        records.histogram(store, records.Lines(), 0)
    store.close()


def names(store: Store, **wanted: Any) -> list[str]:
    return [row["id"] for row in listed(store, limit=500, **wanted)]


def test_what_can_be_filtered_by_is_what_filters_find(tmp_path: Path) -> None:
    store = Store(tmp_path / "s.duckdb")
    fill(store.connection(), bulks=2, jobs=8, workers=3)
    own = {"trace_id": "t", "job_id": "j", "service_name": "other", "host_name": "h", "pid": 7, "wait": 0.0}
    later = BEGIN_NS + 9000 * SECOND
    add(store.connection(), "spans", [
        span("CONSUMER", later, later + SECOND, bulk_id="later", span_id="a", **own),
        span("INTERNAL", later, later + SECOND, bulk_id="later", span_id="b", model="m", **own),
        span("PRODUCER", later, later + SECOND, bulk_id="sent", span_id="c", job_id="k", trace_id="u",
             service_name="api"),
    ])  # fmt: skip
    changed = listing.facets(store)
    summaries.ensure(store.connection())
    assert listing.facets(store) == changed
    while summaries.refresh(store.connection(), rest_s=0):
        pass
    found = listing.facets(store)
    assert found == changed
    # By hand, from the spans.
    for kind, column, wanted in (("services", "service_name", "service"), ("hosts", "host_name", "host")):
        rows = store.query(
            f"SELECT {column} AS name, list(DISTINCT bulk_id) AS bulks FROM spans"
            f" WHERE bulk_id IS NOT NULL AND {column} IS NOT NULL GROUP BY 1"
        ).to_pylist()
        assert {row["name"]: row["bulks"] for row in found[kind]} == {row["name"]: len(row["bulks"]) for row in rows}
        for row in rows:
            assert sorted(names(store, **{wanted: row["name"]})) == sorted(row["bulks"])
    assert found["models"] == [{"name": name, "bulks": 1} for name in ("m", "smollm2-135m-q4_1", "smollm2-135m-q8_0")]
    assert {row["name"]: row["bulks"] for row in found["workers"]} == {
        "h:7": 1, f"{HOST}:4100": 2, f"{HOST}:4101": 2, f"{HOST}:4102": 2,
    }  # fmt: skip
    assert names(store, worker="h:7", service="other", host="h") == ["later"]
    assert names(store, worker="h:7", host=HOST) == names(store, service="none") == []
    assert found["more"] == dict.fromkeys(listing.FACETS, 0)
    assert listing.facets(store, since_ns=later)["hosts"] == [{"name": "h", "bulks": 1}]
    assert listing.facets(store, until_ns=later - 1)["models"] == found["models"][1:]
    assert listing.facets(store, until_ns=0)["services"] == []
    store.close()


def test_of_very_many_workers_those_of_most_bulks_are_named(tmp_path: Path) -> None:
    store = Store(tmp_path / "s.duckdb")
    many = listing.MOST_FACETS + 5
    add(store.connection(), "spans", [
        span("CONSUMER", BEGIN_NS, BEGIN_NS + 1, trace_id="t", span_id=f"{bulk}{n}", job_id=str(n), bulk_id=bulk,
             host_name="h", pid=n)
        for bulk, pids in (("a", range(many)), ("b", [many - 1])) for n in pids
    ])  # fmt: skip
    found = listing.facets(store)
    assert found["workers"][0] == {"name": f"h:{many - 1}", "bulks": 2}
    assert (len(found["workers"]), found["more"]["workers"]) == (listing.MOST_FACETS, 5)
    store.close()


def test_models_are_those_of_a_bulk_a_time_or_a_host(store: Store) -> None:
    for name in ("sample-001", "sample-002"):
        report = reports.bulk_report(store, name)
        (model,) = figures.models(store, figures.Wanted(bulk=name))["models"]
        (group,) = report["models"]
        told = (
            "count", "failed", "output_tokens", "input_tokens", "duration_s", "ttft_s", "prefill_s", "decode_s",
            "cpu_s", "cpu_s_per_output_token", "memory_peak_bytes", "tokens_per_s", "decode_tokens_per_s",
        )  # fmt: skip
        assert {key: model[key] for key in told} == {key: group["inferences"][key] for key in told}
        assert model["jobs"] == report["progress"]["sent"]
        bounds = {"since_ns": report["start_ns"], "until_ns": report["end_ns"]}
        assert figures.models(store, figures.Wanted(**bounds))["models"] == [model]
        (host,) = model["hosts"]
        assert (host["host"], host["jobs"], host["count"]) == (HOST, model["jobs"], model["count"])
        for kind in ("prefill", "decode"):
            rows = store.query(
                "SELECT prefill, decode, input_tokens - coalesce(cached_tokens, 0) AS computed,"
                " output_tokens - 1 AS made FROM spans WHERE kind = 'INTERNAL' AND bulk_id = $bulk",
                {"bulk": name},
            ).to_pylist()
            column = "computed" if kind == "prefill" else "made"
            rates = [row[column] / row[kind] for row in rows if None not in (row[column], row[kind])]
            of = model[f"{kind}_rate_tokens_per_s"]
            assert of["count"] == len(rates)
            assert [of["p50"], of["p95"]] == pytest.approx(np.quantile(rates, [0.5, 0.95]).tolist())
    every = figures.models(store)
    assert [row["count"] for row in every["models"]] == sorted((row["count"] for row in every["models"]), reverse=True)
    assert figures.models(store, figures.Wanted(host="nowhere")) == {
        "sampled_share": 1, "models": [], "more_models": 0,
    }  # fmt: skip
    with pytest.raises(NotFound):
        figures.models(store, figures.Wanted(bulk="none"))


def test_points_are_drawn_evenly_of_each_model_and_name_their_jobs(store: Store) -> None:
    every = figures.points(store)
    assert (len(every["points"]), every["inferences"]) == (121, 121)
    some = figures.points(store, most=20)
    assert Counter(row["model"] for row in some["points"]) == {name: 10 for name, *_ in MODELS}
    assert figures.points(store, most=20) == some
    known = {row["span_id"]: row for row in every["points"]}
    assert all(known[row["span_id"]] == row for row in some["points"])
    point = some["points"][0]
    job = jobs.one(jobs.Tables(store), point["bulk"], point["job"])
    (own,) = [row for row in job["inferences"] if row["span_id"] == point["span_id"]]
    for ours, theirs in (("inference_s", "inference_s"), ("output_tokens", "output_tokens"), ("host", "host")):
        assert point[ours] == own[theirs]
    assert {row["bulk"] for row in figures.points(store, figures.Wanted(bulk="sample-002"))["points"]} == {"sample-002"}
    of_model = figures.points(store, figures.Wanted(model=MODELS[1][0]), 5)["points"]
    assert {row["model"] for row in of_model} == {MODELS[1][0]}
    for most in (0, figures.MOST_POINTS + 1):
        with pytest.raises(InvalidQuery):
            figures.points(store, most=most)


def test_very_many_models_and_hosts_are_bounded_and_counted(tmp_path: Path) -> None:
    store = Store(tmp_path / "s.duckdb")
    add(store.connection(), "spans", [
        span("INTERNAL", BEGIN_NS, BEGIN_NS + SECOND, trace_id="t", span_id=f"{model}-{host}", model=model,
             host_name=host, output_tokens=5, bulk_id="b", job_id=f"{model}-{host}")
        for model, hosts in [("wide", 20), *((f"m{n}", 1) for n in range(60))]
        for host in (f"h{n}" for n in range(hosts))
    ])  # fmt: skip
    found = figures.models(store)
    assert (len(found["models"]), found["more_models"]) == (figures.MOST_MODELS, 11)
    wide = found["models"][0]
    assert (wide["name"], wide["jobs"], len(wide["hosts"]), wide["more_hosts"]) == ("wide", 20, figures.MOST_HOSTS, 4)
    assert len(figures.points(store)["points"]) == 80
    store.close()


def test_a_table_of_jobs_is_made_once_for_what_is_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, now = Store(tmp_path / "s.duckdb"), time.time_ns()
    own = {"bulk_id": "b", "trace_id": "t", "host_name": "h", "pid": 1, "service_instance_id": "i"}
    add(store.connection(), "spans", [
        span("CONSUMER", now - 60 * SECOND, now - 59 * SECOND, span_id="a", job_id="ended", **own)
    ])  # fmt: skip
    tables = jobs.Tables(store)
    first = tables.of("b")
    assert tables.of("latest") is tables.of("b") is first
    assert jobs.page(tables, "b", jobs.Wanted(), 10, 0)["total"] == 1
    # Of a job that runs the time decides as well, which is asked again soon.
    add(store.connection(), "logs", [
        {"time_ns": now - 50 * SECOND, "event_name": "bulk.job.started", "span_id": "c", "job_id": "silent", **own},
        {"time_ns": now, "body": "something else is heard"},
    ])  # fmt: skip
    second = tables.of("b")
    assert dict(zip(second["id"].to_pylist(), second["status"].to_pylist(), strict=True)) == {
        "ended": "done", "silent": "lost",
    }  # fmt: skip
    monkeypatch.setattr(jobs, "KEPT_S", 1e-9)
    assert tables.of("b") is not second
    assert tables.of("b").equals(second)
    # Under the limit the newest are kept; a table beyond it is given all the same.
    assert jobs.Tables(store, most_bytes=1).of("b").equals(second)
    with pytest.raises(NotFound):
        tables.of("none")
    store.close()


def test_an_id_is_found_whatever_it_names(store: Store) -> None:
    (row,) = store.query(
        "SELECT job_id, trace_id, span_id FROM spans WHERE kind = 'CONSUMER' ORDER BY start_ns LIMIT 1"
    ).to_pylist()
    for text, kind in ((row["job_id"], "job"), (row["trace_id"], "trace"), (row["span_id"], "span")):
        found = records.search(store, text)["found"]
        assert (found[0]["kind"], found[0]["id"]) == (kind, text)
    assert [each["kind"] for each in records.search(store, f"{HOST}:410")["found"]] == ["worker"] * 4
    assert len(records.search(store, "sample-001-job", limit=50)["found"]) == 40
    assert len(records.search(store, "sample-001-job", limit=7)["found"]) == 7
    # A part of an id that nothing begins with names nothing.
    for text in (row["span_id"][:15], row["trace_id"][1:], "0" * 16, "0" * 32):
        assert records.search(store, text)["found"] == []
