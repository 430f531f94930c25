"""What would have become of a bulk under a change."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from bulkscope_studio.analysis.whatif import whatif as analysis
from bulkscope_studio.services import explanations
from bulkscope_studio.services.errors import InvalidQuery
from bulkscope_studio.services.explanations import Beside
from bulkscope_studio.storage.store import Store

ORDERS = ("longest",)
MOST_TIMES = 1000.0


@dataclass(frozen=True, slots=True)
class Change:
    """What is changed, as a user writes it; None leaves it as it was recorded.

    ``prefetch`` 1: a worker takes a job only when it is free. ``order`` ``longest``: the longest job goes first.
    ``speed``: times as fast, below 1 slower.
    """

    workers: int | None = None
    threads: int | None = None
    prefetch: int | None = None
    order: str | None = None
    preload: bool = False
    speed: float | None = None


def asked(change: Change) -> analysis.Asked:
    """Return what to play; raises ``InvalidQuery`` for what means nothing."""
    for name, value in (("workers", change.workers), ("threads", change.threads)):
        if value is not None and not 1 <= value <= analysis.MOST_SLOTS:
            raise InvalidQuery(f"the number of {name} must be from 1 to {analysis.MOST_SLOTS}, not {value}")
    if (change.workers or 1) * (change.threads or 1) > analysis.MOST_SLOTS:
        raise InvalidQuery(f"workers times threads must be {analysis.MOST_SLOTS} at most")
    if change.prefetch not in (None, 1):
        raise InvalidQuery(f"prefetch can only be 1 (a worker takes a job when it is free), not {change.prefetch}")
    if change.order is not None and change.order not in ORDERS:
        raise InvalidQuery(f"the order can be {' or '.join(ORDERS)}, not {change.order!r}")
    speed = 1.0 if change.speed is None else change.speed
    if not (math.isfinite(speed) and 1 / MOST_TIMES <= speed <= MOST_TIMES):
        raise InvalidQuery(f"the speed must be times as fast, such as 1.3, not {speed}")
    return analysis.Asked(
        change.workers, change.threads, change.prefetch is None, change.order == "longest", change.preload, speed
    )


def bulk_whatif(store: Store, bulk_id: str, change: Change = Change()) -> dict[str, Any]:
    """Return what a bulk (``latest``: the newest with jobs) comes to under a change; raises ``NotFound``."""
    asked(change)  # what means nothing is said before anything is read
    return whatif_of(store, explanations.beside(store, bulk_id), change)


def whatif_of(store: Store, looked_at: Beside, change: Change) -> dict[str, Any]:
    """Return the same; the store has what others did beside the bulk. ``InvalidQuery`` where it cannot be played."""
    try:
        return analysis.whatif(explanations.facts_of(store, looked_at), asked(change))
    except analysis.Unplayable as error:
        raise InvalidQuery(f"{looked_at.bulk.id}: {error}") from error
