"""A bulk is deleted by its user: its records, by the thread that writes, and nothing of any other bulk."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from fastapi import FastAPI
from playwright.sync_api import Browser
from starlette.testclient import TestClient

from bulkscope_studio.server import v1
from bulkscope_studio.storage import retention, summaries
from bulkscope_studio.storage.store import Store
from tests.processes import PATIENCE_S
from tests.rows import BEGIN_NS, SECOND, add, alive, span
from tests.studio.otlp import PROTOBUF, traces
from tests.studio.serving import Addresses, studio

ODD = ("a/b", "a/jobs", "..", "%0A", "'; DROP TABLE spans", "😀")
FOREIGN = {"Origin": "https://evil.example"}


def trace(number: int) -> str:
    return f"{number:032x}"


def records(
    bulk: str | None, traces_of: tuple[int, ...], first: int
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return spans and log records, one of each a trace."""
    spans = [
        span("CONSUMER", BEGIN_NS, BEGIN_NS + SECOND, trace_id=trace(number), span_id=f"{first + n:016x}", bulk_id=bulk,
             job_id=None if bulk is None else f"j{n}", outcome="ok", resource_id=f"r-{bulk}")
        for n, number in enumerate(traces_of)
    ]  # fmt: skip
    logs = [
        {"time_ns": BEGIN_NS, "trace_id": trace(number), "bulk_id": bulk, "body": "line", "resource_id": f"r-{bulk}"}
        for number in traces_of
    ]
    return spans, logs


def counts(store: Store) -> dict[tuple[str, str | None], int]:
    rows = store.query(
        "SELECT 'spans' AS name, bulk_id, count(*) AS n FROM spans GROUP BY ALL"
        " UNION ALL SELECT 'logs', bulk_id, count(*) FROM logs GROUP BY ALL"
    ).to_pylist()
    return {(row["name"], row["bulk_id"]): row["n"] for row in rows}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """Trace 1 is of ``mine`` alone, with records that have no bulk; 2 is shared with ``other``, which has 3 alone."""
    opened = Store(tmp_path / "s.duckdb")
    for number, (bulk, traces_of) in enumerate((("mine", (1, 2)), ("other", (2, 3)), (None, (1, 2, 3, 4)))):
        spans, logs = records(bulk, traces_of, 100 * (number + 1))
        add(opened.connection(), "spans", spans)
        add(opened.connection(), "logs", logs)
    add(opened.connection(), "logs", [{"time_ns": BEGIN_NS, "body": "of no trace"}])
    add(opened.connection(), "points", [alive(BEGIN_NS, resource_id="r-mine")])
    opened.connection().execute("INSERT INTO resources VALUES ('r-mine', '{}'), ('r-other', '{}'), ('r-None', '{}')")
    with opened.writing() as connection:
        summaries.ensure(connection)
        summaries.refresh(connection, rest_s=0)
    yield opened
    opened.close()


def keeper(store: Store) -> retention.Retention:
    return retention.Retention(store, 10_000 * 86_400, 10**12)


def test_its_records_go_and_those_of_no_bulk_where_their_trace_is_its_alone(store: Store) -> None:
    assert keeper(store).delete_bulk("mine") == {"spans": 3, "logs": 3}
    assert counts(store) == {
        ("spans", "other"): 2, ("logs", "other"): 2, ("spans", None): 3, ("logs", None): 4,
    }  # fmt: skip
    left = store.query("SELECT DISTINCT trace_id FROM spans WHERE bulk_id IS NULL ORDER BY ALL").to_pylist()
    assert [row["trace_id"] for row in left] == [trace(2), trace(3), trace(4)]
    # A resource stays as long as a record has it.
    owned = store.query("SELECT resource_id FROM resources ORDER BY ALL")["resource_id"].to_pylist()
    assert owned == ["r-None", "r-mine", "r-other"]
    # The shared trace goes with the last bulk that has a record in it.
    assert keeper(store).delete_bulk("other") == {"spans": 4, "logs": 4}
    assert counts(store) == {("spans", None): 1, ("logs", None): 2}
    assert store.query("SELECT resource_id FROM resources ORDER BY ALL")["resource_id"].to_pylist() == [
        "r-None",
        "r-mine",
    ]


def test_the_table_of_bulks_has_no_row_of_it_and_is_still_of_all_that_is_stored(store: Store) -> None:
    keeper(store).delete_bulk("mine")
    assert summaries.ids(store) == ["other"]
    assert summaries.extent(store, "mine") is None
    with store.writing() as connection:
        summaries.refresh(connection, rest_s=0)
    assert store.query("SELECT bulk_id FROM bulks ORDER BY ALL")["bulk_id"].to_pylist() == ["other", None]
    assert store.query("SELECT count(*) AS n FROM bulk_changes").to_pylist() == [{"n": 0}]
    held = store.query("SELECT sum(spans)::BIGINT AS spans, sum(logs)::BIGINT AS logs FROM bulks").to_pylist()
    assert held == [{"spans": 5, "logs": 6}]


def test_what_went_is_counted_and_is_no_reason_for_the_retention_to_delete_more(store: Store) -> None:
    kept = keeper(store)
    kept.delete_bulk("mine")
    said = store.query("SELECT signal, outcome, reason, records FROM ingest ORDER BY signal").to_pylist()
    assert said == [
        {"signal": name, "outcome": "deleted", "reason": "bulk", "records": 3} for name in ("logs", "spans")
    ]
    assert kept.delete_bulk("mine") == {"spans": 0, "logs": 0}
    assert kept.apply() == 0


def bulk(at: Addresses, name: str, *jobs: str) -> None:
    for job in jobs:
        body = traces({"bulk.id": name, "bulk.job.id": job, "bulk.job.outcome": "ok"}, kind=5).SerializeToString()
        assert httpx.post(f"{at.otlp_http}/v1/traces", content=body, headers=PROTOBUF).status_code == 200


@pytest.fixture(scope="module")
def at(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Addresses]:
    with studio(tmp_path_factory.mktemp("deletion") / "s.duckdb", "--no-host", "--retention", "9000d") as found:
        yield found


@pytest.fixture(scope="module")
def http(at: Addresses) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"{at.web}/api/v1", timeout=PATIENCE_S) as client:
        yield client


def listed(http: httpx.Client) -> set[str]:
    return {row["id"] for row in http.get("/bulks?limit=500").json()["bulks"]}


def path(name: str) -> str:
    return f"/bulks/{quote(name, safe='').replace('.', '%2E')}"


@pytest.mark.parametrize("name", ["plain", *ODD])
def test_it_is_gone_from_every_answer_and_others_stay(at: Addresses, http: httpx.Client, name: str) -> None:
    bulk(at, name, "a", "b")
    bulk(at, "stays", "c")
    assert http.get(f"{path(name)}/ending").status_code == 200
    assert http.post("/runs", json={"name": "week.1", "bulks": [name], "replace": True}).status_code == 200
    answer = http.delete(path(name))
    assert (answer.status_code, answer.json()) == (
        200, {"deleted": name, "spans": 2, "logs": 0, "kept_in_runs": ["week.1"]},
    )  # fmt: skip
    assert listed(http) == {"stays"}
    for what in ("summary", "report", "explanation", "ending", "jobs", "overtime", "failures"):
        assert http.get(f"{path(name)}/{what}").status_code == 404, what
    assert http.delete(path(name)).status_code == 404
    assert http.get("/compare", params={"a": "week.1", "b": "stays"}).status_code == 200, "what was kept is there"


def test_what_comes_of_it_later_is_stored(at: Addresses, http: httpx.Client) -> None:
    bulk(at, "again", "a", "b")
    assert http.delete("/bulks/again").json()["spans"] == 2
    bulk(at, "again", "c")
    assert http.get("/bulks/again/jobs").json()["total"] == 1
    assert http.delete("/bulks/again").status_code == 200


def test_one_that_runs_is_refused_unless_that_is_said(at: Addresses, http: httpx.Client) -> None:
    waits = traces({"bulk.id": "runs", "bulk.job.id": "j"}, kind=4).SerializeToString()
    assert httpx.post(f"{at.otlp_http}/v1/traces", content=waits, headers=PROTOBUF).status_code == 200
    assert http.get("/bulks/runs/summary").json()["state"] == "running"
    refused = http.delete("/bulks/runs")
    assert refused.status_code == 409
    assert "running=true" in refused.json()["do"]
    assert "runs" in listed(http)
    assert http.delete("/bulks/runs?running=true").json()["spans"] == 1
    assert "runs" not in listed(http)


def test_the_newest_cannot_be_deleted_by_that_name(at: Addresses, http: httpx.Client) -> None:
    bulk(at, "newest", "a")
    refused = http.delete("/bulks/latest")
    assert refused.status_code == 400
    assert "by its id" in refused.json()["error"]
    assert "newest" in listed(http)


def test_a_store_without_a_writer_says_that_it_deletes_nothing(store: Store) -> None:
    app = FastAPI()
    v1.install(app, store)
    refused = TestClient(app).delete("/api/v1/bulks/mine")
    assert refused.status_code == 503
    assert "only read" in refused.json()["error"]
    assert counts(store)["spans", "mine"] == 2


async def test_clients_are_told(at: Addresses) -> None:
    async with httpx.AsyncClient(base_url=f"{at.web}/api/v1", timeout=PATIENCE_S) as http:
        for name in ("told", "untold"):
            await asyncio.to_thread(bulk, at, name, "a")
        async with http.stream("GET", "/events?bulk=told") as answer:
            lines = answer.aiter_lines()
            assert await asyncio.wait_for(anext(lines), PATIENCE_S) == ": listening"
            assert (await http.delete("/bulks/untold")).status_code == 200
            assert (await http.delete("/bulks/told")).status_code == 200
            # That it has changed lately is told first, to whoever begins to listen.
            while (said := await asyncio.wait_for(anext(lines), PATIENCE_S)) != "event: deleted":
                assert said in ("", "event: changed", 'data: {"bulks":["told"],"more":false}')
            told = await asyncio.wait_for(anext(lines), PATIENCE_S)
    assert json.loads(told.removeprefix("data: ")) == {"bulks": ["told"], "more": False}


@pytest.mark.parametrize(
    ("headers", "status"), [(FOREIGN, 403), ({"Origin": "null"}, 403), ({"Host": "evil.example"}, 400)]
)
def test_another_page_cannot_ask_for_it(
    at: Addresses, http: httpx.Client, headers: dict[str, str], status: int
) -> None:
    bulk(at, "asked", "a")
    for answer in (
        http.delete("/bulks/asked", headers=headers),
        http.options("/bulks/asked", headers={**headers, "Access-Control-Request-Method": "DELETE"}),
        http.post("/bulks/asked", headers={**headers, "X-HTTP-Method-Override": "DELETE"}, data={"_method": "DELETE"}),
    ):
        assert answer.status_code == status
        assert "access-control-allow-origin" not in answer.headers
    assert "asked" in listed(http)


def test_a_page_of_another_port_has_the_cookie_of_a_login_and_cannot_either(browser: Browser, tmp_path: Path) -> None:
    """To a browser both ports are one site: the cookie goes along, and only the origin tells the two apart."""
    password = "a long password"
    asked = studio(tmp_path / "s.duckdb", "--no-host", BULKSCOPE_STUDIO_PASSWORD=password)
    with asked as at, httpx.Client(base_url=f"{at.web}/api/v1", auth=("any", password)) as http:
        bulk(at, "kept", "a")
        assert httpx.delete(f"{at.web}/api/v1/bulks/kept").status_code == 401
        context = browser.new_context(http_credentials={"username": "any", "password": password})
        page = context.new_page()
        deletes = "url => fetch(url, {method: 'DELETE', credentials: 'include'}).then(a => a.status, String)"
        page.goto(f"{at.web}/api/v1/status")
        assert page.evaluate(deletes, f"{at.web}/api/v1/bulks/none") == 404
        there = f"{at.otlp_http}/page"
        context.route(there, lambda route: route.fulfill(content_type="text/html", body="<p>a page"))
        page.goto(there)
        assert page.evaluate("location.origin") == at.otlp_http
        assert "Failed to fetch" in page.evaluate(deletes, f"{at.web}/api/v1/bulks/kept")
        context.close()
        assert listed(http) == {"kept"}
        assert http.delete("/bulks/kept").status_code == 200
