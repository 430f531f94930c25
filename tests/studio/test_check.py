"""A bulk that is slower than what it is held against ends a pipeline; one that is not, or may be, is told apart."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bulkscope_studio.cli import check as command
from bulkscope_studio.cli import runs
from bulkscope_studio.services.checks import check
from bulkscope_studio.services.errors import InvalidQuery, NotFound
from bulkscope_studio.services.sides import StoredSides
from bulkscope_studio.storage.store import Store
from tests.studio.made import Made


def made(path: Path, jobs: int = 60, **speeds: float) -> Path:
    """Bulks of equal tokens, one after the other, each so many times as slow as usual."""
    store, at = Made(), 0.0
    for n, (bulk, slower) in enumerate(speeds.items()):
        work = slower * np.random.default_rng(n).lognormal(0, 0.1, jobs)
        at = 60 + store.run([at] * jobs, work.tolist(), 2, bulk=bulk, first_pid=10 * n + 1)
    store.store(path / "s.duckdb").close()
    return path / "s.duckdb"


@pytest.fixture(scope="module")
def db(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("check"), usual=1.0, alike=1.0, slow=1.5, fast=0.6)


def asked(db: Path, *given: str) -> dict[str, Any]:
    store = Store(db, read_only=True)
    try:
        return check(StoredSides(store), *given)
    finally:
        store.close()


@pytest.mark.parametrize(
    ("bulk", "allowed", "result"),
    [
        ("alike", "10%", "fine"), ("alike", "0%", "unknown"), ("slow", "10%", "slower"), ("slow", "0.9", "fine"),
        ("slow", "50%", "unknown"), ("fast", "0%", "fine"), ("usual", "0%", "fine"),
    ],
)  # fmt: skip
def test_the_whole_interval_decides(db: Path, bulk: str, allowed: str, result: str) -> None:
    found = asked(db, bulk, "usual", allowed)
    assert found["result"] == result, found["text"]
    if found["effect"] is not None:
        low, high, most = found["effect"]["low"], found["effect"]["high"], 1 + found["max_slower"]
        assert {"fine": high <= most, "slower": low > most, "unknown": low <= most < high}[result]


def test_other_models_are_no_measure(db: Path) -> None:
    store = Store(db)
    store.connection().execute("UPDATE spans SET model = 'other' WHERE model = 'm' AND bulk_id = 'fast'")
    store.close()
    found = asked(db, "fast", "usual")
    assert found["result"] == "unknown"
    assert "the models differ (m and other)" in found["text"]
    store = Store(db)
    store.connection().execute("UPDATE spans SET model = 'm' WHERE model = 'other'")
    store.close()


def test_few_jobs_cannot_say_it(tmp_path: Path) -> None:
    found = asked(made(tmp_path, jobs=4, usual=1.0, slow=3.0), "slow", "usual")
    assert (found["result"], found["effect"]) == ("unknown", None)
    assert "Too few jobs" in found["text"]


@pytest.mark.parametrize("share", ["", "ten", "-1%", "10", "2000%", "nan"])
def test_a_share_is_written_so_that_it_cannot_be_mistaken(db: Path, share: str) -> None:
    with pytest.raises(InvalidQuery, match="is not a share"):
        asked(db, "slow", "usual", share)


def test_what_is_not_there_is_said(db: Path) -> None:
    with pytest.raises(NotFound, match="no bulk or run 'nobody'"):
        asked(db, "nobody", "usual")


@pytest.mark.parametrize(("bulk", "code"), [("alike", 0), ("slow", 1), ("nobody", 2)])
def test_the_exit_code_is_for_pipelines(db: Path, bulk: str, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert runs.command(["keep", "base", "usual", "--replace", "--db", str(db)]) == 0
    capsys.readouterr()
    for form in ("text", "md", "json"):
        assert command.command([bulk, "--against", "base", "--db", str(db), "--format", form]) == code
        out, err = capsys.readouterr()
        if code == 2:
            assert "no bulk or run 'nobody'" in err
        elif form == "json":
            assert json.loads(out)["against"] == "base"
        else:
            assert "times as long as in base" in out
    assert command.command([bulk, "--db", str(db)]) == 2
    assert "--against" in capsys.readouterr().err


def test_what_cannot_be_said_ends_with_two_as_well(db: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.command(["slow", "--against", "usual", "--max-slower", "50%", "--db", str(db)]) == 2
    out, err = capsys.readouterr()
    assert out.startswith("Cannot be said: a job takes 1.5")
    assert err == ""
