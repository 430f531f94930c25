"""Make ``kibana-dashboards.json`` anew: ``python -m tests.production.reduce_dashboards FILE``.

FILE is ``generated/kbapi/dashboards.json`` of the Terraform provider for the Elastic Stack (``SOURCE``), the OpenAPI
document of ``/api/dashboards`` as Kibana generates it. Kept is what the body of ``PUT /api/dashboards/{id}`` refers to,
word for word but for descriptions and examples, one schema a line.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SOURCE = (
    "https://github.com/elastic/terraform-provider-elasticstack, generated/kbapi/dashboards.json, "
    "commit 68622b62f54a8caf49d42629b4bc6cc21dba7ba3 of 2026-05-11 (Apache-2.0)"
)
TARGET = Path(__file__).with_name("kibana-dashboards.json")
WORDS = frozenset({"description", "example", "examples", "title", "deprecated"})


def without_words(found: Any, names: bool = False) -> Any:
    """Return a schema without what only people read; ``names``: the keys are names of properties."""
    if isinstance(found, dict):
        return {
            key: without_words(value, key in ("properties", "mapping") and not names)
            for key, value in found.items()
            if names or key not in WORDS
        }
    return [without_words(one) for one in found] if isinstance(found, list) else found


def named(found: Any) -> Iterator[str]:
    """Yield the names of the components that a schema refers to."""
    if isinstance(found, dict):
        if isinstance(reference := found.get("$ref"), str):
            yield reference.rpartition("/")[2]
        for value in found.values():
            yield from named(value)
    elif isinstance(found, list):
        for one in found:
            yield from named(one)


def reduced(document: dict[str, Any]) -> str:
    """Return the text of the reduced document."""
    components = document["components"]["schemas"]
    content = document["paths"]["/api/dashboards/{id}"]["put"]["requestBody"]["content"]
    body = without_words(content["application/json"]["schema"])
    kept: dict[str, Any] = {}
    wanted = set(named(body))
    while left := wanted - kept.keys():
        for name in left:
            kept[name] = without_words(components[name])
            wanted |= set(named(kept[name]))
    lines = [f"{json.dumps(name)}: {json.dumps(kept[name])}" for name in sorted(kept)]
    parts = (json.dumps(SOURCE), json.dumps(body), ",\n".join(lines))
    return '{{"source": {},\n"body": {},\n"components": {{"schemas": {{\n{}\n}}}}}}\n'.format(*parts)


if __name__ == "__main__":
    TARGET.write_text(reduced(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))), encoding="utf-8")
