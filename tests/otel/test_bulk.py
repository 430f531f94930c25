from __future__ import annotations

import pytest
from opentelemetry import baggage

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
