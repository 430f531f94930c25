"""Runs ``bulkscope setup`` in a pod whose disk is gone afterwards: the Collector's API key stays in a Secret.

``python setup.py --secret NAME [OPTIONS OF bulkscope setup]``. ``setup`` keeps a key in a file, and beside it the
place that the key was made for and the ids that the file has held. Both come out of the Secret and go back into it; the
place before a key is made, so that a key whose secret was lost on its way is ended by the next run. The Secret is
reached with the pod's token, whose rights are two verbs on this one Secret (key.yaml).
"""

from __future__ import annotations

import base64
import json
import os
import secrets
import ssl
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

ACCOUNT = Path(os.environ.get("SERVICE_ACCOUNT", "/var/run/secrets/kubernetes.io/serviceaccount"))
# In the Secret, and as `bulkscope setup` names the two beside each other.
KEY, NOTES = "api-key", ".api-key.setup"
FIELDS = {KEY: "api-key", NOTES: "setup-notes"}


class ApiError(Exception):
    """The API server refused, or could not be reached; the text says what to do."""


def _request(method: str, name: str, body: Any = None) -> Any:
    host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
    host = f"[{host}]" if ":" in host else host
    namespace = (ACCOUNT / "namespace").read_text().strip()
    request = urllib.request.Request(
        f"https://{host}:{port}/api/v1/namespaces/{namespace}/secrets/{name}",
        data=None if body is None else json.dumps(body).encode(),
        headers={
            "Authorization": f"Bearer {(ACCOUNT / 'token').read_text().strip()}",
            "Content-Type": "application/merge-patch+json",
        },
        method=method,
    )
    trusted = ssl.create_default_context(cafile=str(ACCOUNT / "ca.crt"))
    try:
        with urllib.request.urlopen(request, timeout=30, context=trusted) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        raise ApiError(f"the Secret {name}: {error.code} {error.reason}; key.yaml gives the rights") from error
    except OSError as error:
        raise ApiError(f"the API server at {host}:{port} does not answer ({error})") from error


def _read(name: str, folder: Path) -> dict[str, bytes]:
    """Write what the Secret holds into the folder's files; return it by file."""
    data = _request("GET", name).get("data") or {}
    found = {file: base64.b64decode(data[field]) for file, field in FIELDS.items() if field in data}
    for file, content in found.items():
        (folder / file).write_bytes(content)
        (folder / file).chmod(0o600)
    return found


def _write(name: str, folder: Path, before: dict[str, bytes]) -> dict[str, bytes]:
    """Put the folder's files into the Secret where they have changed; return them."""
    now = {file: (folder / file).read_bytes() for file in FIELDS if (folder / file).exists()}
    if now != before:
        _request("PATCH", name, {"data": {FIELDS[file]: base64.b64encode(now[file]).decode() for file in now}})
    return now


def main(words: list[str]) -> int:
    """Return the exit code of ``bulkscope setup``; 1 when the Secret cannot be read or written, 2 on wrong usage."""
    if len(words) < 2 or words[0] != "--secret":
        print("usage: setup.py --secret NAME [OPTIONS OF bulkscope setup]", file=sys.stderr)
        return 2
    name, options = words[1], words[2:]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        try:
            before = _read(name, folder)
            if NOTES not in before:
                (folder / NOTES).write_text(f"place {secrets.token_hex(16)}\n")
                (folder / NOTES).chmod(0o600)
                before = _write(name, folder, before)
            command = ["bulkscope", "setup", "--collector-key-file", str(folder / KEY), *options]
            code = subprocess.run(command).returncode
            # Also when it failed half-way: a key that was made must not be forgotten.
            _write(name, folder, before)
        except ApiError as error:
            print(f"setup: {error}", file=sys.stderr)
            return 1
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
