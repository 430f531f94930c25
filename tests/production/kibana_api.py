"""What Kibana's own description of its API takes and refuses: ``refusal`` is why it would answer 400.

The document is Elastic's (``kibana-dashboards.LICENSE.txt``) and of May 2026, shortly before 9.5. Kibana refuses
unknown keys, and so does the document (``additionalProperties: false``). Its ``required`` lists what Kibana gives back,
with defaults filled in, and each property that is a reference: a name counts as required where it has no default and is
not marked as optional (``x-oas-optional``, which stands at the schema that is referred to).
"""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

from jsonschema.exceptions import ValidationError
from openapi_schema_validator import OAS30Validator

# Its default, {"type": "full", "rounding": true}, is that of a union, which the generator of the document loses.
FILLED_IN = frozenset({"domain"})
# A condition on one metric or chart, marked nowhere; Elastic's own examples leave it out.
CONDITION = "filterSimple"
DOCUMENT = Path(__file__).with_name("kibana-dashboards.json")

# Panels that Kibana takes from 9.5 on and the document does not know yet. Their keys are those that the Terraform
# provider for the Elastic Stack sends to 9.5 (of 2026-08-07, internal/kibana/dashboard/panel/links and apmservicemap)
# and that Kibana's later schemas have still; `sync_with_dashboard_filters` is not among those.
_FLAG, _TEXT = {"type": "boolean"}, {"type": "string"}
_ABOUT = {"title": _TEXT, "description": _TEXT, "hide_title": _FLAG, "hide_border": _FLAG}


def _closed(properties: dict[str, Any], *required: str) -> dict[str, Any]:
    found = {"type": "object", "properties": properties, "additionalProperties": False}
    return found | ({"required": list(required)} if required else {})


def _link(kind: str, *options: str) -> dict[str, Any]:
    told = _closed(dict.fromkeys(("open_in_new_tab", *options), _FLAG))
    properties = {"type": {"enum": [kind]}, "label": _TEXT, "destination": _TEXT, "options": told}
    return _closed(properties, "type", "destination")


LATER: dict[str, dict[str, Any]] = {
    "links": _closed(
        _ABOUT
        | {
            "layout": {"enum": ["horizontal", "vertical"]},
            "links": {
                "type": "array",
                "maxItems": 100,
                "items": {
                    "oneOf": [
                        _link("dashboardLink", "use_filters", "use_time_range"),
                        _link("externalLink", "encode_url"),
                    ]
                },
            },
        },
        "links",
    ),
    "apm_service_map": _closed(
        _ABOUT
        | dict.fromkeys(("environment", "kuery", "service_name", "service_group_id"), _TEXT)
        | {
            "map_orientation": {"enum": ["horizontal", "vertical"]},
            "time_range": {"$ref": "#/components/schemas/kbn-es-query-server-timeRangeSchema"},
        }
    ),
}


@functools.cache
def _validator() -> OAS30Validator:
    document = json.loads(DOCUMENT.read_text(encoding="utf-8"))

    schemas = document["components"]["schemas"]

    def optional(schema: dict[str, Any]) -> bool:
        if "default" in schema or schema.get("x-oas-optional"):
            return True
        if name := schema.get("$ref", "").rpartition("/")[2]:
            return name == CONDITION or optional(schemas[name])
        inner = schema.get("properties", {})
        return bool(inner) and all(optional(inner[key]) for key in schema.get("required", ()) if key in inner)

    def relaxed(found: Any, names: bool = False) -> Any:
        if isinstance(found, list):
            return [relaxed(one) for one in found]
        if not isinstance(found, dict):
            return found
        result = {key: relaxed(value, key == "properties" and not names) for key, value in found.items()}
        if not names and isinstance(found.get("required"), list):
            known = found.get("properties", {})
            result["required"] = [
                key for key in found["required"] if key in known and key not in FILLED_IN and not optional(known[key])
            ]
        return {key: value for key, value in result.items() if key != "required" or value}

    body = relaxed(document["body"] | {"components": document["components"]})
    grid = {"$ref": "#/components/schemas/kbn-dashboard-panel-grid"}
    for kind, config in LATER.items():
        panel = {"id": _TEXT, "type": {"enum": [kind]}, "grid": grid, "config": config}
        body["properties"]["panels"]["items"]["anyOf"].append(_closed(panel, "type", "grid", "config"))
    return OAS30Validator(body)


def refusal(body: Any) -> str | None:
    """Return Kibana's message of a body of ``PUT /api/dashboards/{id}`` that it refuses; None where it takes it."""
    found = sorted(_validator().iter_errors(body), key=lambda error: list(map(str, error.absolute_path)))
    return _message(_cause(found[0])) if found else None


def _cause(error: ValidationError) -> ValidationError:
    """Return the innermost error of the alternative that was meant: the one whose ``type`` fits, with fewest errors."""
    if not error.context:
        return error
    alternatives: dict[Any, list[ValidationError]] = {}
    for inner in error.context:
        alternatives.setdefault(inner.schema_path[0], []).append(_cause(inner))

    def unlikely(causes: list[ValidationError]) -> tuple[bool, int]:
        at = len(error.absolute_path)
        other = any(
            (cause.validator == "enum" and cause.absolute_path[-1] == "type")
            or ("type" in _unknown(cause) and len(cause.absolute_path) == at)
            for cause in causes
        )
        return other, len(causes)

    return min(alternatives.values(), key=unlikely)[0]


def _unknown(error: ValidationError) -> list[str]:
    if error.validator != "additionalProperties":
        return []
    return sorted(set(error.instance) - set(error.schema.get("properties", {})))


def _message(error: ValidationError) -> str:
    unknown = _unknown(error)
    path = ".".join(("request body", *map(str, error.absolute_path), *unknown[:1]))
    return f"[{path}]: {'definition for this key is missing' if unknown else error.message[:500]}"
