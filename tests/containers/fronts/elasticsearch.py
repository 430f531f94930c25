"""Stands for Elasticsearch 9.5 in a container: the tests' engine (a real Elasticsearch 8.19 with ES|QL) behind a login.

Users, roles, API keys and what else ``bulkscope setup`` asks for are answered as ``tests/production/setup_server.py``
answers them, OTLP as ``tests/engines/bridge.py`` does; the engine on the loopback address does all else. A key may do
what its role says and nothing else. What was set is kept in the data folder, as the engine's data is.
"""

from __future__ import annotations

import base64
import copy
import fnmatch
import gzip
import http.client
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import urllib.parse
from pathlib import Path
from typing import Any

from tests import serving
from tests.engines import bridge, servers, templates
from tests.production import setup_server

HOME = Path("/usr/share/elasticsearch")
STATE = HOME / "data" / "front.json"
ENGINE_PORT = 9201
ENGINE = f"http://127.0.0.1:{ENGINE_PORT}"
VERSION = os.environ.get("STANDS_FOR", "9.5.4")
KEPT = ("users", "component_templates", "roles", "keys", "streams", "mappings")
# Asked of the stand-in; the engine has none of it, or has it only in part.
OWN = re.compile(r"/|/_license|/_security/.*|/_data_stream(/.*)?|/_index_template/.*|/_component_template/.*")
# Of the body of an ES|QL query, which names what it reads in its first command.
FROM = re.compile(r"\s*(?:FROM|TS)\s+([^\n|]+?)(?:\s+METADATA\b[^\n|]*)?\s*(?:\||$)", re.IGNORECASE)
READS = {"_search": "read", "_count": "read", "_field_caps": "read", "_mapping": "view_index_metadata"}


def wanted(method: str, path: str, body: Any) -> list[tuple[str, str]] | None:
    """Return what a request needs of its key, as (pattern of streams, privilege); None for what no key of ours may."""
    if path == "/_security/_authenticate":
        return []
    if path == "/_query" and method == "POST":
        found = FROM.match(body.get("query", "")) if isinstance(body, dict) else None
        return [(name.strip(' "'), "read") for name in found[1].split(",")] if found else None
    pattern, _, action = path.strip("/").rpartition("/")
    if action in READS and pattern:
        return [(name, READS[action]) for name in pattern.split(",")]
    return None


def may(key: dict[str, Any], needs: list[tuple[str, str]]) -> bool:
    """Tell whether the descriptors that a key was made with allow all of it."""
    entries = [entry for role in key["role_descriptors"].values() for entry in role.get("indices", ())]
    return all(
        any(
            privilege in entry["privileges"] and any(fnmatch.fnmatchcase(name, given) for given in entry["names"])
            for entry in entries
        )
        for name, privilege in needs
    )


class Front:
    """What the server holds: users and keys of the stand-in, kept over restarts."""

    def __init__(self) -> None:
        self.stack = setup_server.Stack(version=VERSION)
        # The password of the first start holds, as with the real one.
        self.stack.users = {"elastic": os.environ["ELASTIC_PASSWORD"]}
        if STATE.exists():
            for name, value in json.loads(STATE.read_text()).items():
                setattr(self.stack, name, value)
        self.answers = setup_server.Elasticsearch(self.stack)

    def keep(self) -> None:
        part = STATE.with_suffix(".new")
        part.write_text(json.dumps({name: getattr(self.stack, name) for name in KEPT}))
        part.replace(STATE)

    def key(self, header: str | None) -> dict[str, Any] | None:
        """Return the key that a header names, which has been found to be right."""
        _, _, value = (header or "").partition(" ")
        identity = base64.b64decode(value).decode().partition(":")[0]
        with self.stack.lock:
            return next((key for key in self.stack.keys if key["id"] == identity), None)


def install(path: str, body: Any) -> None:
    """Give the engine a component template, without settings of modules that it does not have."""
    body = copy.deepcopy(body)
    settings = body["template"].get("settings", {})
    for holder in (settings, settings.get("index", {})):
        for name in ("look_back_time", "index.look_back_time"):
            holder.pop(name, None)
    servers.ask("PUT", f"{ENGINE}{path}", body)


class Handler(serving.Handler):
    front: Front

    def any(self) -> None:
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        target = urllib.parse.urlsplit(self.path)
        path = urllib.parse.unquote(target.path)
        header = self.headers.get("Authorization")
        with self.front.stack.lock:
            user = self.front.answers.who(header)
        if user is None:
            return self.json(*setup_server.error(401, "security_exception", "missing or wrong credentials"))
        name, is_key = user
        if path.startswith("/_otlp/"):
            return self.otlp(path, raw, self.front.key(header) if is_key else None)
        if is_key:
            body = json.loads(raw) if raw and path == "/_query" else None
            needs, key = wanted(self.command, path, body), self.front.key(header)
            if needs is None or key is None or not may(key, needs):
                reason = f"action [{self.command} {path}] is unauthorized for API key of user [elastic]"
                return self.json(*setup_server.error(403, "security_exception", reason))
        elif name != "elastic" and path not in ("/", "/_security/_authenticate"):
            reason = f"action [{self.command} {path}] is unauthorized for user [{name}]"
            return self.json(*setup_server.error(403, "security_exception", reason))
        if OWN.fullmatch(path) and not (name == "kibana_system" and path == "/"):
            return self.own(path, dict(urllib.parse.parse_qsl(target.query)), raw, header)
        return self.engine(raw)

    def own(self, path: str, query: dict[str, str], raw: bytes, header: str | None) -> None:
        body = json.loads(raw) if raw else None
        with self.front.stack.lock:
            status, answer = self.front.answers.answer(self.command, path, query, body, header)
            if self.command != "GET" and status == 200:
                if path.startswith("/_component_template/"):
                    install(path, body)
                self.front.keep()
        self.json(status, answer)

    def otlp(self, path: str, raw: bytes, key: dict[str, Any] | None) -> None:
        if self.headers.get("Content-Encoding") == "gzip":
            raw = gzip.decompress(raw)
        message, documents, response, rejected = bridge.SIGNALS[path.rpartition("/")[2]]
        try:
            found = list(documents(message.FromString(raw)))
            streams = {stream for stream, _, _ in found}
            needs = [(stream, privilege) for stream in streams for privilege in ("create_doc", "auto_configure")]
            if key is not None and not may(key, needs):
                return self.answer(403, b"action [indices:data/write/bulk] is unauthorized for API key")
            refused = bridge.store(ENGINE, found)
        except bridge.RefusedError as error:
            return self.answer(400, str(error).encode())
        except bridge.BusyError as error:
            return self.answer(429, str(error).encode())
        except OSError as error:
            return self.answer(503, str(error).encode())
        answer = response()
        if refused:
            print(f"front: refused {len(refused)}: {refused[0]}", flush=True)
            setattr(answer.partial_success, rejected, len(refused))
            answer.partial_success.error_message = refused[0]
        self.answer(200, answer.SerializeToString())

    def engine(self, raw: bytes) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", ENGINE_PORT, timeout=120)
        headers = {name: self.headers[name] for name in ("Content-Type", "Accept") if self.headers[name]}
        try:
            connection.request(self.command, self.path, raw or None, headers)
            answer = connection.getresponse()
            content = answer.read()
        except OSError as error:
            return self.json(*setup_server.error(503, "engine", str(error)))
        finally:
            connection.close()
        self.answer(answer.status, content, {"Content-Type": answer.getheader("Content-Type") or "application/json"})

    def json(self, status: int, body: object) -> None:
        kind = {"Content-Type": "application/json", "X-Elastic-Product": "Elasticsearch"}
        self.answer(status, json.dumps(body).encode(), kind)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = any


def settings() -> list[str]:
    """Return the settings of the environment, as the real image takes them, of what the engine has."""
    names = [name for name in os.environ if name.startswith("cluster.routing.")]
    given = [f"{name}={os.environ[name]}" for name in names]
    return [*given, "cluster.routing.allocation.disk.threshold_enabled=true"]


def main() -> None:
    """Run the engine and, when it answers, the server before it; ends with the engine."""
    java = [
        "java", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", *shlex.split(os.environ.get("ES_JAVA_OPTS", "")),
        "-cp", f"{HOME}/classes:{HOME}/lib/*", "org.elasticsearch.node.TestEngine", str(HOME / "data"),
        f"http.port={ENGINE_PORT}", "transport.port=9301", *settings(),
    ]  # fmt: skip
    engine = subprocess.Popen(java)
    for sent in (signal.SIGTERM, signal.SIGINT):
        signal.signal(sent, lambda *_: engine.terminate())

    def begin() -> None:
        try:
            servers.eventually(lambda: servers.ask("GET", f"{ENGINE}/")["version"], 300)
            templates.install(ENGINE)
            Handler.front = Front()
            serving.start(Handler, address=("0.0.0.0", 9200))
        except BaseException:
            engine.terminate()
            raise
        print("front: serves", flush=True)

    threading.Thread(target=begin, daemon=True).start()
    sys.exit(engine.wait())


if __name__ == "__main__":
    main()
