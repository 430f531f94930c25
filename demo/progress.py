"""How far a bulk is: a bar that renews itself on a terminal, a line for every twelfth of the jobs elsewhere."""

from __future__ import annotations

import shutil
import sys

WIDTH = 24
STEPS = 12


class Progress:
    """Tells of one bulk of ``total`` jobs."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._renews = sys.stdout.isatty()
        self._told: tuple[int, int] | None = None

    def show(self, done: int, failed: int, running: int) -> None:
        """Tell how many jobs are done, have failed and run, where that is news."""
        ended, now = done + failed, (done, failed)
        told = self._told
        news = told is None or ended >= self._total or ended - sum(told) >= max(1, self._total // STEPS)
        text = f"{done} of {self._total} jobs done" + (f", {failed} failed" if failed else "") + f", {running} running"
        if self._renews:
            filled = WIDTH * ended // max(1, self._total)
            line = f"  [{'#' * filled}{'-' * (WIDTH - filled)}] {text}"
            # Erased to its end: the line before may have been longer. One that does not fit would stay, and scroll.
            print(f"\r{line[: shutil.get_terminal_size().columns - 1]}\x1b[K", end="", flush=True)
        elif news and now != told:
            print(f"  {text}", flush=True)
        if news:
            self._told = now

    def end(self) -> None:
        """Leave the line as it is."""
        if self._renews:
            print(flush=True)
