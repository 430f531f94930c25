"""One stack of real servers for the tests of a module, Elasticsearch, Prometheus and the Collector; and its traffic."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from bulkscope_studio.storage.store import Store
from tests import sink
from tests.demo.conftest import ROOT, Service, broker, call, service, tiny, until  # noqa: F401 (fixtures)
from tests.engines import bridge, homes, servers, templates
from tests.engines.traffic import DATABASES, JOBS, documents, instrumented
from tests.processes import PATIENCE_S, free_port

PROMETHEUS = """
global: {scrape_interval: 1s}
otlp:
  promote_resource_attributes: [service.name, service.instance.id, host.name, deployment.environment.name]
storage: {tsdb: {out_of_order_time_window: 1h}}
"""

# A sender whose broker has gone: its job of the bulk is not sent. Without a result, which Celery would ask for first.
IN_VAIN = """
from kombu.exceptions import OperationalError
from demo import tasks
try:
    job = {"prompt": "a", "bulk_id": "tiny", "model": "tiny", "max_tokens": 4}
    tasks.generate.apply_async(kwargs=job, retry=False, ignore_result=True)
except OperationalError:
    raise SystemExit(3)
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


@pytest.fixture(scope="module")
def sent(stack: Stack, service: Callable[..., Service]) -> Iterator[sink.Sink]:  # noqa: F811
    """What the demo's processes have sent to the Collector, all of it: they have ended by now."""
    with sink.serve() as between:
        between.forward = stack.otlp
        demo = service(next(DATABASES), worker=True, **instrumented(between.url, "uvicorn", "demo.app:app"))
        for model in ("tiny", "unknown"):
            call(f"{demo.url}/bulks", {"model": model, "prompts": ["a b c"] * JOBS, "max_tokens": 4, "bulkId": model})
        until(lambda: call(f"{demo.url}/bulks/tiny").body.get("done") == JOBS, "the bulk is done")
        away = demo.env | {"DEMO_BROKER": f"redis://127.0.0.1:{free_port()}/0"}
        sender = subprocess.run([sys.executable, "-c", IN_VAIN], cwd=ROOT, env=away, timeout=PATIENCE_S)
        assert sender.returncode == 3, "the broker was away"
        demo.end()
        yield between


@pytest.fixture
def studio(stack: Stack, sent: sink.Sink, tmp_path: Path) -> Store:
    """A studio's store with the same spans and log records as Elasticsearch, which has them all by now."""
    servers.eventually(lambda: len(documents(stack, "traces-*")) >= len(sent.spans))
    servers.eventually(lambda: len(documents(stack, "logs-*")) >= len(sent.logs))
    return homes.store(tmp_path / "studio.duckdb", sent.bodies, "traces", "logs")
