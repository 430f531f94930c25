"""What the Linux kernel says of this process: memory, pressure, throttling, limits.

``/proc`` and the cgroup tree are parameters, so that a folder of fixtures can stand for any machine.
What the kernel does not offer is None, never 0: another system, an older kernel, a read-only ``/proc``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

# cgroup v1 writes "no limit" as the largest page-aligned number; nothing real is above 2^60 bytes.
_NO_LIMIT = 2**60
_CONTAINER = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Status:
    """Resident memory in bytes: now, its peak since the last reset, and now by kind."""

    rss: int | None = None
    hwm: int | None = None
    anon: int | None = None
    file: int | None = None
    shmem: int | None = None


_FIELDS = {b"VmRSS": "rss", b"VmHWM": "hwm", b"RssAnon": "anon", b"RssFile": "file", b"RssShmem": "shmem"}


class Proc:
    """This process in ``root`` (default ``/proc``), and its cgroup in ``cgroup`` (default ``/sys/fs/cgroup``)."""

    def __init__(self, root: Path = Path("/proc"), cgroup: Path = Path("/sys/fs/cgroup")) -> None:
        self._root, self._self = root, root / "self"
        self._paths = dict(self._cgroups(cgroup))

    # --- memory -------------------------------------------------------------------------------

    def status(self) -> Status:
        """Return the process's resident memory; only ``rss`` where there is no ``/proc``."""
        text = _bytes(self._self / "status")
        if text is None:
            return Status(rss=psutil.Process().memory_info().rss) if self._root == Path("/proc") else Status()
        found: dict[str, int] = {}
        for line in text.splitlines():
            name, _, rest = line.partition(b":")
            if name in _FIELDS:
                found[_FIELDS[name]] = int(rest.split()[0]) * 1024
        return Status(**found)

    def reset_peak(self) -> bool:
        """Set ``hwm`` back to the current ``rss``; False where that is not allowed (proc(5), clear_refs)."""
        try:
            with open(self._self / "clear_refs", "wb", buffering=0) as file:
                file.write(b"5")
        except OSError:
            return False
        return True

    def memory_limit(self) -> int | None:
        """Return the bytes that the process may use: its cgroup's limit, at most the host's memory."""
        limits = [
            *self._numbers("v2", "memory.max"),
            *(n for n in self._numbers("memory", "memory.limit_in_bytes") if n < _NO_LIMIT),
        ]
        for line in (_bytes(self._root / "meminfo") or b"").splitlines():
            if line.startswith(b"MemTotal:"):
                limits.append(int(line.split()[1]) * 1024)
        return min(limits, default=None)

    # --- CPU ----------------------------------------------------------------------------------

    def allowed_cores(self) -> float | None:
        """Return the cores that the process may use: its affinity, or less by its cgroup's quota."""
        cores = _count(self._field(b"Cpus_allowed_list"))
        if cores is None and self._root == Path("/proc"):
            cores = os.cpu_count()
        quotas: list[float] = []
        for folder in self._ancestors("v2"):
            words = (_bytes(folder / "cpu.max") or b"").split()
            if len(words) == 2 and words[0] != b"max":
                quotas.append(int(words[0]) / int(words[1]))
        for folder in self._ancestors("cpu"):
            quota, period = _number(folder / "cpu.cfs_quota_us"), _number(folder / "cpu.cfs_period_us")
            if quota is not None and period and quota > 0:
                quotas.append(quota / period)
        return min([*quotas, *([float(cores)] if cores else [])], default=None)

    def pressure(self) -> float | None:
        """Return the seconds in which some task waited for a CPU, ever: of the cgroup, else of the host (PSI)."""
        places = [self._paths["v2"] / "cpu.pressure"] if "v2" in self._paths else []
        for path in (*places, self._root / "pressure" / "cpu"):
            found = re.search(rb"^some .*total=(\d+)", _bytes(path) or b"", re.MULTILINE)
            if found:
                return int(found[1]) / 1e6
        return None

    def throttled(self) -> float | None:
        """Return the seconds for which the cgroup's CPU quota has held its tasks back, ever."""
        for kind, key, unit in (("v2", b"throttled_usec", 1e6), ("cpu", b"throttled_time", 1e9)):
            if kind in self._paths:
                for line in (_bytes(self._paths[kind] / "cpu.stat") or b"").splitlines():
                    if line.startswith(key + b" "):
                        return int(line.split()[1]) / unit
        return None

    # --- who we are -----------------------------------------------------------------------------

    def container_id(self) -> str | None:
        """Return the id of the container that the process runs in, or None."""
        for line in (_bytes(self._self / "cgroup") or b"").decode().splitlines():
            found = _CONTAINER.findall(line)
            if found:
                return str(found[-1])
        for line in (_bytes(self._self / "mountinfo") or b"").decode(errors="replace").splitlines():
            # With a cgroup namespace the path is "/"; the runtime's own files are still mounted from it.
            if "/hostname " in line and "containers" in line and (found := _CONTAINER.findall(line)):
                return str(found[-1])
        return None

    # --- cgroups --------------------------------------------------------------------------------

    def _cgroups(self, base: Path) -> Iterator[tuple[str, Path]]:
        """Yield the folder of this process: ``v2`` of the unified tree, else by v1 controller."""
        self._tops: dict[str, Path] = {}
        for line in (_bytes(self._self / "cgroup") or b"").decode().splitlines():
            number, _, rest = line.partition(":")
            controllers, _, path = rest.partition(":")
            if number == "0" and not controllers:
                # Hybrid systems mount the unified tree below the others; it has no controllers there.
                top = base if (base / "cgroup.controllers").exists() else base / "unified"
                kinds = ["v2"]
            else:
                top, kinds = base / controllers, controllers.split(",")
            if not top.is_dir():
                top = base / kinds[0]
            if not top.is_dir():
                continue
            # A container without a cgroup namespace sees the host's path, but only its own folder is mounted.
            folder = top / path.lstrip("/")
            for kind in kinds:
                self._tops[kind] = top
                yield kind, folder if folder.is_dir() and ".." not in path else top

    def _ancestors(self, kind: str) -> Iterator[Path]:
        """Yield the folder of this process and those above it: a limit set on any of them holds."""
        folder, top = self._paths.get(kind), self._tops.get(kind)
        while folder is not None and top is not None:
            yield folder
            if folder == top:
                return
            folder = folder.parent

    def _numbers(self, kind: str, name: str) -> Iterator[int]:
        for folder in self._ancestors(kind):
            number = _number(folder / name)
            if number is not None and number >= 0:
                yield number

    def _field(self, name: bytes) -> bytes | None:
        for line in (_bytes(self._self / "status") or b"").splitlines():
            if line.startswith(name + b":"):
                return line.partition(b":")[2].strip()
        return None


def _bytes(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None


def _number(path: Path) -> int | None:
    try:
        return int(_bytes(path) or b"")
    except ValueError:
        return None


def _count(listed: bytes | None) -> int | None:
    """Return how many CPUs a list such as ``0-3,8`` names."""
    if not listed:
        return None
    ends = [part.split(b"-") for part in listed.split(b",")]
    return sum(int(part[-1]) - int(part[0]) + 1 for part in ends)
