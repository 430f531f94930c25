"""Ids in paths: a bulk or a run may be called anything, and Starlette's own ``path`` ends at a line break."""

from __future__ import annotations

from starlette.convertors import Convertor, register_url_convertor


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
