"""Which time an answer looks at, in ns since the epoch, and what in it is old, late or of a wrong clock."""

from __future__ import annotations

import time

from bulkscope_studio.analysis import thresholds
from bulkscope_studio.storage import sql
from bulkscope_studio.storage.store import Store

# A job that began and of which nothing was heard for so long is silent.
SILENT_NS = int(thresholds.QUIET_S.value * 1e9)
# Counts and samples that tell of a bulk come up to an export interval after its end.
AFTER_NS = 10_000_000_000
# Clocks of machines without NTP are seconds apart. A record from later than this is of a clock that is wrong: up to a
# day ahead is taken, and for that day the newest record would be no measure of what is new.
CLOCKS_NS = 60_000_000_000
# Of each host over a bulk's time: a bulk of a day is no better known by 86,400.
_MOST_SAMPLES = 4000


def host_bin_ns(first_ns: int, last_ns: int) -> int:
    """Return over how long each sample of a host is taken together."""
    return max(10**9, (last_ns - first_ns) // _MOST_SAMPLES)


def present(store: Store, asked_ns: int | None = None, last_ns: int = 0) -> int:
    """Return which moment counts as now for whoever asks at ``asked_ns`` (default: at this moment): when anything was
    last heard of anything, which ``last_ns`` was as well.

    In a store that is no longer written to nothing goes silent. One rule: the end of a bulk, the list and the jobs
    say the same of what runs.
    """
    asked = time.time_ns() if asked_ns is None else asked_ns
    return min(asked, max(heard(store, asked)[1] or 0, last_ns))


def heard(store: Store, now_ns: int) -> tuple[int | None, int | None]:
    """Return when anything was first and last heard of anything; None where nothing was."""
    (found,) = store.query(sql.load("explain_heard"), {"credible_ns": now_ns + CLOCKS_NS}).to_pylist()
    return found["first_ns"], found["last_ns"]
