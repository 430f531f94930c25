"""One RabbitMQ and one Kafka for the tests of this folder, which run in one process."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.engines import servers


@pytest.fixture(scope="package")
def rabbitmq(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with servers.rabbitmq(tmp_path_factory.mktemp("rabbitmq")) as server:
        yield server.url


@pytest.fixture(scope="package")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with servers.kafka(tmp_path_factory.mktemp("kafka")) as server:
        yield server.url


@pytest.fixture(scope="package")
def brokers(rabbitmq: str, kafka: str) -> dict[str, str]:
    """Return the address of a broker by what ``messaging.system`` calls it."""
    return {"rabbitmq": rabbitmq, "kafka": kafka}
