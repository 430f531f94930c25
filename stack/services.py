"""What of docker-compose.yml the commands must know; ``tests/production/test_compose.py`` keeps the two equal."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
COMPOSE_FILE = ROOT / "docker-compose.yml"
# What is otherwise on this machine. Compose itself takes it as well; no update of the project touches it.
OVERRIDE_FILE = ROOT / "docker-compose.override.yml"
MIB = 2**20


@dataclass(frozen=True, slots=True)
class Port:
    """A port of this machine: the service that it leads to, the variable that moves it, where it is otherwise."""

    service: str
    variable: str
    default: int
    profile: str = ""


PORTS = (
    Port("elasticsearch", "ELASTICSEARCH_PORT", 9200),
    Port("kibana", "KIBANA_PORT", 5601),
    Port("prometheus", "PROMETHEUS_PORT", 9090),
    Port("collector", "OTLP_GRPC_PORT", 4317),
    Port("collector", "OTLP_HTTP_PORT", 4318),
    Port("collector", "COLLECTOR_HEALTH_PORT", 13133),
    Port("node-exporter", "NODE_EXPORTER_PORT", 9100),
    Port("api", "API_PORT", 8000, "demo"),
)

# Sums of the memory limits, in MiB: without a profile, and with the demo.
MEMORY_MIB: Mapping[str, int] = {"": 5824, "demo": 7488}

# The one service that may run more than once, the others publish a port: what each one more of it may use, in MiB.
SCALED, SCALED_MIB = "worker", 1024

# Files that containers read when they start, by the variable of the compose file that takes a sum of them. What
# Prometheus reads by itself when it changes (prometheus/targets) is not among them.
FILES: Mapping[str, tuple[str, ...]] = {
    "KIBANA_FILES": ("kibana/kibana.yml",),
    "COLLECTOR_FILES": ("collector-config.yaml", "collector/kibana-apm.yaml"),
    "PROMETHEUS_FILES": ("prometheus/prometheus.yml", "prometheus/rules"),
}
# Folders and files that a container reads as a user who owns nothing here and has no capability.
FOREIGN = ("prometheus", "kibana/kibana.yml")


def file_sums(root: Path = ROOT) -> dict[str, str]:
    """Return for each variable of ``FILES`` a sum of what its files hold."""
    found = {}
    for variable, names in FILES.items():
        digest = hashlib.sha256()
        for name in names:
            place = root / name
            for path in sorted(place.iterdir()) if place.is_dir() else [place]:
                digest.update(f"{path.relative_to(root)}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
        found[variable] = digest.hexdigest()[:12]
    return found


class BadPort(Exception):
    """A variable does not hold a port; the message says which."""


def port(variable: str, environ: Mapping[str, str]) -> int:
    """Return the port that a variable of ``PORTS`` gives."""
    default = next(known.default for known in PORTS if known.variable == variable)
    text = environ.get(variable) or str(default)
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 65535:
        raise BadPort(f"{variable} is {text!r}, which is not a port; set it to a number from 1 to 65535, or remove it")
    return int(text)


def elasticsearch_version() -> str:
    """Return the version that the compose file pins."""
    found = re.search(r"elasticsearch/elasticsearch:(\d+\.\d+\.\d+)\s*$", COMPOSE_FILE.read_text(), re.MULTILINE)
    if found is None:
        raise ValueError(f"{COMPOSE_FILE} names no version of Elasticsearch")
    return found[1]
