"""deploy/kubernetes as Kustomize renders it, held against the schemas of Kubernetes and of the Prometheus operator."""

from __future__ import annotations

import copy
import functools
import json
import re
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from tests.engines.binaries import binary, cache
from tests.parts import demand

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy" / "kubernetes"
PARTS = (".", "prometheus", "service")
Object = dict[str, Any]


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """The quick one where it is there, for the operator's files of 0.8 MB."""


# PyYAML alone takes a bare "=" for something else than the text that it is in one of them.
_Loader.add_constructor("tag:yaml.org,2002:value", lambda loader, node: loader.construct_scalar(node))


@functools.cache
def _rendered(part: str) -> str:
    words = [str(binary("kustomize")), "build", str(DEPLOY / part)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def objects(part: str) -> list[Object]:
    """Return what ``kubectl apply -k deploy/kubernetes/PART`` would send."""
    return [one for one in yaml.safe_load_all(_rendered(part)) if one]


def one(part: str, kind: str, name: str) -> Object:
    """Return the object of this kind and name."""
    (found,) = (each for each in objects(part) if each["kind"] == kind and each["metadata"]["name"] == name)
    return found


def templates(part: str) -> Iterator[tuple[str, Object]]:
    """Yield the name and the pod template of each object that has one."""
    for each in objects(part):
        if "template" in each.get("spec", {}):
            yield f"{each['kind']}/{each['metadata']['name']}", each["spec"]["template"]


def expanded(env: list[Object], values: Mapping[str, str]) -> dict[str, str]:
    """Return a container's environment as the kubelet makes it: ``$(NAME)`` of what stands before.

    ``values`` has what is read from elsewhere, by field path or by the key in a ConfigMap.
    """
    found: dict[str, str] = {}
    for each in env:
        if "value" in each:
            found[each["name"]] = re.sub(r"\$\((\w+)\)", lambda m: found.get(m[1], m[0]), each["value"])
            continue
        (source,) = each["valueFrom"].values()
        found[each["name"]] = values[source.get("fieldPath") or source["key"]]
    return found


def _strict(schema: Any) -> Any:
    """Return a schema by which a name that it does not know is an error, as ``--validate=strict`` has it."""
    if isinstance(schema, list):
        return [_strict(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: _strict(value) for key, value in schema.items() if key not in ("default", "nullable", "format")}
    if schema.get("x-kubernetes-int-or-string"):
        found |= {"type": ["integer", "string"]}
    properties = schema.get("properties")
    if isinstance(properties, dict) and schema.get("type") == "object" and "additionalProperties" not in schema:
        found["additionalProperties"] = bool(schema.get("x-kubernetes-preserve-unknown-fields"))
    return found


@functools.cache
def _kubernetes(group: str, version: str) -> Object:
    place = f"apis__{group}__{version}" if group else f"api__{version}"
    path = cache() / "kubernetes" / "openapi" / f"{place}_openapi.json"
    found: Object = _strict(json.loads(path.read_text()))
    return found


@functools.cache
def definition(kind: str) -> Object:
    """Return the Prometheus operator's definition of a kind of its own."""
    for path in sorted((cache() / "kubernetes" / "crds").glob(f"*_{kind.lower()}*.yaml")):
        crd: Object = yaml.load(path.read_text(), _Loader)
        if crd["spec"]["names"]["kind"] == kind:
            return crd
    raise LookupError(kind)


@functools.cache
def _operator(kind: str, version: str) -> Object:
    versions = definition(kind)["spec"]["versions"]
    (found,) = (_strict(each["schema"]["openAPIV3Schema"]) for each in versions if each["name"] == version)
    # The server's, which a definition leaves open.
    found["properties"]["metadata"] = {"type": "object"}
    return dict(found)


def schema(value: Object) -> Object:
    """Return the JSON schema of an object's kind; skips the test where the schemas were not fetched."""
    demand("engines")
    if not (cache() / "kubernetes" / "crds").exists():
        pytest.skip("no schemas of Kubernetes; ./run engines fetches them (needs Go)")
    group, _, version = value["apiVersion"].rpartition("/")
    if group == "monitoring.coreos.com":
        return _operator(value["kind"], version)
    document = _kubernetes(group, version)
    wanted = {"group": group, "kind": value["kind"], "version": version}
    (name,) = (
        name
        for name, each in document["components"]["schemas"].items()
        if wanted in each.get("x-kubernetes-group-version-kind", [])
    )
    return {"$ref": f"#/components/schemas/{name}", "components": document["components"]}


def wrong(value: Object) -> list[str]:
    """Return what the schema of its kind has against an object."""
    found = jsonschema.Draft202012Validator(schema(value)).iter_errors(copy.deepcopy(value))
    return [f"{'/'.join(map(str, each.absolute_path))}: {each.message}"[:300] for each in found]
