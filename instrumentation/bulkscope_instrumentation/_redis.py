"""A client of Redis for the thread that collects metrics, beside one of the application's that belongs to its loop."""

from __future__ import annotations

from typing import Any

_SAME = ("host", "port", "db", "username", "password", "socket_timeout", "socket_connect_timeout")


def beside(pool: Any) -> Any:
    """Return a client for the server of an asynchronous connection pool."""
    from redis import Redis

    given = pool.connection_kwargs
    options = {name: given[name] for name in _SAME if name in given}
    if "path" in given:
        options["unix_socket_path"] = given["path"]
    if "SSL" in getattr(pool, "connection_class", type).__name__:
        options |= {"ssl": True} | {name: value for name, value in given.items() if name.startswith("ssl_")}
    return Redis(**options)
