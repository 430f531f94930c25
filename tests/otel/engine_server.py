"""An engine in a process of its own, over HTTP: it burns CPU and holds memory as it is asked, and says what it used.

Started as ``python engine_server.py PORT_FILE``. A POST to any path with ``cpu`` (seconds), ``hold`` (bytes,
for the time of the call) and ``child`` (seconds, burnt by a process that it starts once and keeps); the answer has
``used``: seconds by ``time.process_time``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

BURN = """
import sys, time
for line in sys.stdin:
    end = time.thread_time() + float(line)
    while time.thread_time() < end:
        pass
    print(time.process_time(), flush=True)
"""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    child: subprocess.Popen[str] | None = None

    def do_POST(self) -> None:
        asked: dict[str, Any] = json.loads(self.rfile.read(int(self.headers["content-length"])))
        before, end = time.thread_time(), time.thread_time() + asked.get("cpu", 0)
        held = bytearray(os.urandom(1)) * asked.get("hold", 0)
        while time.thread_time() < end:
            pass
        if asked.get("child"):
            if Handler.child is None:
                Handler.child = subprocess.Popen(
                    [sys.executable, "-c", BURN], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
                )
            assert Handler.child.stdin is not None
            assert Handler.child.stdout is not None
            Handler.child.stdin.write(f"{asked['child']}\n")
            Handler.child.stdin.flush()
            Handler.child.stdout.readline()
        said = json.dumps({"used": time.thread_time() - before, "pid": os.getpid(), "held": len(held)}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    def log_message(self, *_: object) -> None:
        pass


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    note = Path(sys.argv[1])
    note.with_suffix(".new").write_text(str(server.server_address[1]))
    note.with_suffix(".new").rename(note)
    server.serve_forever()
