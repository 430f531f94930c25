"""Numbers and names as words, and what a command says of ids that came from outside."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from bulkscope_studio.cli import capacity, compare, running
from bulkscope_studio.services.errors import NotFound
from bulkscope_studio.storage.store import Store
from bulkscope_studio.sweep import runner
from bulkscope_studio.text import wording
from bulkscope_studio.text.wording import number, printable, seconds
from tests.studio.sample import fill

HOSTILE = "x\x1b[2J\x9by\u202ez\n"
CLEAN = "x\ufffd[2J\ufffdy\ufffdz\ufffd"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (2e-13, "0"), (-1e-8, "0"), (9.9e-7, "0"), (0.0, "0"), (-0.0, "0"), (1e-6, "0.000001"), (-2.5e-5, "-0.000025"),
        (0.00012, "0.00012"), (999.96, "1,000"), (999.4, "999"), (10.0, "10"), (100.0, "100"), (1234.5, "1,234"),
        (1.2345, "1.23"),
        (float("nan"), wording.ABSENT),
    ],
)  # fmt: skip
def test_numbers(value: float, text: str) -> None:
    assert number(value) == text


def test_seconds_that_round_to_nothing() -> None:
    assert [seconds(each) for each in (2e-13, -1e-12, 0.0, 0.0015, 1.5)] == ["0 s", "0 s", "0 s", "1.5 ms", "1.5 s"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"), (float("nan"), "–"), (float("inf"), "∞"), (2.32e-5, "23.2 µs"), (1e-6, "1 µs"),
        (0.0304, "30.4 ms"), (119, "119 s"), (120, "2.0 min"), (9000, "2.5 h"),
    ],
)  # fmt: skip
def test_durations(value: float | None, text: str) -> None:
    assert seconds(value) == text


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0, "0 %"), (0.0004, "under 0.1 %"), (0.055, "5.5 %"), (0.5, "50 %"), (0.99, "99 %"), (0.995, "99.5 %"),
        (0.99996, "over 99.9 %"), (1, "100 %"), (1.2, "120 %"), (None, "–"),
    ],
)  # fmt: skip
def test_only_the_whole_is_100_per_cent(share: float | None, text: str) -> None:
    assert wording.percent(share) == text


def test_the_sign_of_an_estimate_stands_before_what_is_known() -> None:
    assert [wording.estimate(text) for text in ("2 s", wording.ABSENT)] == ["~2 s", wording.ABSENT]
    assert wording.estimate("2 s", False) == "2 s"
    assert [each(None) for each in (wording.number, wording.size)] == [wording.ABSENT] * 2
    assert wording.count(None, "job") == wording.value(None, "jobs/s") == wording.ABSENT


def test_every_number_ends_in_a_digit() -> None:
    for value in np.geomspace(1e-12, 1e12, 997):
        for each in (value, -value):
            assert re.fullmatch(r"-?\d[\d,]*(\.\d*[1-9])?|-?\d\.\d\d|-?\d+\.\d+", number(each)), each
            assert number(each) != "-0"


def test_no_escape_reaches_the_terminal() -> None:
    assert printable(HOSTILE) == CLEAN
    assert printable("résumé – 批 [x]") == "résumé – 批 [x]"
    assert running.known([{"id": HOSTILE}, {"id": "b"}]) == f"Last bulks: {CLEAN}, b"
    assert running.nearest(NotFound("x", [HOSTILE, "b"])) == f"Nearest: {CLEAN}, b"
    assert running.nearest(NotFound("x", [])) == running.known([]) == running.NO_BULK
    # A worker's log keeps its lines.
    assert str(runner.Failed("one\x1b[31m\ntwo")) == "one\ufffd[31m\ntwo"


@pytest.mark.parametrize("command", [capacity.command, compare.command])
def test_commands_say_hostile_ids_harmlessly(
    command: object, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    db = tmp_path / "s.duckdb"
    store = Store(db)
    fill(store.connection(), jobs=2)
    connection = store.connection()
    connection.execute("UPDATE spans SET bulk_id = ? WHERE bulk_id = 'sample-002'", ["sample-00\x1b[2J"])
    connection.close()
    store.close()
    words = ["sample-00"] if command is capacity.command else ["sample-00", "sample-001"]
    assert command([*words, "--db", str(db)]) == 2  # type: ignore[operator]
    said = capsys.readouterr().err
    assert "\x1b" not in said
    assert "Nearest: " in said
    assert "sample-00\ufffd[2J" in said
