"""The parts of a verdict: measured numbers, each compared with a threshold, and what follows from several of them."""

from __future__ import annotations

import math
from dataclasses import dataclass

from bulkscope_studio.analysis.statistics.estimates import Estimate
from bulkscope_studio.analysis.thresholds import Threshold
from bulkscope_studio.text import wording


@dataclass(frozen=True, slots=True)
class Evidence:
    """One number with its 95 % interval (None: it has none), and whether it supports the finding (None: not known).

    ``relation`` is how it was compared with the threshold: ``>``, ``>=``, ``<`` or ``<=``; ``link`` a page here.
    """

    name: str
    text: str
    value: float | None
    low: float | None
    high: float | None
    unit: str
    relation: str | None
    threshold: float | None
    holds: bool | None
    link: str | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """Whether one verdict holds (None: cannot be told), in a sentence, with its evidence."""

    code: str
    holds: bool | None
    text: str
    evidence: tuple[Evidence, ...]


_HOLDS = {
    ">": lambda a, b: a > b, ">=": lambda a, b: a >= b, "<": lambda a, b: a < b, "<=": lambda a, b: a <= b,
}  # fmt: skip

_SIGNS = {">": ">", ">=": "≥", "<": "<", "<=": "≤"}


def measured(
    label: str, number: float | Estimate | None, relation: str, threshold: Threshold, *,
    bound: str = "value", unit: str | None = None, detail: str = "", link: str | None = None,
) -> Evidence:  # fmt: skip
    """Compare a number with a threshold; of an Estimate its ``bound`` (value, low, high) decides."""
    estimate = Estimate(number, math.nan, math.nan) if isinstance(number, int | float) else number
    unit = unit or threshold.unit
    limit = f"{_SIGNS[relation]} {wording.value(threshold.value, unit)}"
    if estimate is None or not math.isfinite(estimate.value):
        return Evidence(
            threshold.name, f"{label}: not recorded", None, None, None, unit, relation, threshold.value, None, link
        )
    interval = _interval(estimate, unit)
    decides = getattr(estimate, bound)
    holds = None if math.isnan(decides) else bool(_HOLDS[relation](decides, threshold.value))
    text = (
        f"{label}: {wording.value(estimate.value, unit)}{interval} (threshold {limit}){'; ' if detail else ''}{detail}"
    )
    return Evidence(
        threshold.name, text, estimate.value, _finite(estimate.low), _finite(estimate.high), unit, relation,
        threshold.value, holds, link,
    )  # fmt: skip


def said(
    name: str, text: str, holds: bool | None, value: float | None = None, unit: str = "1", link: str | None = None
) -> Evidence:
    """State a fact that has no threshold."""
    return Evidence(name, text, value, None, None, unit, None, None, holds, link)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _interval(estimate: Estimate, unit: str) -> str:
    if not (math.isfinite(estimate.low) and math.isfinite(estimate.high)):
        return "" if math.isnan(estimate.low) else ", interval not known"
    return f" [{wording.between(estimate.low, estimate.high, lambda each: wording.value(each, unit))}]"


def every(*evidence: Evidence) -> bool | None:
    """All hold: False when one does not, None when one is not known."""
    answers = [item.holds for item in evidence]
    return False if False in answers else None if None in answers else True


def some(*evidence: Evidence) -> bool | None:
    """One holds: True when one does, None when none does and one is not known."""
    answers = [item.holds for item in evidence]
    return True if True in answers else None if None in answers else False
