"""Ids in paths: a bulk or a run may be called anything, and Starlette's own ``path`` ends at a line break."""

from __future__ import annotations

import re
from typing import Any

from starlette.convertors import Convertor, register_url_convertor
from starlette.routing import Mount


class _AnyId(Convertor[str]):  # type: ignore[misc]  # Starlette is untyped here
    regex = r"[\s\S]*"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("id", _AnyId())


def any_id(name: str) -> str:
    """Return the part of a route's path that stands for any text and is given as ``name``."""
    return f"{{{name}:id}}"


def let_mounts_through(app: Any) -> None:
    """Let what is mounted in a Starlette application, such as NiceGUI's, see such paths."""
    for route in app.routes:
        if isinstance(route, Mount):
            route.path_regex = re.compile(route.path_regex.pattern, re.DOTALL)
