"""What a check has found, and how it is shown."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

OK, WARNING, FAULT = "ok", "warning", "fault"
# The exit code is the worst finding's.
CODES = {OK: 0, WARNING: 1, FAULT: 2}
_VERDICTS = ("all is well", "something will be missing", "nothing will arrive")
_MARKS = {OK: "ok", WARNING: "WARNING", FAULT: "FAULT"}
_WIDTH = max(map(len, _MARKS.values()))


@dataclass(frozen=True, slots=True)
class Finding:
    """One line: its ``subject``, ``state`` (ok, warning: something will be missing, fault: nothing will arrive),

    ``what`` is, and ``todo``, what to do about it.
    """

    subject: str
    state: str
    what: str
    todo: str = ""


@dataclass(frozen=True, slots=True)
class Number:
    """One of the thirteen numbers: ``state`` is exact, estimated, absent or elsewhere (another process measures it)."""

    number: int
    name: str
    state: str
    why: str


@dataclass(frozen=True, slots=True)
class Result:
    """All that was found."""

    findings: tuple[Finding, ...]
    numbers: tuple[Number, ...] = ()

    @property
    def code(self) -> int:
        """Return the exit code: 0 all is well, 1 something will be missing, 2 nothing will arrive."""
        return max((CODES[finding.state] for finding in self.findings), default=0)

    def document(self) -> dict[str, Any]:
        """Return the result for JSON."""
        return {
            "code": self.code,
            "verdict": _VERDICTS[self.code],
            "findings": [asdict(finding) for finding in self.findings],
            "numbers": [asdict(number) for number in self.numbers],
        }

    def json(self) -> str:
        """Return the result as JSON."""
        return json.dumps(self.document(), indent=2)


def read(document: Mapping[str, Any]) -> Result:
    """Return the result that ``Result.document`` was made of. Raises ``KeyError``, ``TypeError`` for another."""
    found = tuple(Finding(**finding) for finding in document["findings"])
    if any(finding.state not in CODES for finding in found):
        raise TypeError("a state is none of ok, warning, fault")
    return Result(found, tuple(Number(**number) for number in document["numbers"]))


def printable(text: str) -> str:
    """Return ``text`` on one line and without control characters: an end point's answer must not steer a terminal."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


def _wrapped(first: str, text: str, width: int) -> list[str]:
    return textwrap.wrap(
        printable(text), width, initial_indent=first, subsequent_indent=" " * len(first),
        break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip


def _ranges(numbers: Sequence[int]) -> str:
    """Return ``1-3, 7`` of 1, 2, 3, 7."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][-1] + 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return ", ".join(str(part[0]) if len(part) == 1 else f"{part[0]}-{part[-1]}" for part in parts)


def _numbers(numbers: Sequence[Number], width: int) -> list[str]:
    """Return a line for each state and reason; the numbers that share both stand together."""
    groups: dict[tuple[str, str], list[Number]] = {}
    for number in numbers:
        groups.setdefault((number.state, number.why), []).append(number)
    lines = ["the thirteen numbers"]
    for (state, why), members in groups.items():
        names = _ranges([member.number for member in members])
        only = f" {members[0].name}" if len(members) == 1 else ""
        lines += _wrapped(f"  {state:<9}  ", f"{names}{only}: {why}", width)
    return lines


def text(result: Result, width: int) -> str:
    """Return the result for a terminal of ``width`` columns: subjects in their order, each line with its remedy."""
    width = max(60, width)
    counts = {state: sum(finding.state == state for finding in result.findings) for state in CODES}
    named = [
        f"{counts[state]} {state}{'s' if counts[state] > 1 else ''}" for state in (FAULT, WARNING) if counts[state]
    ]
    lines = [f"bulkscope doctor: {_VERDICTS[result.code]}{' (' + ', '.join(named) + ')' if named else ''}"]
    subject = ""
    for finding in result.findings:
        if finding.subject != subject:
            subject = finding.subject
            lines.append(subject)
        lines += _wrapped(f"  {_MARKS[finding.state]:<{_WIDTH}}  ", finding.what, width)
        if finding.todo:
            lines += _wrapped(f"  {'':<{_WIDTH}}  -> ", finding.todo, width)
    if result.numbers:
        lines += _numbers(result.numbers, width)
    return "\n".join(lines)
