"""Secrets in the environment, or in the files that it names. They are never arguments and never shown."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path


class BadSecret(Exception):
    """A secret cannot be read; the message says which, and why."""


def secret(environment: Mapping[str, str], name: str) -> str | None:
    """Return the value of ``name``, or what the file that ``name``_FILE names holds; None where neither is set.

    Line ends at the end of a file are not part of it. Raises ``BadSecret``.
    """
    if value := environment.get(name):
        return value
    path = environment.get(f"{name}_FILE")
    if not path:
        return None
    try:
        found = Path(path).read_text(encoding="utf-8").strip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise BadSecret(f"{name}_FILE={path} cannot be read ({error})") from error
    if not found:
        raise BadSecret(f"{name}_FILE={path} is empty")
    return found
