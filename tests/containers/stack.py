"""The stack as its user has it: started by the commands of README.md, in containers of the tests' own engine."""

from __future__ import annotations

import base64
import json
import re
import resource
import shlex
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stack import docker, envfile, passwords
from stack.services import PORTS
from tests.containers import engine
from tests.processes import BIN, free_port

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
OVERRIDE = HERE / "override.yml"
HOST = "containers-host"
# MiB. Elasticsearch takes nothing any longer with less than 1 GiB free, and wants twice that to begin with.
DISKS = {"elasticsearch": 2600, "prometheus": 256, "collector": 128}
_DISKS = engine.WORK / "run" / "disks"


def readme_commands() -> list[list[str]]:
    """Return the commands of README's section "In production", one list of words each: up, a service, status."""
    section = (ROOT / "README.md").read_text().partition("\n## In production\n")[2]
    block = re.search(r"```sh\n(.*?)```", section, re.DOTALL)
    assert block is not None
    return [shlex.split(line, comments=True) for line in block[1].splitlines()]


@dataclass
class Said:
    """What a command ended with and printed."""

    code: int
    text: str


@dataclass
class Stack:
    """The running stack: its settings, and what one asks of it."""

    folder: Path
    said: dict[str, Said] = field(default_factory=dict)

    @property
    def env_file(self) -> Path:
        return self.folder / "stack.env"

    @property
    def settings(self) -> dict[str, str]:
        return envfile.read(self.env_file)

    def environment(self, **more: str) -> dict[str, str]:
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        kept = {name: value for name, value in engine.environment().items() if not name.startswith(("OTEL_", "BULK"))}
        kept |= {"NOFILE": str(min(65536, hard)), "SMALL_DISKS": str(_DISKS)}
        return kept | more

    def run(self, *words: str, answer: str = "", name: str = "") -> Said:
        """Run ``./run stack WORDS`` and return what it said; keeps that under ``name``."""
        command = ["./run", "stack", "--env-file", str(self.env_file), "--file", str(OVERRIDE), *words]
        done = subprocess.run(
            command, cwd=ROOT, env=self.environment(), input=answer, text=True, timeout=1500,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        said = Said(done.returncode, done.stdout)
        self.said[name or " ".join(words)] = said
        return said

    def secret(self, name: str) -> str:
        """Return one of the stack's passwords and keys."""
        return passwords.read(envfile.secrets_folder(self.env_file), name)

    def port(self, variable: str) -> int:
        return int(self.settings[variable])

    def bulkscope(self, *words: str) -> str:
        """Return what ``bulkscope WORDS`` of this checkout prints; it reads this stack's Elasticsearch."""
        store = {
            "ELASTICSEARCH_URL": f"http://127.0.0.1:{self.port('ELASTICSEARCH_PORT')}",
            "ELASTIC_PASSWORD": self.secret("ELASTIC_PASSWORD"),
        }
        done = subprocess.run(
            [str(BIN / "bulkscope"), *words], env=self.environment(**store), capture_output=True, text=True, timeout=300
        )
        if done.returncode:
            raise ValueError(f"bulkscope {' '.join(words)} ended with {done.returncode}: {done.stdout}{done.stderr}")
        return done.stdout

    def report(self, bulk: str) -> dict[str, Any]:
        """Return a bulk's report from Elasticsearch; raises ``ValueError`` where there is none yet."""
        found: dict[str, Any] = json.loads(
            self.bulkscope("report", bulk, "--source", "elasticsearch", "--format", "json")
        )
        return found

    def elasticsearch(self, method: str, path: str, body: Any = None, header: str = "") -> Any:
        """Return an answer of Elasticsearch, to the user ``elastic`` unless another ``header`` is given."""
        basic = base64.b64encode(f"elastic:{self.secret('ELASTIC_PASSWORD')}".encode()).decode()
        url = f"http://127.0.0.1:{self.port('ELASTICSEARCH_PORT')}{path}"
        return call(url, body, method=method, Authorization=header or f"Basic {basic}")

    def prometheus(self, query: str) -> list[dict[str, Any]]:
        """Return what an instant query finds."""
        words = urllib.parse.urlencode({"query": query})
        url = f"http://127.0.0.1:{self.port('PROMETHEUS_PORT')}/api/v1/query?{words}"
        found: list[dict[str, Any]] = call(url)["data"]["result"]
        return found

    def value(self, query: str) -> float:
        """Return the one number that a query finds; raises ``ValueError`` where there is not one."""
        found = self.prometheus(query)
        if len(found) != 1:
            raise ValueError(f"{query} finds {len(found)} series")
        return float(found[0]["value"][1])

    def containers(self) -> dict[str, dict[str, Any]]:
        """Return what Docker says of each service's container, ended ones too."""
        label = "com.docker.compose"
        names = engine.docker("ps", "--all", "--quiet", "--filter", f"label={label}.project=bulkscope").split()
        found = json.loads(engine.docker("inspect", *names)) if names else []
        return {one["Config"]["Labels"][f"{label}.service"]: one for one in found}

    def network(self, service: str) -> str:
        """Return a network that a service's container is in."""
        return next(iter(self.containers()[service]["NetworkSettings"]["Networks"]))

    def compose(self) -> dict[str, Any]:
        """Return docker-compose.yml as Compose reads it, with the demo and with what differs here."""
        words = docker.Project(self.env_file, (OVERRIDE,)).words(demo=True)
        done = subprocess.run(
            ["docker", *words, "config", "--format", "json"], env=self.environment(), capture_output=True, text=True
        )
        if done.returncode:
            raise engine.EngineError(done.stderr)
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def disk(self, service: str) -> Path:
        """Return the small file system that a service writes to."""
        return _DISKS / service


def call(url: str, body: Any = None, method: str = "", **headers: str) -> Any:
    """Return a JSON answer; raises ``ValueError`` with the text of an answer that is an error, for ``eventually``."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json", **headers}, method=method or None)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.loads(answer.read() or b"null")
    except urllib.error.HTTPError as error:
        raise ValueError(f"{error.code}: {error.read().decode(errors='replace')[:2000]}") from None


@contextmanager
def _small_disks() -> Iterator[None]:
    for name, size in DISKS.items():
        place = _DISKS / name
        place.mkdir(parents=True)
        # Everybody may write: Docker gives a volume the owner of the image's folder only where it is its own.
        engine.run(["mount", "-t", "tmpfs", "-o", f"size={size}m,mode=1777", "bulkscope-tests", str(place)])
    try:
        yield
    finally:
        for name in DISKS:
            engine.run(["umount", "--lazy", str(_DISKS / name)])


@contextmanager
def up(folder: Path) -> Iterator[Stack]:
    """Start the stack by README's first command and the demo's option, while the block lasts."""
    stack = Stack(folder)
    with _small_disks():
        stack.run("init", name="init")
        text = re.sub(r"^HOST_NAME=.*$", f"HOST_NAME={HOST}", stack.env_file.read_text(), flags=re.MULTILINE)
        stack.env_file.write_text(text + "".join(f"{port.variable}={free_port()}\n" for port in PORTS))
        first = readme_commands()[0]
        try:
            stack.run(*first[2:], "--demo", name="up")
            yield stack
        finally:
            stack.run("down", "--volumes", "--yes", name="end")
