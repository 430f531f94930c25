"""Stores with records that nothing sane has sent, and every answer of a store at once."""

from __future__ import annotations

import io
import json
import random
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import quote

from fastapi.testclient import TestClient

from bulkscope_studio.analysis.capacity.capacity import UnknownModel
from bulkscope_studio.rendering import bulks as render_bulks
from bulkscope_studio.rendering import capacity as render_capacity
from bulkscope_studio.rendering import comparison as render_compare
from bulkscope_studio.rendering import digest, explanation, report
from bulkscope_studio.rendering import whatif as render_whatif
from bulkscope_studio.rendering.output import Output
from bulkscope_studio.server import app
from bulkscope_studio.services import capacities, comparisons, digests, explanations, reports, whatifs
from bulkscope_studio.services import jobs as services_jobs
from bulkscope_studio.services.capacities import Question
from bulkscope_studio.services.endings import Ends, list_bulks
from bulkscope_studio.services.errors import InvalidQuery, NotFound
from bulkscope_studio.services.listing import Verdicts, Wanted, bulks
from bulkscope_studio.services.overtime import overtime
from bulkscope_studio.services.sides import StoredSides
from bulkscope_studio.storage.store import Store
from tests import rows
from tests.rows import SECOND, Places, Row

MINUTE = 60 * SECOND
Text = Callable[[Any, Output], None]


def bulk(name: str, now_ns: int, jobs: int = 12, workers: int = 2, seed: int = 1, resource: str = "r") -> list[Row]:
    """Return the spans of a healthy bulk that was put at once and ended 20 s before ``now_ns``, one inference a job."""
    rng = random.Random(f"{name}{seed}")
    begin = now_ns - 20 * SECOND - jobs * SECOND // workers - 3 * SECOND
    trace = f"{rng.getrandbits(128):032x}"

    def span(kind: str, start: int, end: int, **more: Any) -> Row:
        own = f"{rng.getrandbits(64):016x}"
        return rows.span(
            kind, start, end, trace_id=trace, span_id=own, name=kind.lower(), scope="s", service_name="svc",
            bulk_id=name, resource_id=resource, **more,
        )  # fmt: skip

    found = [
        span("SERVER", begin, begin + 10**7, http_method="POST", http_status=200, http_route="/b", outcome="ok",
             bulk_size=jobs, enqueue_duration=0.005, host_name="api", pid=1, service_instance_id="api")
    ]  # fmt: skip
    places = Places(workers, begin + 2 * 10**7)
    for number in range(jobs):
        job = f"{name}-{number}"
        put = begin + 10**6 * (number + 1)
        place, ready = places.take(put)
        start = ready + 2 * 10**6
        end = start + SECOND // 2 + rng.randrange(SECOND // 2)
        places.free[place] = end
        at = {"host_name": "h", "pid": 100 + place, "service_instance_id": f"{name}-w{place}"}
        found.append(span("PRODUCER", put, put + 10**5, job_id=job, queue="q", host_name="api", pid=1))
        work = span("CONSUMER", start, end, job_id=job, queue="q", attempt=1, wait=(start - put) / 1e9,
                    wait_ratio=(start - put) / (end - put), **at)  # fmt: skip
        tokens = rng.randrange(20, 60)
        found += [work, span(
            "INTERNAL", start + 10**6, end - 10**6, parent_span_id=work["span_id"], job_id=job, model="m",
            input_tokens=30, output_tokens=tokens, ttft=0.05, prefill=0.05, decode=0.3, cpu_time=0.4,
            cpu_utilization=0.5, cpu_exact=True, cpu_wait=0.01, memory_start=10**8, memory_peak=2 * 10**8,
            memory_growth=10**6, memory_file=10**7, memory_anon=10**8, memory_limit=10**10, memory_exact=True,
            tokens_per_second=tokens / 0.5, decode_tokens_per_second=tokens / 0.3, **at,
        )]  # fmt: skip
    return found


def api(store: Store, **given: str) -> dict[str, Any]:
    """Return what each GET route of the API answers, by its path: all that pages can ask.

    ``given`` are the values of required parameters, by name (``bulk_id``, ``trace_id``, …); a route with another is
    left out. An answer is its JSON; a fault of ours raises.
    """
    client = TestClient(app.build(store, dict), base_url="http://127.0.0.1")
    found = {}
    for path, methods in client.get("/api/v1/openapi.json").json()["paths"].items():
        required = [each for each in methods.get("get", {}).get("parameters", ()) if each["required"]]
        if "get" not in methods or path.endswith("/events") or not {each["name"] for each in required} <= given.keys():
            continue
        url = path
        for each in required:
            if each["in"] == "path":
                url = url.replace(f"{{{each['name']}}}", quote(given[each["name"]], safe=""))
        asked = {each["name"]: given[each["name"]] for each in required if each["in"] == "query"}
        answer = client.get(url, params=asked)
        assert answer.status_code < 500, (path, answer.text)
        found[path] = answer.json() if "json" in answer.headers["content-type"] else answer.text
    return found


def console() -> Output:
    return Output(file=io.StringIO(), width=120)


def spoken(found: Any, text: Text, markdown: Callable[[Any], str]) -> Any:
    """Return an answer of the API once it has been written as JSON, text and markdown; None of what is unknown."""
    if found is None:
        return None
    text(written(found), console())
    markdown(found)
    return found


def written(found: Any) -> Any:
    """Return an answer of the API that only programs and pages read, once it has been written as JSON."""
    json.dumps(found, allow_nan=False)
    return found


ANSWERS = ("digest", "report", "explain", "capacity", "compare", "overtime", "jobs", "whatif")


def answers(store: Store, bulk_id: str, now_ns: int | None = None, only: Iterable[str] = ANSWERS) -> dict[str, Any]:
    """Return every answer on one bulk; what it cannot answer from is told in words, anything else raises."""
    place = StoredSides(store)
    asked: dict[str, Callable[[], Any]] = {
        "digest": lambda: spoken(digests.bulk_digest(store, bulk_id), digest.text, json.dumps),
        "report": lambda: spoken(reports.bulk_report(store, bulk_id), report.text, report.markdown),
        "explain": lambda: spoken(
            explanations.bulk_explanation(store, bulk_id, now_ns), explanation.text, explanation.markdown
        ),
        "capacity": lambda: spoken(
            capacities.system_capacity(store, Question([bulk_id])), render_capacity.text, render_capacity.markdown
        ),
        "compare": lambda: spoken(
            comparisons.compare(place, bulk_id, bulk_id), render_compare.text, render_compare.markdown
        ),
        "overtime": lambda: written(overtime(store, bulk_id, bins=60, now_ns=now_ns)),
        "jobs": lambda: written(
            services_jobs.page(services_jobs.Tables(store), bulk_id, services_jobs.Wanted(), 100, 0)
        ),
        "whatif": lambda: spoken(
            whatifs.bulk_whatif(store, bulk_id, whatifs.Change(speed=2.0)), render_whatif.text, render_whatif.markdown
        ),
    }
    return {name: told(ask) for name, ask in asked.items() if name in only}


def told(ask: Callable[[], Any]) -> Any:
    """Return the answer, or what is said where there is none to give."""
    try:
        return ask()
    except (NotFound, InvalidQuery, UnknownModel) as refusal:
        return str(refusal)


def everything(store: Store) -> dict[str, Any]:
    """Return the answers that are of no one bulk."""
    rows = list_bulks(store)
    render_bulks.text(bulks(store, Verdicts(store), Ends(store), Wanted()), console())
    capacity = told(
        lambda: spoken(capacities.system_capacity(store), render_capacity.text, render_capacity.markdown)
    )  # fmt: skip
    return {"bulks": rows, "capacity": capacity}
