"""Stands for Kibana 9.5 in a container: its status, data views and dashboards, as ``bulkscope setup`` uses them.

It asks Elasticsearch who a user is, is not ready before its own password is right there, and keeps what it is given.
A dashboard that Kibana's own description of its API does not allow is refused (``tests/production/kibana_api.py``).
"""

from __future__ import annotations

import base64
import itertools
import json
import os
import re
import sys
import threading
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

from tests import serving
from tests.production import setup_server

STATE = Path("/usr/share/kibana/data/front.json")
ELASTICSEARCH = os.environ["ELASTICSEARCH_HOSTS"]
VERSION = os.environ.get("STANDS_FOR", "9.5.4")
KEPT = ("views", "dashboards")
KEYS = ("XPACK_SECURITY_ENCRYPTIONKEY", "XPACK_ENCRYPTEDSAVEDOBJECTS_ENCRYPTIONKEY", "XPACK_REPORTING_ENCRYPTIONKEY")


class Remote:
    """Who somebody is, as Elasticsearch says."""

    def who(self, header: str | None) -> tuple[str, bool] | None:
        request = urllib.request.Request(f"{ELASTICSEARCH}/_security/_authenticate")
        request.add_header("Authorization", header or "")
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:
                found = json.load(answer)
        except OSError:
            return None
        return found["username"], found["authentication_type"] == "api_key"


class Front:
    """What the server holds, kept over restarts."""

    def __init__(self, password: str) -> None:
        self.own = "Basic " + base64.b64encode(f"kibana_system:{password}".encode()).decode()
        self.password = password
        self.stack = setup_server.Stack(version=VERSION, kibana_version=VERSION, kibana_needs=password)
        if STATE.exists():
            for name, value in json.loads(STATE.read_text()).items():
                setattr(self.stack, name, value)
        self.remote = Remote()
        self.answers = setup_server.Kibana(self.stack, self.remote)  # type: ignore[arg-type]

    def answer(self, method: str, path: str, query: dict[str, str], body: Any, header: str | None) -> tuple[int, Any]:
        with self.stack.lock:
            self.stack.users = {"kibana_system": self.password} if self.remote.who(self.own) else {}
            status, answer = self.answers.answer(method, path, query, body, header)
            if method != "GET":
                STATE.write_text(json.dumps({name: getattr(self.stack, name) for name in KEPT}))
        return status, answer


def settings(words: list[str]) -> dict[str, str]:
    """Return what the files after ``--config`` say, one setting a line, with the variables in them filled in.

    As the real image does, a variable of the environment stands for the setting of its name too.
    """
    found = {name: value for name, value in os.environ.items() if name.isupper()}
    for option, place in itertools.pairwise(words):
        if option == "--config":
            for line in Path(place).read_text().splitlines():
                name, colon, value = line.partition(": ")
                if colon and not line.startswith("#"):
                    filled = re.sub(r"\$\{(\w+)\}", lambda name: os.environ[name[1]], value.strip())
                    found[name.replace(".", "_").upper()] = filled
    return found


def main(words: list[str]) -> None:
    """Serve for ever."""
    given = settings(words)
    for name in KEYS:
        if len(given[name]) < 32:
            raise SystemExit(f"{name} must have 32 characters or more")
    front = Front(given["ELASTICSEARCH_PASSWORD"])

    class Handler(serving.Handler):
        def any(self) -> None:
            raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            target = urllib.parse.urlsplit(self.path)
            if self.command != "GET" and "kbn-xsrf" not in self.headers:
                status, answer = 400, {"statusCode": 400, "message": "Request must contain a kbn-xsrf header."}
            else:
                query = dict(urllib.parse.parse_qsl(target.query))
                body, header = json.loads(raw) if raw else None, self.headers.get("Authorization")
                status, answer = front.answer(self.command, urllib.parse.unquote(target.path), query, body, header)
            text = answer if isinstance(answer, str) else json.dumps(answer)
            self.answer(status, text.encode(), {"Content-Type": "application/json"})

        do_GET = do_PUT = do_POST = do_DELETE = any

    serving.start(Handler, address=("0.0.0.0", 5601))
    print("front: serves", flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main(sys.argv[1:])
