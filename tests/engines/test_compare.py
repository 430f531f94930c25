"""Two bulks in two homes: one comparison, read from the studio and from Elasticsearch."""

from __future__ import annotations

import json

import pytest

from bulkscope_studio.cli import compare
from bulkscope_studio.services import comparisons
from bulkscope_studio.services.sides import StoredSides
from bulkscope_studio.storage.store import Store
from tests.engines import homes
from tests.engines.conftest import Stack
from tests.engines.traffic import JOBS


def test_every_number_is_the_same(
    stack: Stack,
    studio: Store,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    ours = json.loads(json.dumps(comparisons.compare(StoredSides(studio), "tiny", "unknown")))
    monkeypatch.setenv("ELASTICSEARCH_URL", stack.elasticsearch)
    assert compare.command(["tiny", "unknown", "--source", "elasticsearch", "--format", "json"]) == 0
    theirs = json.loads(capsys.readouterr().out)
    assert (ours["a"]["sent"], ours["a"]["failed"]) == (JOBS, 0)
    assert ours["a"]["output_tokens_mean"] > 0
    # What the workers ran before belongs to other bulks, which are not read from there.
    past = [next(row for row in found["rows"] if row["name"] == "memory") for found in (ours, theirs)]
    assert past[1]["effect"] is None
    for found, row in zip((ours, theirs), past, strict=True):
        found["rows"].remove(row)
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
    ):
        assert compare.command([*words, "--source", "elasticsearch"]) == 2
        assert says in capsys.readouterr().err
