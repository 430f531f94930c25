"""One stack of real servers for the tests of a module: Elasticsearch, Prometheus, and the Collector between."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.demo.conftest import broker, service, tiny  # noqa: F401 (fixtures)
from tests.engines import bridge, servers, templates

PROMETHEUS = """
global: {scrape_interval: 1s}
otlp:
  promote_resource_attributes: [service.name, service.instance.id, host.name, deployment.environment.name]
storage: {tsdb: {out_of_order_time_window: 1h}}
"""


@dataclass
class Stack:
    """Base URLs."""

    otlp: str
    elasticsearch: str
    prometheus: str
    collector: servers.Server


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder: Path = tmp_path_factory.mktemp("stack")
    with (
        servers.elasticsearch(folder / "elasticsearch") as store,
        servers.prometheus(folder / "prometheus", PROMETHEUS) as metrics,
        bridge.serve(store.url) as otlp,
    ):
        templates.install(store.url)
        backends = {"ELASTICSEARCH_ENDPOINT": otlp, "PROMETHEUS_ENDPOINT": metrics.url}
        with servers.collector(folder / "collector", backends) as collector:
            yield Stack(collector.url, store.url, metrics.url, collector)
