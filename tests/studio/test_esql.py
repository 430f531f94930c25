"""Answers of Elasticsearch that come a page at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkscope_studio import esql

ROWS = 5
AFTER = {"after_ms": ("start_ms", -1), "after_id": ("record_id", "")}
# Fewer copies of one record than there are rows in a page, as `esql.pages` promises for.
records = st.dictionaries(
    st.tuples(st.integers(0, 4), st.text("ab", min_size=1, max_size=2)), st.integers(1, ROWS - 1), max_size=30
)


class Holding:
    """Answers as Elasticsearch does a query that sorts, limits, and begins after the last row of the page before."""

    def __init__(self, copies: Mapping[tuple[int, str], int]) -> None:
        self.rows = sorted(key for key, number in copies.items() for _ in range(number))
        self.asked = 0

    def query(self, client: Any, name: str, params: Mapping[str, Any], absent: Any, rows: int, **texts: Any) -> Any:
        self.asked += 1
        found = [row for row in self.rows if row > (params["after_ms"], params["after_id"])][:rows]
        return {"start_ms": [row[0] for row in found], "record_id": [row[1] for row in found]}


@given(records)
def test_each_copy_of_each_record_comes_once(copies: dict[tuple[int, str], int]) -> None:
    there = Holding(copies)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(esql, "ROWS", ROWS)
        patch.setattr(esql, "query", there.query)
        client: Any = None
        pages = [
            list(zip(page["start_ms"], page["record_id"], strict=True)) for page in esql.pages(client, "any", {}, AFTER)
        ]
    assert Counter(row for page in pages for row in page) == copies
    of = [set(page) for page in pages]
    assert all(not one & other for number, one in enumerate(of) for other in of[:number]), "copies come together"


def test_more_copies_than_a_page_holds_are_gone_past() -> None:
    there = Holding({(1, "a"): 3 * ROWS, (2, "b"): 1})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(esql, "ROWS", ROWS)
        patch.setattr(esql, "query", there.query)
        client: Any = None
        rows = [row for page in esql.pages(client, "any", {}, AFTER) for row in page["record_id"]]
    assert set(rows) == {"a", "b"}
    assert there.asked <= 3
