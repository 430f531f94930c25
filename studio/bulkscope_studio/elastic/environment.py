"""What the environment says of the servers: where they are, and what to log in with. One rule for every command."""

from __future__ import annotations

import urllib.parse
from collections.abc import Mapping

from bulkscope_studio.elastic.client import Credentials, Trouble, api_key, basic
from bulkscope_studio.text import secrets

ELASTICSEARCH = "http://127.0.0.1:9200"
KIBANA = "http://127.0.0.1:5601"


class BadEnvironment(Trouble):
    """A variable is wrong; the message says which, and what to do."""


def secret(environment: Mapping[str, str], name: str) -> str | None:
    """Return ``secrets.secret``; raises ``BadEnvironment``."""
    try:
        return secrets.secret(environment, name)
    except secrets.BadSecret as error:
        raise BadEnvironment(str(error)) from error


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
