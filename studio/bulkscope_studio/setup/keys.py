"""API keys: made once, their secret in a file that only its owner reads, rotated without a gap.

Elasticsearch shows a key's secret once, when it is made. So a key is only made when there is somewhere to put
it, and the place is tried before. An answer that is lost on its way leaves a key whose secret nobody knows: each key
says in its metadata for which place it was made, and one of this place that its file has never held is ended.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import errno
import fcntl
import os
import secrets
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bulkscope_studio.elastic.client import NotReady, Trouble, api_key, wait
from bulkscope_studio.setup import merge
from bulkscope_studio.setup.apply import Outcome, Session

# A Collector that was started with the old key goes on with it until it is restarted; one whose key is refused
# (401) drops what it holds, since its exporter does not retry that.
GRACE = "1d"
MADE_BY = "bulkscope setup"
_KEYS = {"api_keys": [{"id": str, "name": str, "role_descriptors?": dict, "metadata?": dict, "expiration?": int}]}


def key_name(role: str) -> str:
    return role.replace("_", "-")


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a key goes. ``name`` stands in the metadata of keys that are made for it, None while none was.

    The file beside the key's holds the name, and the ids that the key's file has held. Whoever has the lock on it may
    change both: of several runs at once one makes a key, the others find it.
    """

    path: Path
    notes: int | None
    name: str | None
    held: frozenset[str]

    def made(self, key: dict[str, Any]) -> bool:
        return self.name is not None and (key.get("metadata") or {}).get("place") == self.name

    def note(self, line: str) -> None:
        assert self.notes is not None
        os.write(self.notes, f"{line}\n".encode())
        os.fsync(self.notes)


@contextlib.contextmanager
def _place(session: Session, path: Path) -> Iterator[_Place]:
    """Give the place of a key, which nobody else has meanwhile; only looked at in a dry run, or where nothing may be
    written."""
    notes = path.with_name(f".{path.name}.setup")
    how = os.O_RDONLY if session.dry_run else os.O_RDWR | os.O_CREAT | os.O_APPEND
    try:
        handle = os.open(notes, how | os.O_CLOEXEC, 0o600)
    except OSError:
        yield _Place(path, None, None, frozenset())
        return
    try:
        if not session.dry_run:
            _lock(session, handle, notes)
        lines = [line.partition(" ") for line in os.pread(handle, 2**20, 0).decode("utf-8", "replace").splitlines()]
        name = next((value for word, _, value in lines if word == "place" and len(value) == 32), None)
        held = frozenset(value for word, _, value in lines if word == "held")
        place = _Place(path, None if session.dry_run else handle, name, held)
        if name is None and not session.dry_run:
            place = _Place(path, handle, secrets.token_hex(16), held)
            place.note(f"place {place.name}")
        yield place
    finally:
        os.close(handle)  # and with it the lock


def _lock(session: Session, handle: int, notes: Path) -> None:
    def probe() -> None:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise NotReady(f"another run of setup holds {notes}") from error
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):  # a file system without locks
                raise

    wait(probe, session.wait_s, "another run of setup", session.say, sleep=session.elasticsearch.sleep)


def provide(session: Session, role: str, descriptor: dict[str, Any]) -> Iterator[Outcome]:
    """See that the key of ``role`` is there, has the role's rights, and stands in its file."""
    path = session.key_files.get(role)
    if path is None:
        words = f"no file to write it to: --{role.partition('_')[2]}-key-file"
        yield Outcome("skipped", f"API key {key_name(role)}", (words,))
        return
    with _place(session, path) as place:
        yield from _provide(session, role, descriptor, place)


def _provide(session: Session, role: str, descriptor: dict[str, Any], place: _Place) -> Iterator[Outcome]:
    name, path = key_name(role), place.path
    subject = f"API key {name}"
    valid = _valid(session, name)
    encoded = _stored(path)
    mine = _identity(encoded) if encoded else None
    if mine and mine not in place.held and place.notes is not None:
        place.note(f"held {mine}")  # by hand, or the run that put it there was cut off
    lost = [key for key in valid if place.made(key) and key["id"] not in place.held and key["id"] != mine]
    if lost:
        yield from _end(session, name, lost)
        valid = [key for key in valid if key not in lost]
    current = next((key for key in valid if key["id"] == mine), None)
    if encoded and current is not None and not _works(session, encoded):
        current = None
    if session.rotate_keys or current is None:
        if valid and not session.rotate_keys:
            raise Trouble(
                f"there is a valid API key {name}, but {path} does not hold it, and its secret cannot be read back; "
                "put the key into the file, or make a new one with --rotate-keys"
            )
        yield from _make(session, name, role, descriptor, place)
        yield from _former(session, name, valid)
        return
    assert encoded is not None
    if merge.lacking((current.get("role_descriptors") or {}).get(role), descriptor):
        if not session.dry_run:
            _own(session, subject)
            session.elasticsearch.request(
                "PUT", f"/_security/api_key/{current['id']}", {"role_descriptors": {role: descriptor}}
            )
        yield Outcome("changed", subject, ("its rights are those of the role again",))
    else:
        yield Outcome("unchanged", subject)
    yield from _private(session, path)
    # Of a rotation that was cut off before it had told them.
    yield from _former(session, name, [key for key in valid if place.made(key) and key is not current])
    if session.print_keys:
        session.say(f"{name}: {encoded}")


def _valid(session: Session, name: str) -> list[dict[str, Any]]:
    found = session.elasticsearch.get(f"/_security/api_key?name={name}").like(_KEYS)["api_keys"]
    now_ms = session.now() * 1000
    return [
        key
        for key in found
        if key["name"] == name and not key.get("invalidated") and (key.get("expiration") or now_ms + 1) > now_ms
    ]


def _end(session: Session, name: str, lost: list[dict[str, Any]]) -> Iterator[Outcome]:
    if not session.dry_run:
        ended = session.elasticsearch.request("DELETE", "/_security/api_key", {"ids": [key["id"] for key in lost]})
        if ended.like({"error_count?": int}).get("error_count"):
            raise Trouble(f"a key {name} whose secret was lost cannot be ended: {ended.text.strip()[:400]}")
    words = f"{len(lost)} made for this file, whose secret never came: ended, nobody can have it"
    yield Outcome("changed", f"lost API key {name}", (words,))


def _make(session: Session, name: str, role: str, descriptor: dict[str, Any], place: _Place) -> Iterator[Outcome]:
    path = place.path
    details = (f"written to {path}",)
    if session.dry_run:
        yield Outcome("created", f"API key {name}", details)
        return
    _own(session, f"API key {name}")
    temporary = path.with_name(f".{path.name}.new")
    try:
        temporary.unlink(missing_ok=True)  # of a run that was killed
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        if place.notes is None:
            os.close(handle)
            temporary.unlink()
            raise OSError(errno.EACCES, f".{path.name}.setup beside it cannot be written")
    except OSError as error:
        raise Trouble(f"{path} cannot be written ({error.strerror}); no API key was made") from error
    try:
        with os.fdopen(handle, "w") as file:
            answer = session.elasticsearch.request(
                "POST",
                "/_security/api_key",
                {
                    "name": name,
                    "role_descriptors": {role: descriptor},
                    "metadata": {"made_by": MADE_BY, "place": place.name},
                },
                once=True,
            )
            made = answer.like({"id": str, "encoded": str})
            file.write(made["encoded"])  # no line end: whoever puts the file's content into a header wants none
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        place.note(f"held {made['id']}")
    finally:
        temporary.unlink(missing_ok=True)
    yield Outcome("created", f"API key {name}", details)
    if session.print_keys:
        session.say(f"{name}: {made['encoded']}")


def _former(session: Session, name: str, old: list[dict[str, Any]]) -> Iterator[Outcome]:
    for key in old:
        if not key.get("expiration"):
            if not session.dry_run:
                session.elasticsearch.request("PUT", f"/_security/api_key/{key['id']}", {"expiration": GRACE})
            yield Outcome(
                "changed", f"former API key {name} {key['id']}", (f"ends in {GRACE}: restart what uses it before",)
            )


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
