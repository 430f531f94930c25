"""Addresses of Kibana's pages, as the formats of a data view make links of values.

``../app`` because Kibana puts its base path, and the space, before that alone. ``{{value}}`` is filled in by Kibana.
"""

from __future__ import annotations

import urllib.parse
from collections.abc import Mapping, Sequence
from typing import Any

VALUE = "{{value}}"


def rison(value: Any) -> str:
    """Return a value as Kibana writes state into its addresses."""
    if isinstance(value, bool):
        return "!t" if value else "!f"
    if isinstance(value, str):
        return "'" + value.replace("!", "!!").replace("'", "!'") + "'"
    if isinstance(value, Mapping):
        return f"({','.join(f'{key}:{rison(inner)}' for key, inner in value.items())})"
    if isinstance(value, Sequence):
        return f"!({','.join(map(rison, value))})"
    return str(value)


def trace(retention: str) -> str:
    """Return the page of a trace in APM, sought as far back as traces are kept."""
    return f"../app/apm/link-to/trace/{VALUE}?rangeFrom=now-{retention}&rangeTo=now"


def bulk(dashboard: str, pinned: Sequence[Mapping[str, Any]]) -> str:
    """Return the page of a dashboard with a bulk chosen in its control, which is the first of ``pinned``.

    A control's choice is part of the dashboard's state: the address holds the pinned panels whole, with another choice.
    A Kibana that does not know them shows the dashboard as it is stored.
    """
    state = ""
    if pinned:
        config = {**pinned[0]["config"], "selected_options": [VALUE]}
        first = {**pinned[0], "config": config}
        text = urllib.parse.quote(rison({"pinned_panels": [first, *pinned[1:]]}), safe="!'()*,:")
        state = f"?_a={text.replace(urllib.parse.quote(VALUE), VALUE)}"
    return f"../app/dashboards#/view/{dashboard}{state}"
