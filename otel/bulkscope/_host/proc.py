"""What the Linux kernel says of a process, by default this one: memory, pressure, throttling, limits.

``/proc`` and the cgroup tree are parameters, so that a folder of fixtures can stand for any machine.
What the kernel does not offer is None, never 0: another system, an older kernel, a read-only ``/proc``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bulkscope._host import processes

# cgroup v1 writes "no limit" as the largest page-aligned number; nothing real is above 2^60 bytes.
_NO_LIMIT = 2**60
_CONTAINER = re.compile(r"[0-9a-f]{64}")
# What the kubelet mounts into each container of a pod: /etc/hosts, and the file for its last words.
_POD = re.compile(r"/pods/[^/ ]+/(?:etc-hosts|containers/[^ ]+) ")
# A folder that CRI-O has for a container itself.
_CRIO = re.compile(r"/overlay-containers/([0-9a-f]{64})/userdata/run/")
_MAX_TASKS = 64  # a thread costs 16 us to ask, so 1 ms at most
_TICKS = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100


@dataclass(frozen=True, slots=True)
class Status:
    """Resident memory in bytes: now, its peak since the last reset, and now by kind."""

    rss: int | None = None
    hwm: int | None = None
    anon: int | None = None
    file: int | None = None
    shmem: int | None = None


_FIELDS = {b"VmRSS": "rss", b"VmHWM": "hwm", b"RssAnon": "anon", b"RssFile": "file", b"RssShmem": "shmem"}


def _resident() -> int | None:
    """Return this process's resident bytes on a system without ``/proc``."""
    import psutil  # 12 ms, which a process on Linux need not pay

    try:
        return int(psutil.Process().memory_info().rss)
    except psutil.Error:
        return None


class Proc:
    """A process in ``root`` (default ``/proc``), and its cgroup in ``cgroup`` (default ``/sys/fs/cgroup``).

    ``who`` is its id, by default this process.
    """

    def __init__(self, root: Path = Path("/proc"), cgroup: Path = Path("/sys/fs/cgroup"), who: str = "self") -> None:
        self._root, self._self = root, root / who
        self._paths = dict(self._cgroups(cgroup))

    # --- memory -------------------------------------------------------------------------------

    def status(self) -> Status:
        """Return the process's resident memory; only ``rss`` where there is no ``/proc``."""
        text = _bytes(self._self / "status")
        if text is None:
            return Status(rss=_resident()) if self._self == Path("/proc/self") else Status()
        found: dict[str, int] = {}
        for line in text.splitlines():
            name, _, rest = line.partition(b":")
            kib = _integer(rest.removesuffix(b"kB")) if name in _FIELDS else None
            if kib is not None:
                found[_FIELDS[name]] = kib * 1024
        return Status(**found)

    def reset_peak(self) -> bool:
        """Set ``hwm`` back to the current ``rss``; False where that is not allowed (proc(5), clear_refs)."""
        try:
            with open(self._self / "clear_refs", "wb", buffering=0) as file:
                file.write(b"5")
        except OSError:
            return False
        return True

    def cgroups(self) -> frozenset[str]:
        """Return what this process has a folder of: ``v2`` of the unified tree, else controllers of version 1."""
        return frozenset(self._paths)

    def memory_limit(self) -> int | None:
        """Return the bytes that the process may use: its cgroup's limit, at most the host's memory."""
        limits = [
            *self._numbers("v2", "memory.max"),
            *(n for n in self._numbers("memory", "memory.limit_in_bytes") if n < _NO_LIMIT),
        ]
        for line in (_bytes(self._root / "meminfo") or b"").splitlines():
            name, _, rest = line.partition(b":")
            total = _integer(rest.removesuffix(b"kB")) if name == b"MemTotal" else None
            if total is not None:
                limits.append(total * 1024)
        return min(limits, default=None)

    def memory_utilization(self) -> float | None:
        """Return the memory in use over the limit, of the cgroup that is nearest to its limit; None without a limit.

        Pages of files that have not been used lately are given back before anything is killed: they do not count.
        """
        names = {
            "v2": ("memory.max", "memory.current", "inactive_file"),
            "memory": ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        }
        shares = []
        for kind, (limited, held, idle) in names.items():
            for folder in self._ancestors(kind):
                limit, used = _number(folder / limited), _number(folder / held)
                if limit and used is not None and limit < _NO_LIMIT:
                    shares.append(max(0, used - (_keyed(folder / "memory.stat", idle) or 0)) / limit)
        return max(shares, default=None)

    def oom_kills(self) -> int | None:
        """Return how many processes the kernel has killed for memory, ever: in the cgroup, else on the host."""
        names = (("v2", "memory.events"), ("memory", "memory.oom_control"))
        for path in (*(self._paths[kind] / name for kind, name in names if kind in self._paths), self._root / "vmstat"):
            kills = _keyed(path, "oom_kill")
            if kills is not None:
                return kills
        return None

    # --- CPU ----------------------------------------------------------------------------------

    def allowed_cores(self) -> float | None:
        """Return the cores that the process may use: its affinity, or less by its cgroup's quota."""
        cores = _count(self._field(b"Cpus_allowed_list"))
        if cores is None and self._self == Path("/proc/self"):
            cores = os.cpu_count()
        quotas: list[float] = []
        for folder in self._ancestors("v2"):
            quota, _, period = (_bytes(folder / "cpu.max") or b"").partition(b" ")
            quotas.extend(_ratio(_integer(quota), _integer(period)))
        for folder in self._ancestors("cpu"):
            quotas.extend(_ratio(_number(folder / "cpu.cfs_quota_us"), _number(folder / "cpu.cfs_period_us")))
        return min([*quotas, *([float(cores)] if cores else [])], default=None)

    def allowed_cpus(self) -> str | None:
        """Return the CPUs that the process may run on, as the kernel lists them: ``0-3,8``."""
        listed = self._field(b"Cpus_allowed_list")
        return listed.decode() if listed and _count(listed) else None

    def pressure(self) -> float | None:
        """Return the seconds in which some task waited for a CPU, ever: of the cgroup, else of the host (PSI)."""
        places = [self._paths["v2"] / "cpu.pressure"] if "v2" in self._paths else []
        for path in (*places, self._root / "pressure" / "cpu"):
            found = re.search(rb"^some .*total=(\d+)", _bytes(path) or b"", re.MULTILINE)
            if found:
                return int(found[1]) / 1e6
        return None

    def run_delay(self) -> dict[int, int] | None:
        """Return by thread the nanoseconds in which it could have run and had no CPU, ever (schedstat, second field).

        Time held back by a quota is part of it. None where the kernel does not count it, and for a process of so
        many threads that asking would be felt.
        """
        try:
            tasks = os.listdir(self._self / "task")
        except OSError:
            return None
        if len(tasks) > _MAX_TASKS:
            return None
        folder, found = f"{self._self}/task/", {}
        for task in tasks:
            try:  # by descriptor: a pathlib read of each of a server's 30 threads would cost 0.5 ms
                file = os.open(f"{folder}{task}/schedstat", os.O_RDONLY)
            except OSError:
                continue
            try:
                fields = os.read(file, 128).split()
            except OSError:  # ESRCH: the thread has ended since
                continue
            finally:
                os.close(file)
            if len(fields) > 1 and fields[1].isdigit():
                found[int(task)] = int(fields[1])
        return found or None

    def throttled(self) -> float | None:
        """Return the seconds for which the cgroup's CPU quota has held its tasks back, ever."""
        for kind, key, unit in (("v2", "throttled_usec", 1e6), ("cpu", "throttled_time", 1e9)):
            spent = _keyed(self._paths[kind] / "cpu.stat", key) if kind in self._paths else None
            if spent is not None:
                return spent / unit
        return None

    def children_cpu(self) -> float:
        """Return the CPU seconds that the living descendants have used; a kernel's clock tick is 10 ms."""
        spent = (processes.stat(self._root, pid)[11:15] for pid in processes.descendants(self._root, self._self.name))
        # Fields 14 to 17 of proc(5): utime to cstime.
        return sum(_integer(field) or 0 for fields in spent for field in fields) / _TICKS

    # --- who we are -----------------------------------------------------------------------------

    def container_id(self) -> str | None:
        """Return the id of the container that the process runs in, or None."""
        for line in (_bytes(self._self / "cgroup") or b"").decode(errors="replace").splitlines():
            found = _CONTAINER.findall(line)
            if found:
                return str(found[-1])
        mounts = (_bytes(self._self / "mountinfo") or b"").decode(errors="replace")
        # With a cgroup namespace the path is "/"; the runtime's own files are still mounted from it.
        if _POD.search(mounts):
            # Of a pod's containers these files are one and the same, their sandbox's: its id would make them one.
            own = _CRIO.search(mounts)
            return own[1] if own else None
        for line in mounts.splitlines():
            if "/hostname " in line and "containers" in line and (found := _CONTAINER.findall(line)):
                return str(found[-1])
        return None

    # --- cgroups --------------------------------------------------------------------------------

    def _cgroups(self, base: Path) -> Iterator[tuple[str, Path]]:
        """Yield the folder of this process: ``v2`` of the unified tree, else by v1 controller."""
        self._tops: dict[str, Path] = {}
        for line in (_bytes(self._self / "cgroup") or b"").decode(errors="replace").splitlines():
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
            if ".." in path and self._self.name != "self":
                continue  # another process, outside of what is mounted here: the top would be ours, and not its
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


def _integer(text: bytes) -> int | None:
    try:
        return int(text)
    except ValueError:
        return None


def _number(path: Path) -> int | None:
    return _integer(_bytes(path) or b"")


def _keyed(path: Path, key: str) -> int | None:
    """Return the number of the line ``key number``."""
    found = re.search(rf"^{key} (\d+)$".encode(), _bytes(path) or b"", re.MULTILINE)
    return int(found[1]) if found else None


def _ratio(quota: int | None, period: int | None) -> list[float]:
    """Return the cores that a quota gives; none for "max", -1 and what cannot be read."""
    return [quota / period] if quota is not None and quota > 0 and period is not None and period > 0 else []


def _count(listed: bytes | None) -> int | None:
    """Return how many CPUs a list such as ``0-3,8`` names."""
    total = 0
    for part in (listed or b"").split(b","):
        first, _, last = part.partition(b"-")
        low, high = _integer(first), _integer(last or first)
        if low is None or high is None:
            return None
        total += high - low + 1
    return total or None
