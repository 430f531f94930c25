"""A real kube-apiserver on a real etcd, on free ports of 127.0.0.1; no kubelet and no controllers."""

from __future__ import annotations

import json
import ssl
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.engines.binaries import binary
from tests.engines.servers import Server, http
from tests.processes import environment, free_port

TOKEN = "an-administrators-token"


class Refused(Exception):
    """The API server answered with an error; ``status`` is its HTTP status."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"{status}: {text}")
        self.status = status


@dataclass
class Api:
    """Asks as an administrator, or with another ``token``. ``warnings`` are those of all answers so far."""

    port: int
    authority: Path
    warnings: list[str] = field(default_factory=list)
    _kinds: dict[str, dict[str, Any]] = field(default_factory=dict)

    def ask(self, method: str, path: str, body: Any = None, kind: str = "application/json", token: str = TOKEN) -> Any:
        """Return the JSON answer; raises ``Refused``."""
        request = urllib.request.Request(
            f"https://127.0.0.1:{self.port}{path}",
            None if body is None else json.dumps(body).encode(),
            {"Authorization": f"Bearer {token}", "Content-Type": kind},
            method=method,
        )
        context = ssl.create_default_context(cafile=str(self.authority))
        try:
            with urllib.request.urlopen(request, timeout=60, context=context) as answer:
                self.warnings += answer.headers.get_all("Warning") or []
                return json.loads(answer.read())
        except urllib.error.HTTPError as error:
            raise Refused(error.code, error.read().decode(errors="replace")) from None

    def place(self, value: dict[str, Any], name: bool = True) -> str:
        """Return the path of an object, or of the collection it belongs to, as the server's discovery has it."""
        version = value["apiVersion"]
        base = f"/apis/{version}" if "/" in version else f"/api/{version}"
        if version not in self._kinds or value["kind"] not in self._kinds[version]:
            found = self.ask("GET", base)["resources"]
            self._kinds[version] = {each["kind"]: each for each in found if "/" not in each["name"]}
        resource = self._kinds[version][value["kind"]]
        namespace = value["metadata"].get("namespace")
        scope = f"/namespaces/{namespace}" if resource["namespaced"] else ""
        return f"{base}{scope}/{resource['name']}" + (f"/{value['metadata']['name']}" if name else "")

    def apply(self, value: dict[str, Any]) -> Any:
        """Do what ``kubectl apply --server-side --validate=strict`` does."""
        path = f"{self.place(value)}?fieldManager=kubectl&fieldValidation=Strict"
        return self.ask("PATCH", path, value, "application/apply-patch+yaml")

    def create(self, value: dict[str, Any], dry_run: bool = False) -> Any:
        path = f"{self.place(value, name=False)}?fieldValidation=Strict{'&dryRun=All' if dry_run else ''}"
        return self.ask("POST", path, value)


@contextmanager
def serve(folder: Path) -> Iterator[Api]:
    """Run both until the block ends; ``folder`` takes their data and logs."""
    client, peer, port = free_port(), free_port(), free_port()
    etcd_url = f"http://127.0.0.1:{client}"
    etcd = Server(
        [
            str(binary("etcd")), "--data-dir", str(folder / "etcd"), "--unsafe-no-fsync",
            "--listen-client-urls", etcd_url, "--advertise-client-urls", etcd_url,
            "--listen-peer-urls", f"http://127.0.0.1:{peer}",
            "--initial-advertise-peer-urls", f"http://127.0.0.1:{peer}",
            "--initial-cluster", f"default=http://127.0.0.1:{peer}",
        ],
        environment(""),
        folder / "etcd.log",
        lambda: http("GET", f"{etcd_url}/health"),
    )  # fmt: skip
    key = folder / "accounts.key"
    for words in (
        ["openssl", "genrsa", "-out", str(key), "2048"],
        ["openssl", "rsa", "-in", str(key), "-pubout", "-out", str(folder / "accounts.pub")],
    ):
        subprocess.run(words, check=True, capture_output=True)
    (folder / "tokens.csv").write_text(f'{TOKEN},admin,admin,"system:masters"\n')
    found = Api(port, folder / "certificates" / "apiserver.crt")
    server = Server(
        [
            str(binary("kube-apiserver")), "--etcd-servers", etcd_url, "--secure-port", str(port),
            "--bind-address", "127.0.0.1", "--cert-dir", str(folder / "certificates"),
            "--service-cluster-ip-range", "10.0.0.0/24", "--authorization-mode", "RBAC",
            "--token-auth-file", str(folder / "tokens.csv"),
            "--service-account-issuer", "https://kubernetes.default.svc",
            "--service-account-signing-key-file", str(key),
            "--service-account-key-file", str(folder / "accounts.pub"),
        ],
        environment(""),
        folder / "apiserver.log",
        lambda: _ready(found),
    )  # fmt: skip
    etcd.start()
    try:
        server.start()
        yield found
    finally:
        server.stop()
        etcd.stop()


def _ready(api: Api) -> bool:
    try:
        # Its own roles are there last of all.
        return bool(api.ask("GET", "/apis/rbac.authorization.k8s.io/v1/clusterroles/system:kube-dns"))
    except Refused as error:
        raise OSError(str(error)) from error
