"""Put what we want into what is there, and say what differs. Nothing here talks to a server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from bulkscope_studio.setup.plan import OURS, Json

# What a component template may be given; an answer holds more (dates of its making), which a PUT refuses.
_TEMPLATE_KEYS = ("template", "version", "_meta", "deprecated")
_AUTO_REPLICAS, _REPLICAS = "index.auto_expand_replicas", "index.number_of_replicas"


def flat(settings: Json, prefix: str = "") -> Json:
    """Return index settings as Elasticsearch compares them: dotted keys under ``index.``, values as text."""
    found: Json = {}
    for key, value in settings.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict):
            found |= flat(value, f"{name}.")
        elif value is not None:
            found[name if name.startswith("index.") else f"index.{name}"] = _text(value)
    return found


def _text(value: Any) -> Any:
    if isinstance(value, list):
        return [_text(item) for item in value]
    return str(value).lower() if isinstance(value, bool) else str(value)


def deep(have: Any, ours: Any) -> Any:
    """Return ``have`` with the keys of ``ours`` put in, objects in objects; all else that ``have`` holds stays."""
    if isinstance(have, dict) and isinstance(ours, dict):
        return have | {key: deep(have.get(key), value) for key, value in ours.items()}
    return ours


def template(have: Json | None, ours: Json) -> Json:
    """Return the component template to put: what a user has there stays, the keys of ours are set."""
    kept = normal(have or {})
    wanted = normal(ours)
    settings = wanted["template"].get("settings", {})
    theirs = kept["template"].get("settings", {})
    if _REPLICAS in theirs and _AUTO_REPLICAS not in theirs:
        settings.pop(_AUTO_REPLICAS, None)  # a number of replicas that somebody chose is theirs
    lists = [part["template"].get("mappings", {}).get("dynamic_templates", []) for part in (kept, wanted)]
    merged: Json = deep(kept, wanted)
    if lists[1]:
        # Ours first: the first that matches decides, and ours name whole paths of our own attributes.
        others = [entry for entry in lists[0] if not all(name.startswith(f"{OURS}_") for name in entry)]
        merged["template"]["mappings"]["dynamic_templates"] = lists[1] + others
    return merged


def normal(body: Json) -> Json:
    """Return a component template as it is compared: the keys that may be put, settings flat."""
    kept = {key: body[key] for key in _TEMPLATE_KEYS if body.get(key) is not None}
    inner = {key: value for key, value in kept.get("template", {}).items() if value is not None}
    if "settings" in inner:
        inner["settings"] = flat(inner["settings"])
    return kept | {"template": inner}


def differences(have: Any, want: Any, path: str = "") -> list[str]:
    """Return a line for each value that turns ``have`` into ``want``: ``+`` added, ``~`` changed, ``-`` gone."""
    return list(_differences(have, want, path))


def _differences(have: Any, want: Any, path: str) -> Iterator[str]:
    if _named(have) and _named(want) and have != want:
        inner = list(_differences(_by_name(have), _by_name(want), path))
        yield from inner or [f"~ {path}: in another order"]
    elif isinstance(have, dict) and isinstance(want, dict):
        for key in sorted(have.keys() | want.keys()):
            at = f"{path}.{key}" if path else key
            if key not in have:
                yield from _added(want[key], at)
            elif key not in want:
                yield f"- {at}: {_short(have[key])}"
            else:
                yield from _differences(have[key], want[key], at)
    elif have != want:
        yield f"~ {path}: {_short(have)} -> {_short(want)}"


def _added(want: Any, path: str) -> Iterator[str]:
    if _named(want):
        want = _by_name(want)
    if isinstance(want, dict) and want:
        for key in sorted(want):
            yield from _added(want[key], f"{path}.{key}")
    else:
        yield f"+ {path}: {_short(want)}"


def _named(value: Any) -> bool:
    """Whether it is a list of objects of one key each, as dynamic templates are."""
    return isinstance(value, list) and bool(value) and all(isinstance(one, dict) and len(one) == 1 for one in value)


def _by_name(entries: list[Json]) -> Json:
    return {key: value for entry in entries for key, value in entry.items()}


def _short(value: Any, most: int = 100) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= most else f"{text[: most - 1]}…"


def lacking(have: Any, want: Any, path: str = "") -> list[str]:
    """Return the paths at which ``have`` does not hold what ``want`` says; what it holds besides does not count.

    Lists must be of one length, and hold it item by item: an item more in a list of privileges is a difference.
    """
    if isinstance(want, dict):
        if not isinstance(have, dict):
            return [path]
        return [at for key, value in want.items() for at in lacking(have.get(key), value, f"{path}.{key}".lstrip("."))]
    if isinstance(want, list):
        if not isinstance(have, list) or len(have) != len(want):
            return [path]
        return [
            at
            for number, (one, other) in enumerate(zip(have, want, strict=True))
            for at in lacking(one, other, f"{path}[{number}]")
        ]
    return [] if have == want else [path]
