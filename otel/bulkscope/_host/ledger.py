"""What several processes of one machine know of one engine that all of them ask: which calls are under way.

An engine's CPU clock tells what all calls together used. To give each its share, every process that asks the engine
writes down, in one file, when a call of its own begins and ends. Between two such moments the CPU goes in equal parts
to the calls under way; a call's CPU is what its share has grown by, and it is exact where no other was under way, and
nobody else is known to ask the engine.
"""

from __future__ import annotations

import json
import os
import stat as modes
import tempfile
import threading
import time
import weakref
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bulkscope._host import processes

with suppress(ImportError):  # on Windows, where no engine is found either
    import fcntl

# Another process holds the file for 0.1 ms; one that was stopped meanwhile must not stop this one too.
PATIENCE_SECONDS = 0.02
_PAUSE_SECONDS = 0.0005
# An engine that works while none of the calls that are known is under way is asked by somebody else as well: a client
# without Bulkscope, another user. A shorter time says nothing, and so does what is left to do after an answer: threads
# that wait for more, a prompt's memory that is given back.
UNKNOWN_AFTER_SECONDS = 0.2
UNKNOWN_CPU_SECONDS = 0.1
UNKNOWN_CORES = 0.1
_PROC = Path("/proc")


@dataclass
class Page:
    """What stands in the file. CPU in seconds of the engine.

    ``used`` the clocks of the engine's processes at the last boundary, by id; ``share`` what a call that was under way
    all the time has been given; ``mixed`` what was used while several were under way, or the engine's processes
    changed; ``calls`` by process (id and when it began) how many of its calls are under way; ``at`` when that was (s
    since the boot); ``unknown`` whether the engine worked when last none of these was under way.
    """

    used: dict[str, float] = field(default_factory=dict)
    share: float = 0.0
    mixed: float = 0.0
    calls: dict[str, int] = field(default_factory=dict)
    at: float = field(default=0.0, compare=False)
    unknown: bool = field(default=False, compare=False)

    def settle(self, now: Mapping[int, float], at: float) -> None:
        """Divide what the engine used since the last boundary among the calls under way.

        Who read the clocks earlier may come later, and know of fewer processes: nothing is counted twice.
        """
        under_way = sum(self.calls.values())
        clocks = {str(pid): max(cpu, self.used.get(str(pid), 0.0)) for pid, cpu in now.items()}
        spent = sum(cpu - self.used.get(pid, 0.0) for pid, cpu in clocks.items())
        others = {pid: cpu for pid, cpu in self.used.items() if pid not in clocks and processes.began(_PROC, int(pid))}
        changed = bool(others) or clocks.keys() != self.used.keys()
        if under_way:
            self.share += spent / under_way
            if under_way > 1 or changed:
                self.mixed += spent
        elif self.at and not changed and at - self.at >= UNKNOWN_AFTER_SECONDS:
            self.unknown = spent >= max(UNKNOWN_CPU_SECONDS, UNKNOWN_CORES * (at - self.at))
        self.at = at
        self.used = others | clocks


class Ledger:
    """The file of one engine; ``name`` and ``me`` are what ``processes.name`` calls the engine and this process.

    ``shared`` is False where there is no place for a file. Safe from several threads, and from a finaliser that runs
    inside of it. After a fork the child needs one of its own.
    """

    def __init__(self, name: str, me: str, folder: Path | None = None) -> None:
        self._me = me
        self._lock = threading.Lock()
        self._changes: deque[int] = deque()  # of the calls of this process, not yet told to the others
        self._calls = 0
        self._page = Page()  # where there is no file
        self._file: int | None = None
        with suppress(OSError):
            folder = folder or _folder()
            _tidy(folder)
            self._file = os.open(folder / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            weakref.finalize(self, os.close, self._file)
        self.shared = self._file is not None

    @property
    def untold(self) -> bool:
        """Whether calls have begun or ended of which the others have not heard."""
        return bool(self._changes)

    def turn(self, change: int, now: Mapping[int, float]) -> Page | None:
        """Settle at the clocks of the engine's processes, count ``change`` calls of this process, return what holds.

        None where the file cannot be had or written at once; the calls are counted with the next turn.
        """
        if change:
            self._changes.append(change)
        # A finaliser may run inside of this, in the same thread: it is not to wait for ever.
        if not self._lock.acquire(timeout=PATIENCE_SECONDS):
            return None
        try:
            if self._file is None:
                self._page = self._turned(replace(self._page), now)
                return self._page
            if not _locked(self._file):
                return None
            try:
                page = self._turned(_read(self._file), now)
                _write(self._file, page)
            finally:
                fcntl.flock(self._file, fcntl.LOCK_UN)
            return page
        except OSError:  # no space left, say
            return None
        finally:
            self._lock.release()

    def forget(self, calls: int) -> None:
        """Leave off calls that were counted and will not be measured; the others hear of it with the next turn."""
        self._changes.append(-calls)

    def _turned(self, page: Page, now: Mapping[int, float]) -> Page:
        while self._changes:
            self._calls += self._changes.popleft()
        page.settle(now, _since_boot())
        page.calls = {
            who: number for who, number in page.calls.items() if who != self._me and processes.lives(_PROC, who)
        }
        if self._calls > 0:
            page.calls[self._me] = self._calls
        return page


def _since_boot() -> float:
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


def _folder() -> Path:
    """Return a folder that is this user's alone; raises OSError where there is none.

    Containers may share it and count their processes from 1 each: those of another namespace have a folder of theirs.
    """
    bases = (Path("/dev/shm"), Path(tempfile.gettempdir()))
    base = next((one for one in bases if os.access(one, os.W_OK)), bases[-1])
    folder = base / f"bulkscope-{os.geteuid()}-{os.stat('/proc/self/ns/pid').st_ino}"
    with suppress(FileExistsError):
        folder.mkdir(0o700)
    found = folder.lstat()
    # Anybody may make a folder of this name there: a link, or a folder of another user, is not ours to write to.
    if not modes.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise PermissionError(f"{folder} is not this user's alone")
    return folder


def _tidy(folder: Path) -> None:
    """Remove the files of engines that have ended."""
    for path in folder.iterdir():
        if not processes.lives(_PROC, path.name):
            path.unlink(missing_ok=True)


def _locked(file: int) -> bool:
    latest = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            if time.monotonic() >= latest:
                return False
            time.sleep(_PAUSE_SECONDS)
        else:
            return True


def _read(file: int) -> Page:
    """Return what the file holds; an empty page for one that is new, or that holds something else."""
    try:
        found: Any = json.loads(os.pread(file, 1 << 16, 0) or b"null")
        return Page(
            {str(int(pid)): float(cpu) for pid, cpu in found["used"].items()}, float(found["share"]),
            float(found["mixed"]), {str(who): int(number) for who, number in found["calls"].items()},
            float(found.get("at", 0)), bool(found.get("unknown", False)),
        )  # fmt: skip
    except (ValueError, TypeError, KeyError, AttributeError):
        return Page()


def _write(file: int, page: Page) -> None:
    said = json.dumps(vars(page)).encode()
    os.pwrite(file, said, 0)
    os.ftruncate(file, len(said))
