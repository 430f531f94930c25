"""Builds the real servers that the tests of production need: ``python tests/engines/build.py [NAME ...]``.

OpenTelemetry Collector and Prometheus are compiled from Go modules, four to six minutes the first time;
Elasticsearch with ES|QL is put together from Maven Central's jars (fetched, never redistributed: Elastic License 2.0),
half a minute; RabbitMQ with its Erlang is unpacked from Debian's packages, Kafka and ElasticMQ, which speaks SQS's
protocol, are Maven Central's jars, ten seconds each; Kustomize and the schemas of Kubernetes and of the Prometheus
operator come out of their Go modules, a minute. ``apiserver``, which is Kubernetes' API server and etcd, is built only
when it is named: nine minutes of CPU.
What is built stays in ``~/.cache/bulkscope/engines`` until its sources here change. Standard library only, so that any
Python can run it.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "bulkscope" / "engines"

GO_VERSION = "1.27.3"  # what go.mod asks for; any Go from 1.21 on fetches it by itself
PROGRAMS = (
    "./otelcol",
    "github.com/prometheus/prometheus/cmd/prometheus",
    "github.com/prometheus/prometheus/cmd/promtool",
)

# By folder in the cache's `kubernetes`: module and version, and which of its files.
SCHEMAS = {
    "openapi": ("k8s.io/kubernetes@v1.37.2", "api/openapi-spec/v3/api*_openapi.json"),
    "crds": ("github.com/prometheus-operator/prometheus-operator@v0.92.0", "example/prometheus-operator-crd/*.yaml"),
}


class MissingError(Exception):
    """Something that has to be installed first; the text says what."""


def _sum(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(str(path.relative_to(folder)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def _run(*command: str, cwd: Path, env: dict[str, str] | None = None) -> None:
    subprocess.run(command, cwd=cwd, env=env, check=True)


def _proxies() -> Iterator[str]:
    for name in re.split(r"[,|]", os.environ.get("GOPROXY") or "https://proxy.golang.org"):
        if name.startswith("http"):
            yield name.rstrip("/")


def _go() -> str:
    """Return a Go that can build; the toolchain comes from the module proxy where none is installed."""
    found = shutil.which("go")
    if found:
        version = subprocess.run([found, "version"], capture_output=True, text=True).stdout
        numbers = re.search(r"go1\.(\d+)", version)
        if numbers and int(numbers[1]) >= 21:
            return found
    machine = {"x86_64": "amd64", "aarch64": "arm64", "arm64": "arm64", "AMD64": "amd64"}.get(platform.machine())
    module = f"golang.org/toolchain@v0.0.1-go{GO_VERSION}.{sys.platform}-{machine}"
    go = CACHE / "toolchain" / module / "bin" / "go"
    if go.exists():
        return str(go)
    for proxy in _proxies():
        url = f"{proxy}/golang.org/toolchain/@v/{module.partition('@')[2]}.zip"
        print(f"engines: getting Go {GO_VERSION} from {proxy}", file=sys.stderr)
        try:
            with urllib.request.urlopen(url, timeout=300) as answer:
                content = answer.read()
        except (urllib.error.URLError, OSError):
            continue
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            archive.extractall(CACHE / "toolchain")
        for program in [go, *(go.parent.parent / "pkg" / "tool").rglob("*")]:
            program.chmod(0o755)
        return str(go)
    raise MissingError("Go 1.21 or newer is missing; install it: https://go.dev/doc/install")


def go_programs() -> None:
    """Build ``otelcol``, ``prometheus`` and ``promtool`` into the cache's ``bin``."""
    env = os.environ | {"GOTOOLCHAIN": f"go{GO_VERSION}", "GOFLAGS": "-buildvcs=false", "CGO_ENABLED": "0"}
    target = CACHE / "bin"
    target.mkdir(parents=True, exist_ok=True)
    # Without service discovery in clouds (the tag) Prometheus builds in half the time.
    options = ("-mod=readonly", "-trimpath", "-tags", "remove_all_sd", "-ldflags", "-s -w", "-o", f"{target}/")
    _run(_go(), "build", *options, *PROGRAMS, cwd=HERE / "go", env=env)


def _kubernetes_programs(*programs: str) -> None:
    env = os.environ | {"GOTOOLCHAIN": f"go{GO_VERSION}", "GOFLAGS": "-buildvcs=false", "CGO_ENABLED": "0"}
    options = ("-mod=readonly", "-trimpath", "-ldflags", "-s -w", "-o", f"{CACHE / 'bin'}/")
    (CACHE / "bin").mkdir(parents=True, exist_ok=True)
    _run(_go(), "build", *options, *programs, cwd=HERE / "kubernetes", env=env)


def kubernetes() -> None:
    """Build ``kustomize`` into the cache's ``bin``, and copy the schemas into its ``kubernetes``."""
    _kubernetes_programs("sigs.k8s.io/kustomize/kustomize/v5")
    env = os.environ | {"GOTOOLCHAIN": f"go{GO_VERSION}", "GOFLAGS": "-mod=mod"}
    for name, (module, pattern) in SCHEMAS.items():
        words = [_go(), "mod", "download", "-json", module]
        # In a folder without a go.mod: this module's requirements have nothing to do with it.
        done = subprocess.run(words, cwd=CACHE, env=env, check=True, stdout=subprocess.PIPE, text=True)
        target = CACHE / "kubernetes" / name
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        for path in Path(json.loads(done.stdout)["Dir"]).glob(pattern):
            shutil.copyfile(path, target / path.name)


def apiserver() -> None:
    """Build ``kube-apiserver`` and ``etcd`` into the cache's ``bin``."""
    _kubernetes_programs("k8s.io/kubernetes/cmd/kube-apiserver")
    _kubernetes_programs("go.etcd.io/etcd/server/v3")
    (CACHE / "bin" / "server").replace(CACHE / "bin" / "etcd")


def _jars(name: str) -> Path:
    """Fetch the jars that the ``pom.xml`` of ``name`` asks for into the cache's ``name``; return that folder."""
    for program in ("java", "mvn"):
        if shutil.which(program) is None:
            raise MissingError(f"{program} is missing; install a Java development kit (17 or newer) and Maven")
    target = CACHE / name
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    shutil.copy(HERE / name / "pom.xml", target / "pom.xml")
    copied = ("dependency:copy-dependencies", f"-DoutputDirectory={target / 'lib'}", "-DincludeScope=runtime")
    _run("mvn", "-q", "-B", *copied, cwd=target)
    return target


def elasticmq() -> None:
    """Fetch ElasticMQ, a server of SQS's protocol (Apache-2.0), into the cache's ``elasticmq``."""
    _jars("elasticmq")


def elasticsearch() -> None:
    """Fetch Elasticsearch's jars and compile the program that starts them into the cache's ``elasticsearch``."""
    if shutil.which("javac") is None:
        raise MissingError("javac is missing; install a Java development kit (17 or newer)")
    source, target = HERE / "elasticsearch", _jars("elasticsearch")
    files = [str(path) for path in sorted(source.glob("*.java"))]
    options = ("--release", "17", "-proc:none", "-nowarn", "-cp", str(target / "lib" / "*"))
    _run("javac", *options, "-d", str(target / "classes"), *files, cwd=target)


def rabbitmq() -> None:
    """Unpack RabbitMQ and Erlang into the cache's ``rabbitmq``; nothing is installed."""
    for program in ("apt-get", "dpkg-deb"):
        if shutil.which(program) is None:
            raise MissingError(f"{program} is missing: RabbitMQ and Erlang come from Debian's packages")
    target, apt = CACHE / "rabbitmq", CACHE / "rabbitmq.apt"
    for folder in (target, apt):
        shutil.rmtree(folder, ignore_errors=True)
    for folder in (target, apt / "lists" / "partial", apt / "archives"):
        folder.mkdir(parents=True)
    # With lists of its own, by the machine's own sources and keys: neither root nor its lists are needed.
    options = {
        "Dir::State::lists": apt / "lists", "Dir::Cache": apt, "Debug::NoLocking": "1", "APT::Sandbox::User": "root",
    }  # fmt: skip
    words = ["apt-get", "-qq", *(word for name, value in options.items() for word in ("-o", f"{name}={value}"))]
    _run(*words, "update", cwd=apt)
    _run(*words, "download", *(HERE / "rabbitmq" / "packages").read_text().split(), cwd=apt / "archives")
    for package in sorted((apt / "archives").glob("*.deb")):
        _run("dpkg-deb", "-x", str(package), str(target), cwd=apt)
    erlang = target / "usr" / "lib" / "erlang"
    for script in (erlang / "bin" / "erl", *erlang.glob("erts-*/bin/erl")):
        script.write_text(script.read_text().replace("/usr/lib/erlang", str(erlang)))
    shutil.rmtree(apt)
    # Unpacking brings none of the libraries that the packages depend on.
    tried = subprocess.run(
        [erlang / "bin" / "erl", "-noshell", "-eval", "{ok, _} = application:ensure_all_started(crypto), halt()."],
        stdin=subprocess.DEVNULL, capture_output=True, text=True,
    )  # fmt: skip
    if tried.returncode:
        raise MissingError(
            "Erlang does not start; a shared library that Debian's erlang-base or erlang-crypto needs is missing: "
            f"{(tried.stderr or tried.stdout).strip()[-500:]}"
        )


def kafka() -> None:
    """Fetch Kafka's jars into the cache's ``kafka``."""
    _jars("kafka")


ENGINES = {
    "go": go_programs, "elasticsearch": elasticsearch, "kubernetes": kubernetes, "rabbitmq": rabbitmq, "kafka": kafka,
    "elasticmq": elasticmq,
}  # fmt: skip
# Built when they are named: the minutes of CPU that they take are not worth it on every machine.
BY_NAME = {"apiserver": apiserver}


def main(names: list[str]) -> int:
    missing = []
    for name in names or list(ENGINES):
        if name not in ENGINES | BY_NAME:
            print(f"engines: there is no {name!r}; there are {', '.join(ENGINES | BY_NAME)}", file=sys.stderr)
            return 2
        source = HERE / ("kubernetes" if name in BY_NAME else name)
        stamp, wanted = CACHE / f"{name}.sum", _sum(source)
        if stamp.exists() and stamp.read_text() == wanted:
            continue
        print(f"engines: building {name} into {CACHE}", file=sys.stderr)
        try:
            (ENGINES | BY_NAME)[name]()
        except MissingError as error:
            missing.append(f"{name}: {error}")
        except subprocess.CalledProcessError as error:
            missing.append(f"{name}: {error.cmd[0]} failed with {error.returncode}; what went wrong stands above")
        else:
            stamp.write_text(wanted)
    for line in missing:
        print(f"engines: {line}", file=sys.stderr)
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
