"""The documented form of an answer, as far as it is read, written down where it is read.

A form is a type (``str``: text), ``[form]`` (a list of such), or ``{key: form}`` (an object with these keys and any
others; ``"key?"`` may be missing or null).
"""

from __future__ import annotations

from typing import Any

WORDS = {str: "text", dict: "an object", list: "a list", bool: "true or false", int: "a number"}


def unlike(value: Any, form: Any, path: str = "") -> str | None:
    """Return where ``value`` is not of ``form`` and what is there instead; None where it is."""
    if isinstance(form, type):
        fits = isinstance(value, form) and not (form is int and isinstance(value, bool))
        return None if fits else f"{path or 'it'} is {_kind(value)}, not {WORDS[form]}"
    if not isinstance(value, type(form)):
        return f"{path or 'it'} is {_kind(value)}, not {WORDS[type(form)]}"
    if isinstance(form, list):
        found = (unlike(item, form[0], f"{path}[{number}]") for number, item in enumerate(value))
        return next((one for one in found if one), None)
    for key, inner in form.items():
        name, at = key.removesuffix("?"), f"{path}.{key.removesuffix('?')}".lstrip(".")
        if value.get(name) is None and key.endswith("?"):
            continue
        if name not in value:
            return f"{at} is missing"
        wrong = unlike(value[name], inner, at)
        if wrong:
            return wrong
    return None


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    return next((word for kind, word in WORDS.items() if isinstance(value, kind)), "a number")
