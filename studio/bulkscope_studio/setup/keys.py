"""API keys: made once, their secret in a file that only its owner reads, rotated without a gap.

Elasticsearch shows a key's secret once, when it is made. So a key is only made when there is somewhere to put
it, and the place is tried before.
"""

from __future__ import annotations

import base64
import binascii
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bulkscope_studio.setup import merge
from bulkscope_studio.setup.apply import Outcome, Session
from bulkscope_studio.setup.client import Trouble, api_key

# A Collector that was started with the old key goes on with it until it is restarted; one whose key is refused
# (401) drops what it holds, since its exporter does not retry that.
GRACE = "1d"


def key_name(role: str) -> str:
    return role.replace("_", "-")


def provide(session: Session, role: str, descriptor: dict[str, Any]) -> Iterator[Outcome]:
    """See that the key of ``role`` is there, has the role's rights, and stands in its file."""
    name = key_name(role)
    subject = f"API key {name}"
    path = session.key_files.get(role)
    if path is None:
        yield Outcome("skipped", subject, (f"no file to write it to: --{role.partition('_')[2]}-key-file",))
        return
    valid = _valid(session, name)
    encoded = _stored(path)
    current = next((key for key in valid if encoded and key["id"] == _identity(encoded)), None)
    if encoded and current is not None and not _works(session, encoded):
        current = None
    if session.rotate_keys or current is None:
        if valid and not session.rotate_keys:
            raise Trouble(
                f"there is a valid API key {name}, but {path} does not hold it, and its secret cannot be read back; "
                "put the key into the file, or make a new one with --rotate-keys"
            )
        yield from _make(session, name, role, descriptor, path, valid)
        return
    assert encoded is not None
    if merge.lacking(current.get("role_descriptors", {}).get(role), descriptor):
        if not session.dry_run:
            _own(session, subject)
            session.elasticsearch.request(
                "PUT", f"/_security/api_key/{current['id']}", {"role_descriptors": {role: descriptor}}
            )
        yield Outcome("changed", subject, ("its rights are those of the role again",))
    else:
        yield Outcome("unchanged", subject)
    yield from _private(session, path)
    if session.print_keys:
        session.say(f"{name}: {encoded}")


def _valid(session: Session, name: str) -> list[dict[str, Any]]:
    found = session.elasticsearch.get(f"/_security/api_key?name={name}").body["api_keys"]
    now_ms = session.now() * 1000
    return [
        key
        for key in found
        if key["name"] == name and not key.get("invalidated") and (key.get("expiration") or now_ms + 1) > now_ms
    ]


def _make(
    session: Session, name: str, role: str, descriptor: dict[str, Any], path: Path, old: list[dict[str, Any]]
) -> Iterator[Outcome]:
    details = (f"written to {path}",)
    if session.dry_run:
        yield Outcome("created", f"API key {name}", details)
        return
    _own(session, f"API key {name}")
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise Trouble(f"{path} cannot be written ({error.strerror}); no API key was made") from error
    try:
        with os.fdopen(handle, "w") as file:
            answer = session.elasticsearch.request(
                "POST",
                "/_security/api_key",
                {"name": name, "role_descriptors": {role: descriptor}, "metadata": {"made_by": "bulkscope setup"}},
                once=True,
            )
            encoded = str(answer.body["encoded"])
            file.write(encoded)  # no line end: whoever puts the file's content into a header wants none
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    yield Outcome("created", f"API key {name}", details)
    if session.print_keys:
        session.say(f"{name}: {encoded}")
    for key in old:
        if not key.get("expiration"):
            session.elasticsearch.request("PUT", f"/_security/api_key/{key['id']}", {"expiration": GRACE})
            yield Outcome("changed", f"former API key {name}", (f"ends in {GRACE}: restart what uses it before",))


def _own(session: Session, subject: str) -> None:
    credentials = session.elasticsearch.credentials
    if credentials is not None and credentials.is_key:
        raise Trouble(
            f"{subject} cannot be made or changed by another API key, which Elasticsearch does not allow; "
            "set ELASTIC_PASSWORD instead of ELASTICSEARCH_API_KEY"
        )


def _identity(encoded: str) -> str | None:
    try:
        return base64.b64decode(encoded, validate=True).decode().partition(":")[0] or None
    except (binascii.Error, UnicodeDecodeError):
        return None


def _stored(path: Path) -> str | None:
    """The key in ``path``, None where there is none; what is no key is not overwritten."""
    try:
        text = path.read_text().strip()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise Trouble(f"{path} cannot be read ({error}); name another file for the API key") from error
    if text and _identity(text) is None:
        raise Trouble(f"{path} holds something that is no API key; name another file, it is not overwritten")
    return text or None


def _works(session: Session, encoded: str) -> bool:
    credentials = api_key(encoded, "file")
    answer = session.elasticsearch.get("/_security/_authenticate", allowed=(401,), credentials=credentials)
    return answer.status != 401


def _private(session: Session, path: Path) -> Iterator[Outcome]:
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        if not session.dry_run:
            path.chmod(0o600)
        yield Outcome("changed", f"mode of {path}", (f"~ {mode:o} -> 600",))
