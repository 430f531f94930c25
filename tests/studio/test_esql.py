"""Answers of Elasticsearch that come a page at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkscope_studio.elastic import esql

ROWS = 5
AFTER = {"after_ms": ("start_ms", -1), "after_id": ("record_id", "")}
# Fewer copies of one record than there are rows in a page, as `esql.pages` promises for.
records = st.dictionaries(
    st.tuples(st.integers(0, 4), st.text("ab", min_size=1, max_size=2)), st.integers(1, ROWS - 1), max_size=30
)


def milliseconds(date: str) -> int:
    return round(datetime.fromisoformat(date).timestamp() * 1000)


class Holding:
    """Answers as Elasticsearch does a query that sorts, limits, and begins after the last row of the page before."""

    def __init__(self, copies: Mapping[tuple[int, str], int]) -> None:
        self.rows = sorted(key for key, number in copies.items() for _ in range(number))
        self.asked = self.looked_at = 0

    def query(self, client: Any, name: str, params: Mapping[str, Any], absent: Any, rows: int, **texts: Any) -> Any:
        self.asked += 1
        since = milliseconds(params["since"]) if "since" in params else 0
        until = milliseconds(params["until"]) if "until" in params else 10**9
        of_time = [row for row in self.rows if since <= row[0] < until]
        self.looked_at += len(of_time)
        found = [row for row in of_time if row > (params["after_ms"], params["after_id"])][:rows]
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


def in_time(there: Holding, last_ms: int, likely: int) -> list[list[tuple[int, str]]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(esql, "ROWS", ROWS)
        patch.setattr(esql, "query", there.query)
        client: Any = None
        pages = esql.pages_in_time(client, "any", {}, AFTER, (0, last_ms, likely), 1)
        return [list(zip(page["start_ms"], page["record_id"], strict=True)) for page in pages]


@given(
    st.dictionaries(
        st.tuples(st.integers(0, 9) | st.integers(0, 10**7), st.text("ab", min_size=1, max_size=2)),
        st.integers(1, ROWS - 1),
        max_size=30,
    ),
    st.integers(0, 1000),
)
def test_each_copy_of_each_record_of_a_time_comes_once(copies: dict[tuple[int, str], int], likely: int) -> None:
    pages = in_time(Holding(copies), 10**7, likely)
    assert Counter(row for page in pages for row in page) == copies
    assert all(pages), "no page is empty"
    of = [set(page) for page in pages]
    assert all(not one & other for number, one in enumerate(of) for other in of[:number]), "copies come together"


def test_a_page_of_a_time_is_read_without_the_others() -> None:
    """Of 300 records a second apart, and 200 in a fifth of a second long after, each is looked at about once."""
    copies = {(at, "a"): 1 for at in (*range(0, 300_000, 1000), *range(9_000_000, 9_000_200))}
    there = Holding(copies)
    assert sum(map(len, in_time(there, 10**7, len(copies)))) == len(copies)
    assert there.looked_at < 3 * len(copies)
    assert there.asked < len(copies)


def test_more_copies_than_a_page_of_a_time_holds_are_gone_past() -> None:
    pages = in_time(Holding({(1, "a"): 3 * ROWS, (2, "b"): 1}), 2, 3)
    assert {row for page in pages for row in page} == {(1, "a"), (2, "b")}
