"""The clock of the boot, which nobody sets: it tells two processes on one machine how long ago something was."""

from __future__ import annotations

import time
from functools import cache
from pathlib import Path


@cache
def _boot() -> str | None:
    """Return what names this boot of this machine, the same in all its containers; None where nothing does."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()[:18] or None
    except OSError:
        return None


def stamp() -> str | None:
    """Return this moment as ``boot:nanoseconds``; None where the boot has no name."""
    boot = _boot()
    return None if boot is None else f"{boot}:{time.clock_gettime_ns(time.CLOCK_BOOTTIME)}"


def age_ns(stamped: object) -> int | None:
    """Return the nanoseconds since ``stamp`` was called; None if that was in another boot or on another machine."""
    boot, _, clock = str(stamped or "").partition(":")
    if not clock.isdecimal() or boot != _boot():
        return None
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) - int(clock)
