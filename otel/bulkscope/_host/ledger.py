"""What several processes of one machine know of one engine that all of them ask: which calls are under way.

An engine's CPU clock tells what all calls together used. To give each its share, every process that asks the engine
writes down, in one file, when a call of its own begins and ends. Between two such moments the CPU goes in equal parts
to the calls under way; a call's CPU is what its share has grown by, and it is exact where no other was under way.
"""

from __future__ import annotations

import fcntl
import json
import os
import stat as modes
import tempfile
import threading
import time
import weakref
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bulkscope._host import processes

# Another process holds the file for 0.1 ms; one that was stopped meanwhile must not stop this one too.
PATIENCE_SECONDS = 0.02
_PAUSE_SECONDS = 0.0005
_PROC = Path("/proc")
_BASES = (Path("/dev/shm"), Path(tempfile.gettempdir()))


@dataclass
class Page:
    """What stands in the file. CPU in seconds of the engine.

    ``cpu`` the engine's clock at the last boundary; ``share`` what a call that was under way all the time has been
    given; ``mixed`` what was used while several were under way, or the engine's processes changed; ``family`` the ids
    of its processes; ``calls`` by process (id and when it began) how many of its calls are under way.
    """

    cpu: float = 0.0
    share: float = 0.0
    mixed: float = 0.0
    family: list[int] = field(default_factory=list)
    calls: dict[str, int] = field(default_factory=dict)

    def settle(self, cpu: float, family: list[int]) -> None:
        """Divide what the engine used since the last boundary among the calls under way."""
        under_way = sum(self.calls.values())
        used = max(0.0, cpu - self.cpu)
        if under_way:
            self.share += used / under_way
            if under_way > 1 or family != self.family:
                self.mixed += used
        self.cpu, self.family = cpu, family


class Ledger:
    """The file of one engine; ``name`` and ``me`` are what ``processes.name`` calls the engine and this process.

    ``shared`` is False where there is no place for a file. Safe from several threads. After a fork the child needs one
    of its own.
    """

    def __init__(self, name: str, me: str, folder: Path | None = None) -> None:
        self._me = me
        self._lock = threading.Lock()
        self._calls = 0
        self._page = Page()
        self._file: int | None = None
        with suppress(OSError):
            folder = folder or _folder()
            _tidy(folder)
            self._file = os.open(folder / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            weakref.finalize(self, os.close, self._file)
        self.shared = self._file is not None

    def turn(self, change: int, cpu: float, family: list[int]) -> Page | None:
        """Settle at the engine's clock ``cpu``, count ``change`` calls of this process, and return what holds now.

        None where another process does not let go of the file; the calls are counted with the next turn.
        """
        with self._lock:
            self._calls += change
            if self._file is None:
                return self._turned(self._page, cpu, family)
            if not _locked(self._file):
                return None
            try:
                page = self._turned(_read(self._file), cpu, family)
                _write(self._file, page)
            finally:
                fcntl.flock(self._file, fcntl.LOCK_UN)
            return page

    def forget(self, calls: int) -> None:
        """Leave off calls that were counted and will not be measured; the file hears of it with the next turn."""
        with self._lock:
            self._calls -= calls

    def _turned(self, page: Page, cpu: float, family: list[int]) -> Page:
        page.settle(cpu, family)
        page.calls = {
            who: number for who, number in page.calls.items() if who != self._me and processes.lives(_PROC, who)
        }
        if self._calls > 0:
            page.calls[self._me] = self._calls
        self._page = page
        return Page(page.cpu, page.share, page.mixed, list(page.family), dict(page.calls))


def _folder() -> Path:
    """Return a folder that is this user's alone; raises OSError where there is none."""
    base = next((one for one in _BASES if os.access(one, os.W_OK)), _BASES[-1])
    folder = base / f"bulkscope-{os.geteuid()}"
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
            float(found["cpu"]), float(found["share"]), float(found["mixed"]), list(map(int, found["family"])),
            {str(who): int(number) for who, number in found["calls"].items()},
        )  # fmt: skip
    except (ValueError, TypeError, KeyError, AttributeError):
        return Page()


def _write(file: int, page: Page) -> None:
    said = json.dumps(vars(page)).encode()
    os.pwrite(file, said, 0)
    os.ftruncate(file, len(said))
