"""A studio web page on a free port, for browser tests."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

from bulkscope_studio import web
from bulkscope_studio.store import Store


@contextmanager
def serving(store: Store) -> Iterator[str]:
    """Serve ``store`` in a thread; yield the address."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    status = {"accepted": {"spans": 12}, "refused": {}, "truncated": {}, "db_bytes": 2048}
    server = uvicorn.Server(
        uvicorn.Config(web.build(store, lambda: status), log_level="warning", timeout_graceful_shutdown=1)
    )
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listener])), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(10)
