"""The job of deploy/kubernetes/bulkscope: the Collector's key goes through a Secret, over runs that end half-way.

`bulkscope setup` is the real one, run by setup.py as a process; Elasticsearch is the stand-in of its own tests. The API
server is one that keeps a Secret as Kubernetes does: behind TLS, with a token, a merge patch, values in base64. The
real one takes the same requests in test_apiserver.py.
"""

from __future__ import annotations

import base64
import json
import os
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import trustme

from tests import serving
from tests.kubernetes.rendered import DEPLOY
from tests.processes import BIN
from tests.production import setup_server

PATH = "/api/v1/namespaces/bulkscope/secrets/bulkscope-collector-key"
TOKEN = "a-token"


@dataclass
class Api:
    """A Secret behind an API server; the patches whose numbers are in ``refuse_patches`` are answered with 503."""

    account: Path
    port: int = 0
    data: dict[str, str] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    refuse_patches: set[int] = field(default_factory=set)

    def value(self, name: str) -> str:
        return base64.b64decode(self.data[name]).decode()


@contextmanager
def api(folder: Path) -> Iterator[Api]:
    authority = trustme.CA()
    account = folder / "account"
    account.mkdir()
    authority.cert_pem.write_to_path(account / "ca.crt")
    (account / "token").write_text(TOKEN)
    (account / "namespace").write_text("bulkscope")
    found = Api(account)

    class Handler(serving.Handler):
        def _json(self, status: int, value: Any) -> None:
            self.answer(status, json.dumps(value).encode(), {"Content-Type": "application/json"})

        def do_GET(self) -> None:
            self._take({})

        def do_PATCH(self) -> None:
            self._take(json.loads(self.content())["data"])

        def _take(self, data: dict[str, str]) -> None:
            found.asked.append(self.command)
            if self.headers["Authorization"] != f"Bearer {TOKEN}" or self.path != PATH:
                return self._json(403, {"kind": "Status", "reason": "Forbidden"})
            if self.command == "PATCH":
                if self.headers["Content-Type"] != "application/merge-patch+json":
                    return self._json(415, {"kind": "Status", "reason": "UnsupportedMediaType"})
                if found.asked.count("PATCH") in found.refuse_patches:
                    return self._json(503, {"kind": "Status", "reason": "ServiceUnavailable"})
                for value in data.values():
                    base64.b64decode(value, validate=True)
                found.data |= data
            secret: dict[str, Any] = {"kind": "Secret", "apiVersion": "v1"}
            return self._json(200, secret | ({"data": found.data} if found.data else {}))

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    with serving.serving(Handler, context) as url:
        found.port = int(url.rpartition(":")[2])
        yield found


def job(api: Api, stack: setup_server.Stack, folder: Path, **extra: str) -> subprocess.CompletedProcess[str]:
    password = folder / "password"
    password.write_text(stack.users["elastic"])
    env = {
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "ELASTICSEARCH_URL": stack.urls["elasticsearch"],
        "KIBANA_URL": stack.urls["kibana"],
        "ELASTIC_PASSWORD_FILE": str(password),
        "KUBERNETES_SERVICE_HOST": "127.0.0.1",
        "KUBERNETES_SERVICE_PORT": str(api.port),
        "SERVICE_ACCOUNT": str(api.account),
        **extra,
    }
    words = [sys.executable, str(DEPLOY / "bulkscope" / "setup.py"), "--secret", "bulkscope-collector-key"]
    return subprocess.run(
        [*words, "--only", "elasticsearch", "--wait", "10"], env=env, capture_output=True, text=True, timeout=120
    )


def valid(stack: setup_server.Stack) -> list[str]:
    return [key["id"] for key in stack.keys if not key.get("invalidated")]


def test_the_key_is_in_the_secret_and_a_second_run_changes_nothing(tmp_path: Path) -> None:
    with api(tmp_path) as server, setup_server.serve(setup_server.Stack()) as stack:
        first = job(server, stack, tmp_path)
        assert first.returncode == 0, first.stderr + first.stdout
        (identity,) = valid(stack)
        key = server.value("api-key")
        assert base64.b64decode(key).decode().partition(":")[0] == identity
        assert server.value("setup-notes").startswith("place ")
        before = dict(server.data), list(stack.keys), server.asked.count("PATCH")
        second = job(server, stack, tmp_path)
        assert second.returncode == 0, second.stderr
        assert second.stdout.splitlines()[-1] == "unchanged"
        assert (server.data, stack.keys, server.asked.count("PATCH")) == before
        for run in (first, second):
            assert key not in run.stdout + run.stderr
            assert stack.users["elastic"] not in run.stdout + run.stderr


def test_a_key_whose_secret_was_lost_is_ended_by_the_next_run(tmp_path: Path) -> None:
    with api(tmp_path) as server, setup_server.serve(setup_server.Stack()) as stack:
        server.refuse_patches = {2}  # the place is noted; the key that was made then does not get there
        first = job(server, stack, tmp_path)
        assert first.returncode == 1
        assert "the Secret bulkscope-collector-key: 503" in first.stderr
        assert "api-key" not in server.data
        (lost,) = valid(stack)
        second = job(server, stack, tmp_path)
        assert second.returncode == 0, second.stderr
        (now,) = valid(stack)
        assert now != lost
        assert base64.b64decode(server.value("api-key")).decode().partition(":")[0] == now


def test_no_key_is_made_where_the_secret_cannot_be_reached(tmp_path: Path) -> None:
    with api(tmp_path) as server, setup_server.serve(setup_server.Stack()) as stack:
        (server.account / "token").write_text("another")
        refused = job(server, stack, tmp_path)
        assert refused.returncode == 1
        assert "403" in refused.stderr
        away = job(server, stack, tmp_path, KUBERNETES_SERVICE_PORT="1")
        assert away.returncode == 1
        assert "does not answer" in away.stderr
        assert not stack.keys


@pytest.mark.parametrize("words", [[], ["--only", "elasticsearch"], ["--secret"]])
def test_wrong_usage(words: list[str]) -> None:
    command = [sys.executable, str(DEPLOY / "bulkscope" / "setup.py"), *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "usage: setup.py" in done.stderr
