"""The demo's traffic: how its processes are instrumented, and what of it Elasticsearch has."""

from __future__ import annotations

import itertools
import os
from typing import TYPE_CHECKING, Any

from bulkscope import _launcher
from tests.engines.servers import ask

if TYPE_CHECKING:
    from tests.engines.conftest import Stack

JOBS = 12
DATABASES = itertools.count(9)  # of the broker, for each module that uses `sent`: a bulk is accepted once


def instrumented(endpoint: str, *command: str) -> dict[str, str]:
    """Return what ``bulkscope run`` would add to the environment of ``command``."""
    before = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    environment = before | {
        "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
        "OTEL_METRIC_EXPORT_INTERVAL": "1000",
        "OTEL_SERVICE_NAME": "demo",
        "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=test",
    }
    _launcher.environment(command, environment)
    return {name: value for name, value in environment.items() if before.get(name) != value}


def documents(stack: Stack, pattern: str) -> list[dict[str, Any]]:
    ask("POST", f"{stack.elasticsearch}/{pattern}/_refresh")
    found = ask("POST", f"{stack.elasticsearch}/{pattern}/_search", {"size": 10_000, "query": {"match_all": {}}})
    return [hit["_source"] for hit in found["hits"]["hits"]]
