"""The routes that the command line asks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from bulkscope_studio.server import api
from bulkscope_studio.storage.store import Store
from tests.studio.sample import fill


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(tmp_path / "s.duckdb")
    yield opened
    opened.close()


def client(store: Store) -> httpx.AsyncClient:
    app = FastAPI()
    api.install(app, store)
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://studio")


async def test_bulks_newest_first(store: Store) -> None:
    fill(store.connection(), jobs=8)
    async with client(store) as http:
        rows = (await http.get("/api/bulks")).json()
    assert [row["id"] for row in rows] == ["sample-002", "sample-refused", "sample-001"]
    assert [(row["jobs"], row["done"], row["failed"]) for row in rows] == [(8, 8, 0), (0, 0, 0), (8, 7, 1)]
    assert rows[0]["models"] == ["smollm2-135m-q8_0"]


async def test_report_of_a_bulk(store: Store) -> None:
    fill(store.connection(), jobs=8)
    async with client(store) as http:
        found = (await http.get("/api/bulks/sample-001/report")).json()
    jobs = found["total"]["jobs"]
    assert (jobs["attempts"], jobs["done"], jobs["failed"], jobs["retries"]) == (9, 7, 1, 1)
    assert jobs["failures_by_domain"] == {"model": 1}
    assert jobs["errors"] == {"EngineError": 1, "TimeoutError": 1}
    assert found["little"]["ok"]
    assert [group["name"] for group in found["workers"]] == ["sample-host:4100", "sample-host:4101"]
    recorded = store.query(
        "SELECT sum(output_tokens) AS tokens, max(memory_peak) AS peak FROM spans WHERE bulk_id = 'sample-001'"
    ).to_pylist()[0]
    assert found["total"]["inferences"]["output_tokens"] == recorded["tokens"]
    assert found["total"]["inferences"]["memory_peak_bytes"] == recorded["peak"]
    assert 0.5 < found["hosts"][0]["cpu_mean_share"] <= 1


async def test_refused_request_has_a_report_without_jobs(store: Store) -> None:
    fill(store.connection(), jobs=8)
    async with client(store) as http:
        found = (await http.get("/api/bulks/sample-refused/report")).json()
    assert found["requests"]["outcomes"]["overload"] == 1
    assert found["progress"]["sent"] == 0


async def test_running_job_is_seen_before_its_span(store: Store) -> None:
    fill(store.connection(), jobs=8, faults=False)
    con = store.connection()
    con.execute("DELETE FROM spans WHERE job_id = 'sample-002-job-0007' AND kind IN ('CONSUMER', 'INTERNAL')")
    con.execute("DELETE FROM spans WHERE job_id = 'sample-002-job-0006' AND kind <> 'PRODUCER'")
    con.execute("DELETE FROM logs WHERE job_id = 'sample-002-job-0006'")
    async with client(store) as http:
        found = (await http.get("/api/bulks/sample-002/report")).json()
    progress = found["progress"]
    # The sample lies in the past, so the begun one has long been silent.
    assert (progress["sent"], progress["done"], progress["lost"], progress["waiting"]) == (8, 6, 1, 1)
    assert found["little"] is None


async def test_unknown_bulk_is_404_with_the_nearest(store: Store) -> None:
    fill(store.connection(), jobs=8)
    async with client(store) as http:
        answer = await http.get("/api/bulks/sampel-002/report")
    assert answer.status_code == 404
    assert answer.json()["nearest"][0] == "sample-002"


async def test_empty_store(store: Store) -> None:
    async with client(store) as http:
        assert (await http.get("/api/bulks")).json() == []
        answer = await http.get("/api/bulks/any/report")
    assert (answer.status_code, answer.json()["nearest"]) == (404, [])


async def test_id_with_a_slash(store: Store) -> None:
    fill(store.connection(), jobs=8)
    store.connection().execute("UPDATE spans SET bulk_id = 'team/night 1' WHERE bulk_id = 'sample-002'")
    async with client(store) as http:
        answer = await http.get("/api/bulks/team%2Fnight%201/report")
    assert answer.json()["id"] == "team/night 1"


@pytest.mark.parametrize("asked", ["/api/compare", "/api/capacity?rate=many", "/api/capacity/progress"])
async def test_a_parameter_that_is_missing_or_no_number_is_told_as_every_other_error(store: Store, asked: str) -> None:
    async with client(store) as http:
        answer = await http.get(asked)
    assert answer.status_code == 400
    assert set(answer.json()) == {"error"}
    named = {"/api/compare": "a", "/api/capacity?rate=many": "rate", "/api/capacity/progress": "bulk"}[asked]
    assert answer.json()["error"].startswith(f"{named}: ")
