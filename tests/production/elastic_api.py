"""What Elastic's own specification of Elasticsearch's API takes and refuses: ``refusal`` is why it would answer 400.

The specification (``elasticsearch-api.LICENSE.txt``) is of 9.5. Names of index settings are open in it.
"""

from __future__ import annotations

import functools
import json
import re
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match

DOCUMENT = Path(__file__).with_name("elasticsearch-api.json")


@functools.cache
def _operations() -> list[tuple[frozenset[str], re.Pattern[str], Draft202012Validator | None]]:
    document = json.loads(DOCUMENT.read_text(encoding="utf-8"))
    found = []
    for operation in document["operations"].values():
        body = operation["body"]
        checks = None if body is None else Draft202012Validator(body | {"$defs": document["$defs"]})
        for methods, path in operation["urls"]:
            pattern = re.sub(r"\\\{\w+\\\}", "[^/]+", re.escape(path))
            found.append((frozenset(methods), re.compile(pattern), checks))
    return found


def described(method: str, path: str) -> bool:
    """Return whether the specification kept here has the operation."""
    return any(method in methods and pattern.fullmatch(path) for methods, pattern, _ in _operations())


def refusal(method: str, path: str, body: Any) -> str | None:
    """Return why Elasticsearch refuses ``body``; None where it takes it, or the operation is not among those kept."""
    return _refusal(method, path, json.dumps(body))  # the same is sent again and again, by retries and by runs


@functools.lru_cache(maxsize=256)
def _refusal(method: str, path: str, text: str) -> str | None:
    body = json.loads(text)
    for methods, pattern, checks in _operations():
        if method not in methods or not pattern.fullmatch(path):
            continue
        if checks is None:
            return None if body is None else "request does not support having a body"
        error = None if body is None else best_match(checks.iter_errors(body))
        if error is not None:
            return f"[{'.'.join(map(str, error.absolute_path))}] {error.message[:500]}"
        return None
    return None
