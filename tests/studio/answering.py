"""The studio's API on a store of this process, announced as a running studio is."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from bulkscope_studio.server import api, v1
from bulkscope_studio.storage import address
from bulkscope_studio.storage.store import Store


class _Server(uvicorn.Server):
    """Says when it listens; signals stay with pytest."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listening.set()


@contextmanager
def studio(db: Path) -> Iterator[None]:
    store = Store(db)
    app = FastAPI()
    v1.install(app, store)
    api.install(app, store)
    bound = socket.create_server(("127.0.0.1", 0))
    server = _Server(uvicorn.Config(app, log_level="error"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]}, daemon=True)
    thread.start()
    assert server.listening.wait(30)
    url = f"http://127.0.0.1:{bound.getsockname()[1]}"
    address.write(db, address.Runtime(pid=os.getpid(), web=url, otlp_http="", otlp_grpc=""))
    try:
        yield
    finally:
        address.remove(db)
        server.should_exit = True
        thread.join(30)
        store.close()
