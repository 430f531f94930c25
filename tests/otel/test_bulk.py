from __future__ import annotations

import logging
from typing import Any
from uuid import UUID

import pytest
from opentelemetry import baggage

from bulkscope import _safe
from bulkscope._jobs import bulks
from bulkscope._jobs.bulks import Bulk


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        ({"bulkId": "a"}, "a"),
        ({"bulk_id": 7}, "7"),
        ({"bulk.id": " a "}, "a"),
        ({"bulk": {"id": "inner"}}, "inner"),
        ({"bulkId": "", "bulk_id": "second"}, "second"),
        ({"bulkId": True}, None),
        ({"bulkId": ["a"]}, None),
        ({"bulkId": "x" * 257}, None),
        ({"bulkId": 10**255}, "1" + "0" * 255),
        ({"bulkId": 10**256}, None),
        ({"bulkId": -(10**255)}, None),
        ({"bulkId": 10**4000}, None),
        ({"bulkId": 10**5000}, None),
        ({"bulkId": 1.5}, None),
        ({"bulkId": UUID(int=7)}, "00000000-0000-0000-0000-000000000007"),
        ({"bulkId": "a\nb"}, None),
        ({"bulkId": "a\x1b[31mb"}, None),
        ({"bulkId": "Ärger 7"}, "Ärger 7"),
        ({"bulkId": None}, None),
        ([{"bulkId": "a"}], None),
        (None, None),
        (b"bytes", None),
    ],
)
def test_find(fields: object, found: str | None) -> None:
    assert bulks.find(fields) == found


def test_source_order_wins_over_order_of_arrival() -> None:
    bulk = Bulk()
    assert bulk.learn("from-header", "header")
    assert bulk.learn("from-body", "body")
    assert not bulk.learn("from-path", "path")
    assert not bulk.learn("again", "body")
    assert bulk.learn("from-baggage", "baggage")
    assert not bulk.learn(None, "baggage")
    assert (bulk.id, bulk.source) == ("from-baggage", "baggage")


def test_bound_bulk_travels_in_baggage() -> None:
    bulk = Bulk("b-1", "body")
    context = bulks.bind(bulk)
    assert bulks.current(context) is bulk
    assert bulks.from_baggage(context) == "b-1"
    assert bulks.current() is None
    assert baggage.get_all(bulks.bind(Bulk())) == {}


@pytest.mark.parametrize("value", ["x" * 300, "line\nbreak"])
def test_an_id_that_is_not_taken_is_said_without_its_text(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, value: str
) -> None:
    monkeypatch.setattr(_safe, "_reported", set())
    with caplog.at_level(logging.WARNING, "bulkscope"):
        assert bulks.clean(value) is None
        assert bulks.clean(value) is None
        assert bulks.clean("") is None
    (said,) = [record.getMessage() for record in caplog.records]
    assert "A bulk's id is not taken" in said
    assert value not in said


def by_position(bulk_id: str, prompt: str) -> None: ...


def keyword_only(prompt: str, *, bulk_id: str) -> None: ...


@pytest.mark.parametrize(
    ("function", "args", "kwargs", "found"),
    [
        (by_position, ("b", "p"), {}, "b"),
        (by_position, (UUID(int=7), "p"), {}, str(UUID(int=7))),
        (by_position, ("b", {"bulkId": "inside"}), {}, "inside"),
        (by_position, ("b",), {"bulkId": "named"}, "named"),
        (by_position, (), {}, None),
        (lambda prompt, bulkId: None, ("p", "b"), {}, "b"),
        (lambda prompt, bulkId: None, ("p",), {}, None),
        (keyword_only, ("p",), {"bulk_id": "b"}, "b"),
        (lambda *bulk_id: None, ("p",), {}, None),
        (None, ("b", "p"), {}, None),
        (print, ("b",), {}, None),
        (7, ("b",), {}, None),
        ([], ("b",), {}, None),
    ],
)
def test_an_id_by_position(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any], found: str | None) -> None:
    assert bulks.find_in_call(args, kwargs, function) == found


def test_the_headers_of_a_request_follow_the_keys() -> None:
    assert bulks.header_names(("bulkId", "bulk_id", "bulk.id")) == ("bulk-id", "x-bulk-id")
    assert bulks.header_names(("batch_id", "Job", "runID")) == (
        "batch-id", "x-batch-id", "job", "x-job", "run-id", "x-run-id",
    )  # fmt: skip
