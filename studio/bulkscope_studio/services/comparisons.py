"""Two sides by their names, compared: bulks, kept runs, or one model of these."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from bulkscope_studio.analysis.compare import compare as analysis
from bulkscope_studio.analysis.compare import sides
from bulkscope_studio.analysis.compare.sides import Side
from bulkscope_studio.services import bulks
from bulkscope_studio.services.errors import InvalidQuery, NotFound
from bulkscope_studio.services.sides import Sides
from bulkscope_studio.storage.saved_runs import Tables


def _named(among: Sides, name: str) -> Tables | None:
    """Return what a name without a model stands for; a run goes before a bulk of the same name."""
    if name == "latest":
        name = among.latest()
    found = among.run(name)
    return among.bulk(name) if found is None else found


def _splits(text: str) -> Iterator[tuple[str, str]]:
    """Yield NAME, MODEL for every ``@``, the last one first: both may hold some themselves."""
    at = text.rfind("@")
    while at >= 0:
        yield text[:at], text[at + 1 :]
        at = text.rfind("@", 0, at)


def side(among: Sides, text: str) -> Side:
    """Return the side that ``text`` names: ``NAME`` or ``NAME@MODEL``, a name being a run, a bulk or ``latest``.

    Raises ``NotFound`` with the nearest names or models.
    """
    found = _named(among, text)
    if found is not None:
        return sides.side(text, found)
    for name, model in _splits(text):
        found = _named(among, name)
        if found is not None:
            there = sides.models(found)
            if model not in there:
                raise NotFound(model, bulks.nearest(model, there), f"model in {name!r}:")
            return sides.side(text, found, model)
    name = next((name for name, _ in _splits(text)), text)
    raise NotFound(name, bulks.nearest(name, among.names()), "bulk or run")


def compare(among: Sides, a: str, b: str | None, models: bool = False) -> dict[str, Any]:
    """Return the comparison of two sides, or with ``models`` of the two models of ``a``.

    Raises ``NotFound``, and ``InvalidQuery`` for what are not two sides, or for a run that cannot be read.
    """
    if not models:
        if b is None:
            raise InvalidQuery("name two sides: A B, or one and --models for its two models")
        return _compared(side(among, a), side(among, b))
    if b is not None:
        raise InvalidQuery("--models compares the two models of one bulk or run; name one")
    found = _named(among, a)
    if found is None:
        raise NotFound(a, bulks.nearest(a, among.names()), "bulk or run")
    there = sides.models(found)
    if len(there) != 2:
        said = f"{len(there)}: {', '.join(there)}" if there else "no inferences"
        more = f"; choose two, as in '{a}@{there[0]}' '{a}@{there[1]}'" if len(there) > 2 else ""
        raise InvalidQuery(f"{a!r} has not two models but {said}{more}")
    one, other = (sides.side(f"{a}@{model}", found, model) for model in there)
    return _compared(one, other)


def _compared(a: Side, b: Side) -> dict[str, Any]:
    return analysis.to_json(analysis.compare(a, b)) | {"notes": []}
