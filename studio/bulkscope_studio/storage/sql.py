"""The SQL of pages and reports, each query in a file of its own so that it can be read and timed alone."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

from bulkscope_studio.storage import credible


@cache
def load(name: str) -> str:
    """Return the text of ``queries/<name>.sql``, reading credible numbers only.

    An unknown name raises FileNotFoundError.
    """
    return credible.reading(part(name))


@cache
def part(name: str) -> str:
    """Return the text of ``queries/<name>.sql`` as it stands there, for a statement that is put together of several."""
    return files("bulkscope_studio.storage").joinpath("queries", f"{name}.sql").read_text(encoding="utf-8")


def sampled(name: str, share: float) -> str:
    """Return a query as ``load`` does; with a ``share`` below 1, of a sample of blocks of the table marked for it."""
    text = load(name)
    if share >= 1:
        return text
    return text.replace(credible.SAMPLE, f"TABLESAMPLE SYSTEM({100 * share:.6f} PERCENT) REPEATABLE (1)")
