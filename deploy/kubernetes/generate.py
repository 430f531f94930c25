"""Writes what here is made of other files: ``python deploy/kubernetes/generate.py``, after a change of one of them.

``kubectl apply -k`` takes no file from outside a kustomization's own folder, and the Prometheus operator wants rules in
an object of its own. So the Collector's configurations and Prometheus' rules and settings stand here a second time;
``tests/kubernetes/test_manifests.py`` fails where the two differ.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
NOTE = "# Made by deploy/kubernetes/generate.py of {}; change that.\n"
COPIES = {
    "bulkscope/collector-config.yaml": "collector-config.yaml",
    "agent/collector-agent.yaml": "collector/agent.yaml",
}


class _Dumper(yaml.SafeDumper):
    pass


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)


def _dump(value: Any) -> str:
    return str(yaml.dump(value, Dumper=_Dumper, sort_keys=False, width=10_000, allow_unicode=True))


def rules() -> str:
    """Return the rules of prometheus/rules as one object of the Prometheus operator."""
    groups: list[Any] = []
    for path in sorted((ROOT / "prometheus" / "rules").glob("*.yml")):
        groups += yaml.safe_load(path.read_text())["groups"]
    return NOTE.format("prometheus/rules") + _dump(
        {
            "apiVersion": "monitoring.coreos.com/v1",
            "kind": "PrometheusRule",
            "metadata": {"name": "bulkscope"},
            "spec": {"groups": groups},
        }
    )


def _camel(settings: dict[str, Any]) -> dict[str, Any]:
    """Return settings of prometheus.yml under the names that the operator has for them."""
    first = [(name.split("_"), value) for name, value in settings.items()]
    return {words[0] + "".join(word.title() for word in words[1:]): value for words, value in first}


def otlp() -> str:
    """Return what a Prometheus of the operator needs to take OTLP as prometheus/prometheus.yml does: a merge patch."""
    settings = yaml.safe_load((ROOT / "prometheus" / "prometheus.yml").read_text())
    return NOTE.format("prometheus/prometheus.yml") + _dump(
        {
            "spec": {
                "enableOTLPReceiver": True,
                "otlp": _camel(settings["otlp"]),
                "tsdb": _camel(settings["storage"]["tsdb"]),
            }
        }
    )


def made() -> dict[Path, str]:
    """Return the content of each file that is made here."""
    found = {HERE / name: NOTE.format(source) + (ROOT / source).read_text() for name, source in COPIES.items()}
    return found | {HERE / "prometheus" / "rules.yaml": rules(), HERE / "prometheus" / "otlp-patch.yaml": otlp()}


if __name__ == "__main__":
    for path, text in made().items():
        path.write_text(text)
