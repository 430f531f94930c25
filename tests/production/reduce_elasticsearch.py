"""Make ``elasticsearch-api.json`` anew: ``python -m tests.production.reduce_elasticsearch FILE``.

FILE is ``dist/schema.json`` of the npm package that ``SOURCE`` names: Elastic's specification of Elasticsearch's API,
in a form of its own. Of the operations that are used here the bodies are kept, written as JSON Schema, one type a line.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

SOURCE = "npm package @elastic/request-converter 9.5.0, dist/schema.json (Apache-2.0)"
TARGET = Path(__file__).with_name("elasticsearch-api.json")
OPERATIONS = (
    "cluster.put_component_template", "indices.put_index_template", "indices.create_data_stream",
    "indices.put_data_lifecycle", "indices.put_data_stream_options", "indices.rollover", "security.put_role",
    "security.create_api_key", "security.update_api_key", "security.invalidate_api_key", "security.change_password",
    "esql.query", "search",
)  # fmt: skip
ANY: dict[str, Any] = {}
BUILT_IN = {
    "string": {"type": "string"}, "boolean": {"type": "boolean"}, "number": {"type": "number"},
    "null": {"type": "null"}, "binary": ANY, "void": {"type": "null"},
}  # fmt: skip
# What nothing here sends, and what is the larger part of the whole: taken as it comes.
LEFT_OUT = ("_types.analysis", "_types.aggregations", "_types.query_dsl", "_global.search._types", "search.")
OPEN = frozenset({"AdditionalProperties", "AdditionalProperty"})

Json = dict[str, Any]


class Types:
    """Elastic's types as JSON Schema; ``kept`` has those that were asked for, and what they refer to."""

    def __init__(self, specification: Json) -> None:
        self._known = {(one["name"]["namespace"], one["name"]["name"]): one for one in specification["types"]}
        self._bodies = {one["name"]: self._known[tuple(one["request"][key] for key in ("namespace", "name"))]
                        for one in specification["endpoints"] if one.get("request")}  # fmt: skip
        self.kept: Json = {}

    def body(self, operation: str) -> Json | None:
        """Return the schema of an operation's body; None where it takes none."""
        found = self._bodies[operation]["body"]
        if found["kind"] == "properties":
            return self._object(found["properties"])
        return self._value(found["value"]) if found["kind"] == "value" else None

    def _value(self, value: Json) -> Json:
        kind = value["kind"]
        if kind == "array_of":
            return {"type": "array", "items": self._value(value["value"])}
        if kind == "union_of":
            return {"anyOf": [self._value(one) for one in value["items"]]}
        if kind == "dictionary_of":
            return {"type": "object", "additionalProperties": self._value(value["value"])}
        if kind == "literal_value":
            return {"const": value["value"]}
        return self._named(value["type"]["namespace"], value["type"]["name"]) if kind == "instance_of" else ANY

    def _named(self, namespace: str, name: str) -> Json:
        if namespace == "_builtins":
            return BUILT_IN[name]
        found = self._known.get((namespace, name))
        if found is None or namespace.startswith(LEFT_OUT):  # the parameter of a generic type, or left out
            return ANY
        key = f"{namespace}.{name}"
        if key not in self.kept:
            self.kept[key] = ANY  # types refer to themselves
            self.kept[key] = self._type(found)
        return {"$ref": f"#/$defs/{key}"}

    def _type(self, found: Json) -> Json:
        if found["kind"] == "enum":
            names = [name for one in found["members"] for name in (one["name"], *one.get("aliases", ()))]
            return {"enum": names}
        if found["kind"] == "type_alias":
            variants = found.get("variants", {})
            return (
                self._tagged(found, variants) if variants.get("kind") == "internal_tag" else self._value(found["type"])
            )
        properties = self._properties(found)
        whole = self._object(properties, bool(OPEN & set(found.get("attachedBehaviors", ()))))
        short = next((one for one in properties if one["name"] == found.get("shortcutProperty")), None)
        return whole if short is None else {"anyOf": [whole, self._value(short["type"])]}

    def _tagged(self, found: Json, variants: Json) -> Json:
        """Return alternatives that a property tells apart: one is looked at, and not all of them at each depth."""
        tag, rules, names = variants["tag"], [], []
        for item in found["type"]["items"]:
            known = self._known[item["type"]["namespace"], item["type"]["name"]]
            name = next(one["type"]["value"] for one in self._properties(known) if one["name"] == tag)
            names.append(name)
            meant = {
                "properties": {tag: {"const": name}},
                "required": [] if name == variants.get("defaultTag") else [tag],
            }
            rules.append({"if": meant, "then": self._value(item)})
        return {"properties": {tag: {"enum": names}}, "allOf": rules}

    def _properties(self, found: Json) -> list[Json]:
        """Return the properties of a type and of those that it extends."""
        properties: list[Json] = list(found["properties"])
        if "inherits" in found:
            parent = found["inherits"]["type"]
            properties += self._properties(self._known[parent["namespace"], parent["name"]])
        return properties

    def _object(self, properties: list[Json], opened: bool = False) -> Json:
        known = {
            name: self._value(one["type"]) for one in properties for name in (one["name"], *one.get("aliases", ()))
        }
        required = [one["name"] for one in properties if one["required"]]
        found: Json = {"type": "object", "properties": known, "additionalProperties": opened}
        return found | ({"required": required} if required else {})


def reduced(specification: Json) -> str:
    """Return the text of the reduced document."""
    types = Types(specification)
    paths = {one["name"]: one["urls"] for one in specification["endpoints"]}
    operations = {name: {"urls": [[url["methods"], url["path"]] for url in paths[name]], "body": types.body(name)}
                  for name in OPERATIONS}  # fmt: skip
    parts = [
        ",\n".join(f"{json.dumps(name)}: {json.dumps(found[name])}" for name in sorted(found))
        for found in (operations, types.kept)
    ]
    return '{{"source": {},\n"operations": {{\n{}\n}},\n"$defs": {{\n{}\n}}}}\n'.format(json.dumps(SOURCE), *parts)


if __name__ == "__main__":
    TARGET.write_text(reduced(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))), encoding="utf-8")
