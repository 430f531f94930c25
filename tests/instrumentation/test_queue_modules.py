"""What modules of queues do where no broker is needed; real libraries and brokers are in compatibility/."""

from __future__ import annotations

import asyncio
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest

from bulkscope._export import drops
from bulkscope._jobs import queues
from bulkscope_instrumentation import _redis, procrastinate, saq, taskiq
from tests.telemetry import Telemetry


@pytest.mark.parametrize(
    ("error", "reason"),
    [(asyncio.CancelledError(), None), (ValueError("refused"), "ValueError"), (None, "unregistered")],
)
def test_a_message_of_taskiq_that_is_not_run(
    telemetry: Telemetry, error: BaseException | None, reason: str | None
) -> None:
    loaded = SimpleNamespace(labels={}, task_id="1", task_name="t", args=[], kwargs={}, parse_labels=lambda: None)
    formatter = SimpleNamespace(loads=lambda message: loaded)
    broker = SimpleNamespace(formatter=formatter, find_task=lambda name: None)

    async def callback(*_: Any) -> None:
        if error is not None:
            raise error

    coroutine = taskiq._callback(callback, SimpleNamespace(broker=broker), (b"{}",), {})
    with pytest.raises(type(error)) if error is not None else nullcontext():
        asyncio.run(coroutine)
    told = [
        span.attributes["error.type"] for span in telemetry.spans() if span.attributes["bulk.outcome"] == "cancelled"
    ]
    assert told == ([] if reason is None else [reason])


class SSLConnection:
    """As redis names it."""


POOL = SimpleNamespace(
    connection_class=SSLConnection,
    connection_kwargs={
        "host": "h", "port": 1, "db": 2, "password": "p", "ssl_ca_certs": "/ca.pem", "ssl_check_hostname": True,
        "socket_timeout": 3.0, "socket_connect_timeout": 4.0, "decode_responses": True,
    },
)  # fmt: skip


def test_a_client_beside_another_has_its_certificates_and_time_limits() -> None:
    client = _redis.beside(POOL)
    made = client.connection_pool
    assert made.connection_class.__name__ == "SSLConnection"
    wanted = {key: value for key, value in POOL.connection_kwargs.items() if key != "decode_responses"}
    assert made.connection_kwargs.items() >= wanted.items()


def test_the_depth_of_saq_is_asked_for_as_its_queue_is(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(_redis, "beside", lambda pool: asked.append(pool) or SimpleNamespace(llen=lambda key: 5))
    watched: list[Any] = []
    monkeypatch.setattr(queues, "watch", lambda names, depth, age: watched.append((names, depth("prompts"))))
    saq._watch_redis(SimpleNamespace(name="prompts", redis=SimpleNamespace(connection_pool=POOL)))
    assert asked == [POOL]
    assert watched == [(["prompts"], 5.0)]


@pytest.mark.parametrize(("lock", "size", "why"), [("own", 10, "has both locks"), (None, 3000, "and 2000 is the most")])
def test_a_job_of_procrastinate_without_room_says_why(
    monkeypatch: pytest.MonkeyPatch, lock: str | None, size: int, why: str
) -> None:
    said: list[str] = []
    monkeypatch.setattr(procrastinate, "log_once", lambda where, text, *words: said.append(text % words))
    monkeypatch.setattr(drops, "count", lambda *_: None)
    job = SimpleNamespace(queueing_lock=lock, lock=lock)
    assert procrastinate._carrying(job, {"x": "y" * size}) is job
    (sentence,) = said
    assert why in sentence
