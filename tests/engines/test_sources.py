"""The body of tests that each source passes, over a real Elasticsearch that has bulks."""

from __future__ import annotations

import pytest

from bulkscope_studio.elastic.client import Client
from bulkscope_studio.sources.elasticsearch import ElasticsearchSource
from bulkscope_studio.sources.source import InvalidQuery, Source, Wanted
from tests import sink
from tests.engines.conftest import Stack
from tests.engines.servers import eventually
from tests.engines.traffic import JOBS, documents
from tests.studio import asking


@pytest.fixture
def source(stack: Stack, sent: sink.Sink) -> Source:
    eventually(lambda: len(documents(stack, "traces-*")) >= len(sent.spans))
    eventually(lambda: len(documents(stack, "logs-*")) >= len(sent.logs))
    return ElasticsearchSource(Client("Elasticsearch", stack.elasticsearch))


def test_bulks_are_listed_reported_explained_and_compared(source: Source) -> None:
    asking.bulks(source, "tiny", "unknown", JOBS)


def test_the_list_is_filtered_and_sorted(source: Source) -> None:
    asking.listed(source, "tiny")
    for name in ("service", "host", "worker", "verdict"):
        with pytest.raises(InvalidQuery, match=f"leave --{name} out"):
            source.listed(Wanted(**{name: "x"}))


def test_what_is_not_there_is_not_found(source: Source) -> None:
    ids = [row["id"] for row in source.bulks()]
    asking.unknown(source, sorted(ids, key=lambda name: name != "tiny"))


def test_what_makes_no_sense_is_an_invalid_query(source: Source) -> None:
    asking.senseless(source, "tiny")
