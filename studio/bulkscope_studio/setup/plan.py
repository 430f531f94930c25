"""What is wanted, from the files in ``elasticsearch/`` and ``kibana/`` and a few settings; no server is asked."""

from __future__ import annotations

import copy
import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bulkscope import conventions as c
from bulkscope_studio.elastic.streams import VERDICTS
from bulkscope_studio.setup import links

Json = dict[str, Any]

SIGNALS = ("traces", "logs", "metrics")
# The streams that the Collector writes; no other is looked at.
STREAMS = {
    "traces": "traces-generic.otel-default",
    "logs": "logs-generic.otel-default",
    "metrics": "metrics-*.otel-default",
}
FIELDS: dict[str, Json] = {
    "str": {"type": "keyword", "ignore_above": 1024},
    "int": {"type": "long"},
    "float": {"type": "double"},
    "bool": {"type": "boolean"},
}
# Attributes of spans and log records that `conventions.ATTRIBUTES` does not list, being standard ones.
# Those of http, url, error and the like are left to Elasticsearch's own ECS mapping.
_STANDARD = dict.fromkeys(
    (
        c.MESSAGING_SYSTEM,
        c.MESSAGING_OPERATION_NAME,
        c.MESSAGING_OPERATION_TYPE,
        c.MESSAGING_DESTINATION,
        c.MESSAGING_MESSAGE_ID,
        c.GEN_AI_OPERATION,
        c.GEN_AI_PROVIDER,
        c.GEN_AI_RESPONSE_MODEL,
        c.GEN_AI_FINISH_REASONS,
        c.GEN_AI_TOKEN_TYPE,
    ),
    "str",
) | {c.GEN_AI_MAX_TOKENS: "int"}
ATTRIBUTE_TYPES: dict[str, str] = {a.name: a.type for a in c.ATTRIBUTES} | _STANDARD
RESOURCE_TYPES: dict[str, str] = {attribute.name: attribute.type for attribute in c.RESOURCE}

OURS = "bulkscope"  # prefix of everything that we name
BULK_DASHBOARD = f"{OURS}-bulk"
_DURATION = re.compile(r"(\d+)(nanos|micros|ms|s|m|h|d)")
_SECONDS = {"nanos": 1e-9, "micros": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DASHBOARD_ID = re.compile(rf"{OURS}-[a-z0-9][a-z0-9-]*")
# Of Kibana's Dashboards API (9.5); it answers 400 to others, this says so before anything is changed.
DASHBOARD_KEYS = frozenset(
    {"title", "description", "panels", "pinned_panels", "options", "query", "filters", "time_range"}
    | {"refresh_interval", "tags", "project_routing", "access_control"}
)
MOST_PANELS = 100


class BadPlan(ValueError):
    """A file or a setting is wrong; the message says which, and what to do."""


@dataclass(frozen=True, slots=True)
class Dashboard:
    """``body`` is what ``PUT /api/dashboards/{id}`` takes, ``mark`` the fingerprint that its description ends with."""

    id: str
    body: Json
    mark: str


def seconds(duration: str) -> float:
    """Return the seconds of an Elasticsearch duration such as ``14d``; raises ``BadPlan``."""
    match = _DURATION.fullmatch(duration)
    if match is None or int(match[1]) == 0:
        raise BadPlan(f"{duration!r} is no duration; write a whole number above 0 and d, h, m or s, for example 14d")
    return int(match[1]) * _SECONDS[match[2]]


def folder(name: str, root: Path | None = None) -> Path:
    """Return ``elasticsearch`` or ``kibana``: under ``root``, in the installed package, or in the repository."""
    here = Path(__file__).resolve().parent
    roots = [root] if root is not None else [here / "files", here.parents[2]]
    for candidate in roots:
        if (candidate / name).is_dir():
            return candidate / name
    raise BadPlan(f"there is no folder {name} in {roots[-1]}; name with --files the folder that holds it")


def read(path: Path) -> Json:
    """Return the JSON object in ``path``; raises ``BadPlan``."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadPlan(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(found, dict):
        raise BadPlan(f"{path} holds no JSON object")
    return found


def dynamic_templates() -> list[Json]:
    """Return the dynamic templates that give each attribute of ours its type, whatever value comes first.

    Not ``properties``: when templates are put together, a ``passthrough`` object replaces the one before it
    whole, and with ``attributes`` or ``resource.attributes`` the fields that Elasticsearch's own templates have
    put there would be gone, and the aliases on them invalid.
    """
    paths: dict[str, list[str]] = {}
    for prefix, types in (("attributes", ATTRIBUTE_TYPES), ("resource.attributes", RESOURCE_TYPES)):
        for name, kind in types.items():
            paths.setdefault(kind, []).append(f"{prefix}.{name}")
    return [
        {f"{OURS}_{field['type']}": {"path_match": sorted(paths[kind]), "mapping": field}}
        for kind, field in FIELDS.items()
        if kind in paths
    ]


def component_templates(elasticsearch: Path, retention: Mapping[str, str] | None = None) -> dict[str, Json]:
    """Return the ``*@custom`` component templates by name; ``retention`` maps a signal to a duration."""
    wanted: dict[str, Json] = {}
    for signal in SIGNALS:
        body = copy.deepcopy(read(elasticsearch / "component-templates" / f"{signal}-otel@custom.json"))
        chosen = (retention or {}).get(signal)
        try:
            template = body["template"]
            keepers = [template["lifecycle"], template["data_stream_options"]["failure_store"]["lifecycle"]]
            for keeper in keepers:
                keeper["data_retention"] = chosen or keeper["data_retention"]
                seconds(keeper["data_retention"])
        except (KeyError, TypeError) as error:
            raise BadPlan(f"{signal}-otel@custom.json lacks {error}; take the file as it is shipped") from error
        if signal != "metrics":  # metrics carry short strings alone, and a field there is part of the series' key
            template["mappings"] = {"dynamic_templates": dynamic_templates()}
        wanted[f"{signal}-otel@custom"] = body
    return wanted


def index_templates(elasticsearch: Path) -> dict[str, Json]:
    """Return the index templates of our own by name; each is of the data stream of that name."""
    return {path.stem: read(path) for path in sorted((elasticsearch / "index-templates").glob(f"{OURS}-*.json"))}


def roles(elasticsearch: Path) -> dict[str, Json]:
    """Return the roles by name: ``bulkscope_collector`` writes, ``bulkscope_reader`` reads, and
    ``bulkscope_publisher`` reads and writes verdicts."""
    found = {path.stem: read(path) for path in sorted((elasticsearch / "roles").glob("*.json"))}
    wrong = [name for name in found if not name.startswith(f"{OURS}_")]
    if wrong or not found:
        raise BadPlan(f"{elasticsearch / 'roles'} must hold roles named {OURS}_*: {', '.join(wrong) or 'it is empty'}")
    return found


def data_views(retention: str = "14d", dashboards: Iterable[Dashboard] = ()) -> dict[str, Json]:
    """Return Kibana's data views by id.

    ``trace_id`` is a link to the trace, sought as far back as it is kept, a bulk's id one to the bulk's dashboard.
    """
    pinned: list[Json] = next((one.body.get("pinned_panels", []) for one in dashboards if one.id == BULK_DASHBOARD), [])
    trace, bulk = _linked(links.trace(retention)), _linked(links.bulk(BULK_DASHBOARD, pinned))
    of_bulk = {"bulk.id": bulk, "attributes.bulk.id": bulk}
    patterns = {signal: f"{signal}-*.otel-*" for signal in SIGNALS} | {"verdicts": VERDICTS}
    formats = dict.fromkeys(("traces", "logs"), {"trace_id": trace, "trace.id": trace} | of_bulk) | {
        "verdicts": of_bulk
    }
    return {
        f"{OURS}-{what}": {
            "id": f"{OURS}-{what}",
            "title": pattern,
            "name": f"Bulkscope {what}",
            "timeFieldName": "@timestamp",
            "allowNoIndex": True,
            "fieldFormats": formats.get(what, {}),
        }
        for what, pattern in patterns.items()
    }


def _linked(address: str) -> Json:
    return {
        "id": "url",
        "params": {
            "type": "a", "urlTemplate": address, "labelTemplate": links.VALUE, "openLinkInCurrentTab": False,
        },
    }  # fmt: skip


def dashboards(kibana: Path) -> list[Dashboard]:
    """Return what ``kibana/dashboards/ID.json`` hold: each is the body of ``PUT /api/dashboards/ID``.

    Kibana fills in defaults, so that what it gives back never equals what it was given; a fingerprint at the
    description's end tells whether it has this version.
    """
    found = []
    for path in sorted((kibana / "dashboards").glob("*.json")):
        body = read(path)
        if not _DASHBOARD_ID.fullmatch(path.stem):
            raise BadPlan(f"{path}: the file's name is the dashboard's id and must be like {OURS}-overview.json")
        unknown = sorted(set(body) - DASHBOARD_KEYS)
        if unknown:
            raise BadPlan(f"{path}: Kibana's Dashboards API does not know {', '.join(unknown)}")
        if not isinstance(body.get("title"), str) or not body["title"].strip():
            raise BadPlan(f"{path}: a dashboard needs a title")
        if _count(body.get("panels", [])) + _count(body.get("pinned_panels", [])) > MOST_PANELS:
            raise BadPlan(f"{path}: Kibana takes at most {MOST_PANELS} panels, pinned ones and sections counted")
        mark = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()[:12]
        description = f"{body.get('description', '')} [{OURS} {mark}]".strip()
        found.append(Dashboard(path.stem, body | {"description": description}, mark))
    return found


def _count(panels: list[Json]) -> int:
    return sum(1 + _count(panel.get("panels", [])) for panel in panels)
