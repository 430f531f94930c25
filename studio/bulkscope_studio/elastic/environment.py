"""What the environment says of the servers: where they are, and what to log in with. One rule for every command."""

from __future__ import annotations

import urllib.parse
from collections.abc import Mapping
from pathlib import Path

from bulkscope_studio.elastic.client import Credentials, Trouble, api_key, basic

ELASTICSEARCH = "http://127.0.0.1:9200"
KIBANA = "http://127.0.0.1:5601"


class BadEnvironment(Trouble):
    """A variable is wrong; the message says which, and what to do."""


def secret(environment: Mapping[str, str], name: str) -> str | None:
    """Return the value of ``name``, or what the file that ``name``_FILE names holds; None where neither is set.

    Line ends at the end of a file are not part of it. Raises ``BadEnvironment``.
    """
    if value := environment.get(name):
        return value
    path = environment.get(f"{name}_FILE")
    if not path:
        return None
    try:
        found = Path(path).read_text(encoding="utf-8").strip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise BadEnvironment(f"{name}_FILE={path} cannot be read ({error})") from error
    if not found:
        raise BadEnvironment(f"{name}_FILE={path} is empty")
    return found


def address(environment: Mapping[str, str], name: str, default: str) -> str:
    """Return the URL that ``name`` holds, or ``default``; raises ``BadEnvironment``."""
    value = environment.get(name) or default
    try:
        parts = urllib.parse.urlsplit(value)
        port_is_fine = parts.port != 0
    except ValueError:
        parts, port_is_fine = urllib.parse.urlsplit(""), False
    if parts.username or parts.password:
        raise BadEnvironment(f"{name} holds a user or password; put it into ELASTIC_PASSWORD, addresses are shown")
    if parts.scheme not in ("http", "https") or not parts.hostname or not port_is_fine or parts.query:
        raise BadEnvironment(f"{name} is no address such as {default}")
    return value


def credentials(environment: Mapping[str, str]) -> Credentials | None:
    """Return what to log in with: ELASTIC_PASSWORD, else ELASTICSEARCH_API_KEY, else None; raises ``BadEnvironment``.

    The password first: ELASTICSEARCH_API_KEY is also what the Collector reads, and its key may neither change
    anything nor read.
    """
    if password := secret(environment, "ELASTIC_PASSWORD"):
        return basic("elastic", password, "ELASTIC_PASSWORD")
    key = secret(environment, "ELASTICSEARCH_API_KEY")
    if key is None:
        return None
    if not key.isascii() or any(character.isspace() for character in key):
        raise BadEnvironment("ELASTICSEARCH_API_KEY is no encoded API key: it holds spaces or other characters")
    return api_key(key, "ELASTICSEARCH_API_KEY")
