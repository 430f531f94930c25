"""Two bulks in two homes: one comparison, read from the studio and from Elasticsearch."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from bulkscope_studio import compare, comparison, decode
from bulkscope_studio.store import Store
from tests import sink
from tests.engines import homes
from tests.engines.conftest import Stack
from tests.engines.servers import eventually
from tests.engines.test_pipeline import JOBS, documents, sent  # noqa: F401 (fixture)


@pytest.fixture
def studio(stack: Stack, sent: sink.Sink, tmp_path: Path) -> Store:  # noqa: F811
    eventually(lambda: len(documents(stack, "traces-*")) >= len(sent.spans))
    eventually(lambda: len(documents(stack, "logs-*")) >= len(sent.logs))
    store = Store(tmp_path / "studio.duckdb")
    kinds: dict[str, tuple[Any, Callable[[Any], decode.Decoded]]] = {
        "traces": (ExportTraceServiceRequest, decode.traces),
        "logs": (ExportLogsServiceRequest, decode.logs),
    }
    for path, body in sent.bodies:
        if (kind := path.rpartition("/")[2]) in kinds:
            request, rows = kinds[kind]
            homes.keep(store, rows(request.FromString(body)))
    return store


def test_every_number_is_the_same(
    stack: Stack,
    studio: Store,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    ours = json.loads(json.dumps(comparison.compare(comparison.of_store(studio), "tiny", "unknown")))
    monkeypatch.setenv("ELASTICSEARCH_URL", stack.elasticsearch)
    assert compare.command(["tiny", "unknown", "--source", "elasticsearch", "--format", "json"]) == 0
    theirs = json.loads(capsys.readouterr().out)
    assert (ours["a"]["sent"], ours["a"]["failed"]) == (JOBS, 0)
    assert ours["a"]["output_tokens_mean"] > 0
    # Elasticsearch keeps starts in milliseconds, and these are times of day in nanoseconds.
    homes.compare(ours, theirs, ("start_ns", "end_ns"))


def test_what_is_not_there_is_said(
    stack: Stack,
    studio: Store,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("ELASTICSEARCH_URL", stack.elasticsearch)
    for words, says in (
        (["tiny", "unknwon"], f"no bulk or run 'unknwon' in {stack.elasticsearch}. Nearest: unknown"),
        (["tiny@big", "unknown"], "no model in 'tiny': 'big'"),
        (["tiny"], "Last bulks: "),
    ):
        assert compare.command([*words, "--source", "elasticsearch"]) == 2
        assert says in capsys.readouterr().err
