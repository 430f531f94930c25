"""``report.html``: the page of a bulk and the answers that it shows, in one file that asks nobody for anything.

The page's modules (``static/``) become one script: each is a function that returns what it exports, in an order in
which those that others import come first. A policy lets no other script run, and nothing be fetched. Files of one
version and the same answers give the same document, byte by byte.
"""

from __future__ import annotations

import base64
import graphlib
import hashlib
import html
import json
import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from importlib import resources
from typing import Any

import orjson

ENTRY = "frozen.js"
STYLES = ("app.css",)
_IMPORT = re.compile(r'^import\s*(?P<what>[^"\';]*?)\s*from\s*"(?P<of>\.[^"]+)";?', re.MULTILINE)
_AGAIN = re.compile(r'^export\s*\{(?P<what>[^}]*)\}\s*from\s*"(?P<of>\.[^"]+)";?', re.MULTILINE)
_DECLARED = re.compile(r"^export (?P<kind>const|function|async function|class) (?P<name>[\w$]+)", re.MULTILINE)
_DEFAULT = re.compile(r"(?:^|(?<=[;}\n]))export default ", re.MULTILINE)
_LIST = re.compile(r"(?:^|(?<=[;}\n]))export\s*\{(?P<what>[^}]*)\};?", re.MULTILINE)
_BLOCK = r"/\*\*(?:(?!\*/).)*\*/"
_COMMENT = re.compile(rf"^[ \t]*{_BLOCK}[ \t]*\n|{_BLOCK}|^[ \t]*//[^\n]*\n", re.DOTALL | re.MULTILINE)
# Whatever is left of them was written in a way that is not known here.
_LEFT = re.compile(r"^(?:import\b(?!\()|export\b)|(?<![\w$.])import\(", re.MULTILINE)


class Unbundled(ValueError):
    """A module that cannot be made part of the document; the message says which, and why."""


def document(found: Mapping[str, Any]) -> str:
    """Return the document of a bulk: its ``id``, and ``answers`` by address, as ``services.frozen`` has them."""
    script, theme, style = bundle(ENTRY), _read("theme.js"), "".join(map(_read, STYLES))
    policy = (
        f"default-src 'none'; script-src {_hash(script)} {_hash(theme)}; style-src {_hash(style)}; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    icon = "data:image/svg+xml;base64," + base64.b64encode(_read("icon.svg").encode()).decode()
    escaped = html.escape(found["id"], quote=True)
    bulk = "".join(each if each.isprintable() else f"&#{ord(each)};" for each in escaped)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="content-security-policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="referrer" content="no-referrer">\n<meta name="generator" content="Bulkscope">\n'
        f'<title>{bulk} – Bulkscope</title>\n<link rel="icon" href="{icon}">\n'
        f"<style>{style}</style>\n<script>{theme}</script>\n</head>\n<body>\n"
        f'<script type="application/json" id="frozen" data-bulk="{bulk}">{embedded(found["answers"])}</script>\n'
        '<div id="app"></div>\n'
        f"<noscript>This page of the bulk <code>{bulk}</code> needs JavaScript.</noscript>\n"
        f"<script>{script}</script>\n</body>\n</html>\n"
    )


def embedded(found: Any) -> str:
    """Return JSON that no HTML parser and no script takes for anything else."""
    text = orjson.dumps(found, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS).decode()
    return _UNSAFE.sub(_escaped, text)


_UNSAFE = re.compile(r"[^ -~]|[<>&]")


def _escaped(found: re.Match[str]) -> str:
    sign = found[0]
    if sign in "<>&":
        return f"\\u{ord(sign):04x}"
    # What a terminal must not see is not written to it as it is, nor what ends a line of a script.
    return sign if sign.isprintable() else json.dumps(sign)[1:-1]


@cache
def bundle(entry: str) -> str:
    """Return a module of ``static/`` and all that it imports as one script; raises ``Unbundled``."""
    modules: dict[str, tuple[str, list[str]]] = {}
    pending = [entry]
    while pending:
        name = pending.pop()
        if name not in modules:
            modules[name] = _function(name)
            pending += modules[name][1]
    try:
        order = list(graphlib.TopologicalSorter({name: sorted(of) for name, (_, of) in modules.items()}).static_order())
    except graphlib.CycleError as error:
        raise Unbundled(f"modules import each other: {' imports '.join(reversed(error.args[1]))}") from error
    script = f'{_credits(modules)}(() => {{\n"use strict";\n' + "".join(modules[name][0] for name in order) + "})();\n"
    if "</script" in script.lower() or "<!--" in script:
        raise Unbundled(f"{entry} and what it imports hold a text that ends a script in HTML")
    return script


def _credits(modules: Iterable[str]) -> str:
    """Name the libraries that are part of the script, with their version and licence."""
    used = {name.removeprefix("lib/") for name in modules if name.startswith("lib/")}
    named = [
        f"{one['name']} {one['version']} ({one['licence']})"
        for one in (orjson.loads(_read("lib/VENDORED.json")) if used else ())
        if used & one["files"].keys()
    ]
    return f"/*! with {', '.join(named)} */\n" if named else ""


def _function(name: str) -> tuple[str, list[str]]:
    """Return a module as the statement that gives its exports a name, and the modules that it imports."""
    text, needs, exports = _COMMENT.sub("", _read(name)), [], {}

    def path(of: str) -> str:
        needs.append(posixpath.normpath(posixpath.join(posixpath.dirname(name), of)))
        return _name(needs[-1])

    def imported(found: re.Match[str]) -> str:
        what, of = found["what"], path(found["of"])
        if (whole := re.fullmatch(r"\*\s*as\s+([\w$]+)", what)) is not None:
            return f"const {whole[1]} = {of};"
        default, _, named = what.partition("{")
        pairs = [f"{theirs}: {ours}" for theirs, ours in _names(named.removesuffix("}"))]
        if default.strip(" ,"):
            pairs.insert(0, f"default: {default.strip(' ,')}")
        return f"const {{ {', '.join(pairs)} }} = {of};"

    def handed_on(found: re.Match[str]) -> str:
        of = path(found["of"])
        exports.update({theirs: f"{of}.{ours}" for ours, theirs in _names(found["what"])})
        return ""

    def declared(found: re.Match[str]) -> str:
        exports[found["name"]] = found["name"]
        return f"{found['kind']} {found['name']}"

    def default(found: re.Match[str]) -> str:
        exports["default"] = "$default"
        return "const $default = "

    def listed(found: re.Match[str]) -> str:
        exports.update({theirs: ours for ours, theirs in _names(found["what"])})
        return ""

    for pattern, put in (
        (_AGAIN, handed_on), (_IMPORT, imported), (_DECLARED, declared), (_DEFAULT, default), (_LIST, listed),
    ):  # fmt: skip
        text = pattern.sub(put, text)
    if (left := _LEFT.search(text)) is not None:
        line = text[left.start() : left.start() + 60].partition("\n")[0]
        raise Unbundled(f"static/{name}: {line!r} cannot be made part of one script")
    returned = ", ".join(f"{theirs}: {ours}" for theirs, ours in exports.items())
    return f"const {_name(name)} = (() => {{\n{text.strip()}\nreturn {{ {returned} }};\n}})();\n", needs


def _names(text: str) -> Iterator[tuple[str, str]]:
    """Yield the pairs of ``a as b, c``: of ``c`` twice the same."""
    for part in filter(None, map(str.strip, text.split(","))):
        first, _, second = part.partition(" as ")
        yield first.strip(), (second or first).strip()


def _name(path: str) -> str:
    return "$" + re.sub(r"\W", "_", path)


@cache
def _read(path: str) -> str:
    found = resources.files("bulkscope_studio") / "static"
    for part in path.split("/"):
        found = found / part
    try:
        return found.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise Unbundled(f"there is no static/{path}") from error


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
