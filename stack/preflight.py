"""What must hold before the stack is started; each check says what to do where it does not."""

from __future__ import annotations

import errno
import re
import shutil
import socket
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from stack import docker, retention
from stack.services import FOREIGN, MEMORY_MIB, MIB, PORTS, ROOT, SCALED_MIB, port

MAP_COUNT_FILE = Path("/proc/sys/vm/max_map_count")
MAP_COUNT = 262144
# `up --wait` that takes a one-shot's exit code 0 for success, and `ps --format json` with the published ports.
COMPOSE = (2, 20)
# Elasticsearch puts nothing on a disk with less than 3 GB free; the Collector's queues take 1 GB when they are full.
DISK_GIB = 4


def problems(project: docker.Project, environ: Mapping[str, str], *, demo: bool, workers: int = 1) -> Iterator[str]:
    """Yield what stands in the way, one text each; ``workers`` is how many of the demo's are to run."""
    found = list(docker_problems())
    yield from found
    yield from map_count_problems(MAP_COUNT_FILE)
    yield from mode_problems(ROOT)
    yield from retention.problems(environ)
    if not found:
        yield from memory_problems(demo=demo, workers=workers)
        yield from disk_problems()
        ours = {
            publisher.get("PublishedPort")
            for container in docker.containers(project)
            for publisher in container.get("Publishers") or []
        }
        yield from port_problems(environ, ours, demo=demo)


def docker_problems() -> Iterator[str]:
    """Docker is installed, its daemon answers, Compose is version 2 and new enough."""
    server = docker.ask("version", "--format", "{{.Server.Version}}")
    if server.code == 127:
        yield "Docker is not installed: https://docs.docker.com/get-docker/ (Docker Engine with its Compose plugin)"
        return
    if server.code:
        if "permission denied" in server.err.lower():
            yield (
                "you may not talk to Docker: add yourself to its group ('sudo usermod -aG docker $USER', then log in "
                "again), or use rootless Docker"
            )
        else:
            reason = server.err.splitlines()[-1] if server.err else "no reason given"
            yield (
                f"Docker's daemon does not answer ({reason}): start Docker Desktop, or 'sudo systemctl start docker'"
            )
        return
    version = docker.ask("compose", "version", "--short")
    if version.code:
        yield (
            "'docker compose' is not there: install the Compose plugin (Debian and Ubuntu: docker-compose-plugin or "
            "docker-compose-v2); the older 'docker-compose' is not enough"
        )
        return
    numbers = re.match(r"v?(\d+)\.(\d+)", version.out)
    if numbers is None or (int(numbers[1]), int(numbers[2])) < COMPOSE:
        least = ".".join(map(str, COMPOSE))
        yield f"Compose is version {version.out or 'unknown'}; {least} or newer is needed: update Docker"


def map_count_problems(file: Path) -> Iterator[str]:
    """The kernel lets Elasticsearch map its files; only Linux has the setting (else Docker's machine)."""
    try:
        count = int(file.read_text())
    except (OSError, ValueError):
        return
    if count < MAP_COUNT:
        yield (
            f"vm.max_map_count is {count}, and Elasticsearch needs {MAP_COUNT}: 'sudo sysctl -w "
            f"vm.max_map_count={MAP_COUNT}'; to keep it over a restart: 'echo vm.max_map_count={MAP_COUNT} | sudo tee "
            "/etc/sysctl.d/90-bulkscope.conf'"
        )


def mode_problems(root: Path) -> Iterator[str]:
    """Other users may read what containers of other users read; in a checkout made under umask 077 they may not."""
    for name in FOREIGN:
        place = root / name
        unreadable = [
            path
            for path in (place, *sorted(place.rglob("*")))
            if ~path.stat().st_mode & (0o005 if path.is_dir() else 0o004)
        ]
        if unreadable:
            yield (
                f"{unreadable[0].relative_to(root)} cannot be read by others, and {name} is read in a container by a "
                f"user who is not you: 'chmod -R a+rX {name}' in {root}"
            )


def memory_problems(*, demo: bool, workers: int = 1) -> Iterator[str]:
    """Docker has the memory that the limits add up to."""
    answer = docker.ask("info", "--format", "{{.MemTotal}}")
    if answer.code or not answer.out.isdigit():
        said = answer.err or answer.out or "no answer"
        yield f"Docker does not say how much memory it has ({said}): see 'docker info'"
        return
    has, needs = int(answer.out) // MIB, MEMORY_MIB["demo" if demo else ""] + (workers - 1) * SCALED_MIB * demo
    if has < needs:
        less = f" Without the demo {MEMORY_MIB['']} MiB are enough." if demo and has >= MEMORY_MIB[""] else ""
        where = (
            "Docker Desktop: Settings, Resources, Memory" if sys.platform == "darwin" else "this machine is too small"
        )
        yield f"Docker has {has} MiB of memory, and the stack may use {needs} MiB: give it more ({where}).{less}"


def disk_problems() -> Iterator[str]:
    """There is room where Docker keeps its volumes; not known where that is inside a virtual machine."""
    answer = docker.ask("info", "--format", "{{.DockerRootDir}}")
    if answer.code or not answer.out.startswith("/"):
        return
    try:
        free = shutil.disk_usage(answer.out).free
    except OSError:
        return
    if free < DISK_GIB * 2**30:
        yield (
            f"only {free / 2**30:.1f} GiB are free at {answer.out}, where Docker keeps its volumes, and Elasticsearch "
            f"needs {DISK_GIB} GiB: make room, 'docker system df' and 'docker image prune' help"
        )


def port_problems(environ: Mapping[str, str], ours: set[int | None], *, demo: bool) -> Iterator[str]:
    """The ports on 127.0.0.1 are free, or held by this stack already."""
    seen: dict[int, str] = {}
    for known in PORTS:
        if known.profile and not demo:
            continue
        number = port(known.variable, environ)
        if number in seen:
            yield f"{known.variable} and {seen[number]} are both {number}: change one in .env"
        seen[number] = known.variable
        if number in ours or _free(number):
            continue
        studio = " (a running 'bulkscope studio' listens there too)" if number in (4317, 4318) else ""
        yield (
            f"port {number} on 127.0.0.1, for {known.service}, is taken{studio}: end what uses it, or set "
            f"{known.variable} to another one in .env"
        )


def _free(number: int) -> bool:
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", number))
        except OSError as error:
            # Docker's daemon may bind what this user may not (below 1024).
            return error.errno == errno.EACCES
    return True
