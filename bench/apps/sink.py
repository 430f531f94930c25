"""An OTLP/HTTP end point that takes everything and keeps nothing but byte counts (``GET /``)."""

import json
from collections import Counter

import http_server

received: Counter[str] = Counter()


async def answer(method: str, path: str, body: bytes) -> tuple[int, bytes, bytes]:
    if method == "GET":
        return 200, b"application/json", json.dumps(received).encode()
    received[path] += len(body)
    return 200, b"application/x-protobuf", b""


http_server.run(answer)
