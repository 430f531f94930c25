"""The same records in the studio's store and in Elasticsearch, and answers from both held against each other."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import pytest

from bulkscope_studio import decode
from bulkscope_studio.store import Store

# "under 0.1 %" is what becomes of a smaller number.
NUMBER = re.compile(r"(?:under )?(?<![\w.])-?\d[\d,]*(?:\.\d+)?")
# Elasticsearch keeps the start of a span in milliseconds: what comes from a time of day is that far off, and a sum over
# jobs by what the errors of the jobs add up to.
CLOSE = {"rel": 0.02, "abs": 0.0015}


def keep(store: Store, found: decode.Decoded) -> None:
    """Add to a store what a request held."""
    for table, rows in found.arrow().items():
        conflict = "OR IGNORE " if table == "resources" else ""
        store.connection().register("incoming", rows).execute(f"INSERT {conflict}INTO {table} SELECT * FROM incoming")


def flat(value: Any, path: str = "") -> dict[str, Any]:
    """Return an answer as one dict: ``findings.0.evidence.2.value`` and the like; evidence goes by its name."""
    if isinstance(value, dict):
        return {name: leaf for key, item in value.items() for name, leaf in flat(item, f"{path}.{key}").items()}
    if isinstance(value, list | tuple):
        return {
            name: leaf
            for number, item in enumerate(value)
            for name, leaf in flat(item, f"{path}.{_key(item, number)}").items()
        }
    return {path: value}


def _key(item: Any, number: int) -> object:
    return item.get("name") or item.get("code") or number if isinstance(item, dict) else number


def _words(text: str) -> str:
    return NUMBER.sub("#", text)


def compare(ours: dict[str, Any], theirs: dict[str, Any], apart: Iterable[str] = ()) -> None:
    """Fail for each value that differs, but for those whose path has a text of ``apart``, and sentences made of them.

    Numbers inside a sentence are those that stand beside it: of a sentence its words count.
    """
    wanted, found = flat(ours), flat(theirs)
    wrong = {
        name: (wanted.get(name), found.get(name))
        for name in sorted(wanted.keys() | found.keys())
        if not any(part in name for part in apart)
        and not (apart and name.endswith((".text", ".holds")) and ".evidence." not in name)
        and not (apart and name.startswith(".notes"))
        and not (name in wanted and name in found and _same(wanted[name], found[name]))
    }
    assert not wrong, "\n".join(f"{name}: {one!r}, there {other!r}" for name, (one, other) in wrong.items())


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return bool(other == pytest.approx(one, **CLOSE))
    if isinstance(one, str) and isinstance(other, str):
        return _words(one) == _words(other)
    return bool(one == other)
