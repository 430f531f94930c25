"""An explanation (the JSON of the API) as terminal text or markdown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from bulkscope_studio.rendering import explained
from bulkscope_studio.rendering.output import Output, inline
from bulkscope_studio.text.wording import ABSENT, percent

_BAR = 24


def text(found: Mapping[str, Any], console: Output, *, everything: bool = False) -> None:
    """Print it; ``everything`` adds the evidence of the findings that are not the verdict."""
    verdict = found["verdict"]
    console.print(Text.assemble((f"Bulk {found['id']}", "bold"), f"  {found['state']}"))
    console.print(f"Verdict: {verdict['title']}", style="bold")
    for line in explained.summary(found):
        console.print(line)
    console.print()
    _evidence(verdict, console)
    for title, parts in explained.times(found):
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title=title, title_justify="left", title_style="bold")
        for name, justify in (("", "left"), ("seconds", "right"), ("share", "right"), ("", "left")):
            table.add_column(name, justify=justify)  # type: ignore[arg-type]
        total = sum(value or 0.0 for _, value in parts)
        for label, value in parts:
            share = value / total if value is not None and total > 0 else None
            table.add_row(label, _number(value), ABSENT if share is None else percent(share), _bar(share))
        console.print(table)
    for line in explained.chain(found):
        console.print(line)
    console.print()
    console.print("Looked at, in this order", style="bold")
    for finding in found["findings"]:
        console.print(f"  {explained.MARKS[finding['holds']]:<4} {finding['title']}: {finding['text']}")
        if everything and finding["code"] != verdict["code"]:
            _evidence(finding, console)


def markdown(found: Mapping[str, Any]) -> str:
    """Return it as markdown, evidence of all findings included."""
    verdict = found["verdict"]
    lines = [f"# Bulk {inline(found['id'])}: {verdict['title']}", "", found["state"], ""]
    lines += [f"{inline(line)}\n" for line in explained.summary(found)]
    for title, parts in explained.times(found):
        total = sum(value or 0.0 for _, value in parts)
        lines += [f"## {title}", "", "| | seconds | share |", "|---|---:|---:|"]
        for label, value in parts:
            share = ABSENT if value is None or total <= 0 else percent(value / total)
            lines.append(f"| {label} | {_number(value)} | {share} |")
        lines.append("")
    lines += [f"- {inline(line)}" for line in explained.chain(found)]
    for finding in found["findings"]:
        lines += ["", f"## {finding['title']}: {explained.MARKS[finding['holds']]}", "", inline(finding["text"]), ""]
        lines += [f"- {explained.MARKS[item['holds']]}: {inline(item['text'])}" for item in finding["evidence"]]
    return "\n".join([*lines, ""])


def _evidence(finding: Mapping[str, Any], console: Output) -> None:
    for item in finding["evidence"]:
        console.print(f"       {explained.MARKS[item['holds']]:<4} {item['text']}")


def _number(value: float | None) -> str:
    return ABSENT if value is None else f"{value:,.2f}"


def _bar(share: float | None) -> str:
    return "" if share is None else "█" * round(share * _BAR)
