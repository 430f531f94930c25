"""Other processes of this machine, as far as ``/proc`` shows them. ``root`` stands for ``/proc``."""

from __future__ import annotations

import os
import time
from pathlib import Path


def command(root: Path, pid: int) -> str:
    """Return the name of a process, at most 15 characters; empty where it cannot be read."""
    try:
        return (root / str(pid) / "comm").read_text(errors="replace").strip()
    except OSError:
        return ""


def stat(root: Path, pid: int) -> list[bytes]:
    """Return the fields of proc(5)'s ``stat`` from the third (the state) on; none for a process that has ended."""
    try:
        # After the name, which may hold anything.
        return (root / str(pid) / "stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return []


def parent(root: Path, pid: int) -> int:
    """Return the id of a process's parent; 0 for one that has ended."""
    fields = stat(root, pid)
    return int(fields[1]) if len(fields) > 1 else 0


def began(root: Path, pid: int) -> int | None:
    """Return when a process began, in clock ticks since boot: with its id it is unique. None for one that has ended."""
    fields = stat(root, pid)
    return int(fields[19]) if len(fields) > 19 and fields[0] not in (b"Z", b"X") else None


def name(root: Path, pid: int) -> str:
    """Return what tells a process from all others of this boot: its id, and when it began."""
    return f"{pid}-{began(root, pid)}"


def lives(root: Path, who: str) -> bool:
    """Return whether the process that ``name`` named still runs."""
    pid = who.partition("-")[0]
    return pid.isdecimal() and name(root, int(pid)) == who


def descendants(root: Path, who: int | str) -> list[int]:
    """Return the ids of all that descend from a process (``self``: this one), as far as they live, in order."""
    found: set[int] = set()
    pending: list[int | str] = [who]
    while pending:
        one = pending.pop()
        try:
            tasks = os.listdir(f"{root}/{one}/task")
        except OSError:
            continue
        for task in tasks:
            try:
                with open(f"{root}/{one}/task/{task}/children", "rb") as file:
                    born = {int(word) for word in file.read().split() if word.isdigit()} - found
            except OSError:
                continue
            found |= born
            pending += born
    return sorted(found)


def family(root: Path, pid: int) -> list[int]:
    """Return a process and its descendants by id, in order."""
    return sorted({pid, *descendants(root, pid)})


def cpu_seconds(pid: int) -> float | None:
    """Return the CPU seconds of a process, of its ended threads too; None for one that has ended.

    From its clock, to the nanosecond: the clock's id is what ``clock_getcpuclockid`` computes on Linux. What its
    children used is theirs, as long as they live.
    """
    try:
        return time.clock_gettime((~pid << 3) | 2)
    except OSError:
        return None
