"""The demo's API and worker as they are without telemetry: real Valkey, real engine, a tiny model."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.demo.conftest import Service, call, until
from tests.processes import free_port

Start = Callable[..., Service]
QUEUING, FULL, WORKING = 1, 2, 3  # databases


def bulk(**changes: object) -> dict[str, object]:
    return {"model": "tiny", "prompts": ["one", "two"], "max_tokens": 4} | changes


@pytest.fixture(scope="module")
def queuing(service: Start) -> Service:
    """Without a worker: what is sent stays in the queue."""
    return service(QUEUING)


@pytest.fixture(scope="module")
def working(service: Start) -> Service:
    return service(WORKING, worker=True, DEMO_CONTEXT="256")


def test_a_bulk_is_accepted_and_waits(queuing: Service) -> None:
    before = call(f"{queuing.url}/healthz").body["queue"]
    sent = call(f"{queuing.url}/bulks", bulk(bulkId="first"))
    assert sent.status == 202
    assert sent.body["bulkId"] == "first"
    assert len(set(sent.body["jobIds"])) == 2
    assert call(f"{queuing.url}/healthz").body == {"status": "ok", "queue": before + 2}
    state = call(f"{queuing.url}/bulks/first").body
    assert (state["size"], state["waiting"], state["done"], state["failed"]) == (2, 2, 0, 0)
    assert [job["jobId"] for job in state["jobs"]] == sent.body["jobIds"]


def test_a_bulk_without_an_id_gets_one(queuing: Service) -> None:
    one, two = (call(f"{queuing.url}/bulks", bulk()).body["bulkId"] for _ in range(2))
    assert one != two
    assert call(f"{queuing.url}/bulks/{one}").body["size"] == 2


def test_an_id_is_taken_once(queuing: Service) -> None:
    assert call(f"{queuing.url}/bulks", bulk(bulkId="twice")).status == 202
    before = call(f"{queuing.url}/healthz").body["queue"]
    again = call(f"{queuing.url}/bulks", bulk(bulkId="twice"))
    assert again.status == 409
    assert "twice" in again.body["detail"]
    assert call(f"{queuing.url}/healthz").body["queue"] == before


@pytest.mark.parametrize(
    "body",
    [
        {},
        bulk(prompts=[]),
        bulk(prompts=[""]),
        bulk(prompts="one"),
        bulk(max_tokens=0),
        bulk(bulkId="no spaces"),
        bulk(unknown=1),
        bulk(model="nobody"),
        ["not", "an", "object"],
    ],
)
def test_a_bad_body_is_refused_and_nothing_is_sent(queuing: Service, body: object) -> None:
    before = call(f"{queuing.url}/healthz").body["queue"]
    assert call(f"{queuing.url}/bulks", body).status == 422
    assert call(f"{queuing.url}/healthz").body["queue"] == before


def test_an_unknown_model_is_answered_with_those_that_exist(queuing: Service) -> None:
    assert "tiny" in call(f"{queuing.url}/bulks", bulk(model="nobody")).body["detail"]


def test_an_unknown_bulk_is_not_found(queuing: Service) -> None:
    assert call(f"{queuing.url}/bulks/nowhere").status == 404


def test_a_full_queue_says_when_to_come_back(service: Start) -> None:
    full = service(FULL, DEMO_MAX_QUEUE="2", DEMO_RETRY_AFTER="7")
    assert call(f"{full.url}/bulks", bulk(prompts=["a", "b"])).status == 202
    # Two wait and two may: only a longer queue is too long.
    assert call(f"{full.url}/bulks", bulk(prompts=["c"])).status == 202
    refused = call(f"{full.url}/bulks", bulk(bulkId="late"))
    assert refused.status == 503
    assert refused.headers["retry-after"] == "7"
    assert call(f"{full.url}/healthz").body["queue"] == 3
    assert call(f"{full.url}/bulks/late").status == 404


def test_a_broker_that_is_away_is_an_overload_too(service: Start) -> None:
    alone = service(0, DEMO_BROKER=f"redis://127.0.0.1:{free_port()}/0")
    for found in (call(f"{alone.url}/bulks", bulk()), call(f"{alone.url}/healthz")):
        assert found.status == 503
        assert int(found.headers["retry-after"]) > 0


def test_progress_ends_with_the_answers(working: Service) -> None:
    prompts = ["short", "longer-é-" * 8]
    call(f"{working.url}/bulks", bulk(bulkId="work", prompts=prompts))
    until(lambda: call(f"{working.url}/bulks/work").body["done"] == 2, "two jobs done")
    jobs = call(f"{working.url}/bulks/work").body["jobs"]
    results = [job["result"] for job in jobs]
    # One token a byte (a blank would be three), and one for the begin of the text.
    assert [result["input_tokens"] for result in results] == [len(prompt.encode()) + 1 for prompt in prompts]
    assert all(1 <= result["output_tokens"] <= 4 for result in results)
    assert {result["finish_reason"] for result in results} <= {"length", "stop"}


def test_a_prompt_that_is_too_long_fails_alone(working: Service) -> None:
    call(f"{working.url}/bulks", bulk(bulkId="long", prompts=["x" * 1000, "fits"]))

    def ended() -> bool:
        state = call(f"{working.url}/bulks/long").body
        return bool(state["done"] + state["failed"] == 2)

    until(ended, "both jobs ended")
    long, fits = call(f"{working.url}/bulks/long").body["jobs"]
    assert (long["state"], fits["state"]) == ("failed", "done")
    assert long["error"].startswith("PromptTooLong")
    assert "256" in long["error"]
    assert "xxx" not in long["error"]
