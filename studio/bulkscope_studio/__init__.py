"""Bulkscope's studio: what it has stored, as tables for a notebook.

``import bulkscope_studio as bs`` loads nothing; the first question does. This surface is frozen:
``read``, ``jobs``, ``bulks`` and ``sql`` return ``pyarrow.Table``, of which ``.to_pandas()`` and ``polars.from_arrow``
make theirs, and raise ``Trouble``, ``NotFound`` and ``InvalidQuery``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bulkscope_studio.notebook import InvalidQuery, NotFound, Trouble, bulks, jobs, read, sql

__all__ = ["InvalidQuery", "NotFound", "Trouble", "bulks", "jobs", "read", "sql"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'bulkscope_studio' has no attribute {name!r}")
    from bulkscope_studio import notebook

    return getattr(notebook, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
