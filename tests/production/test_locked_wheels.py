"""The images can be built for both architectures: each package that uv.lock puts into them has a wheel for it."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from packaging.markers import Marker
from packaging.tags import Tag, compatible_tags, cpython_tags
from packaging.utils import parse_wheel_filename

ROOT = Path(__file__).resolve().parents[2]
LOCK = tomllib.loads((ROOT / "uv.lock").read_text())["package"]
PYTHON = (3, 13)  # of the Dockerfile
GLIBC = (2, 36)  # of Debian bookworm, the Dockerfile's base


def environment(machine: str) -> dict[str, str]:
    version = ".".join(map(str, PYTHON))
    return {
        "python_version": version, "python_full_version": f"{version}.0", "implementation_name": "cpython",
        "platform_python_implementation": "CPython", "sys_platform": "linux", "platform_system": "Linux",
        "os_name": "posix", "platform_machine": machine, "extra": "",
    }  # fmt: skip


def holds(entry: dict[str, Any], machine: str) -> bool:
    return "marker" not in entry or Marker(entry["marker"]).evaluate(environment(machine))


def locked(entry: dict[str, Any], machine: str) -> dict[str, Any]:
    """Return the package that a dependency is on this machine; a name can be locked at several versions."""
    found = [one for one in LOCK if one["name"] == entry["name"] and entry.get("version") in (None, one.get("version"))]
    if len(found) > 1:
        markers = "resolution-markers"
        found = [one for one in found if any(holds({"marker": marker}, machine) for marker in one.get(markers, ()))]
    (package,) = found
    return package


def installed(start: list[dict[str, Any]], machine: str) -> Iterator[dict[str, Any]]:
    """Yield each package that is installed for a list of dependencies, with all theirs."""
    todo, seen = list(start), set()
    while todo:
        entry = todo.pop()
        if not holds(entry, machine):
            continue
        package = locked(entry, machine)
        for extra in ("", *entry.get("extra", ())):
            if (package["name"], extra) not in seen:
                seen.add((package["name"], extra))
                more = (
                    package.get("optional-dependencies", {}).get(extra, [])
                    if extra
                    else package.get("dependencies", [])
                )
                todo += more
                if not extra:
                    yield package


def tags(machine: str) -> set[Tag]:
    platforms = [f"manylinux_{GLIBC[0]}_{minor}_{machine}" for minor in range(GLIBC[1], 4, -1)]
    platforms += [f"manylinux2014_{machine}", f"linux_{machine}"]
    return {*cpython_tags(PYTHON, platforms=platforms), *compatible_tags(PYTHON, platforms=platforms)}


def targets() -> dict[str, list[dict[str, Any]]]:
    """Return what each image installs beside the project, as the Dockerfile's ``uv sync`` says it."""
    project = next(one for one in LOCK if one["name"] == "bulkscope")
    found = {}
    for stage, words in re.findall(
        r"AS (\S*environment)\n(?:#.*\n)*RUN uv sync (.*)", (ROOT / "Dockerfile").read_text()
    ):
        extras = re.findall(r"--extra (\S+)", words)
        groups = re.findall(r"--group (\S+)", words)
        found[stage] = [
            *project["dependencies"],
            *(entry for extra in extras for entry in project["optional-dependencies"][extra]),
            *(entry for group in groups for entry in project["dev-dependencies"][group]),
        ]
    return found


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
@pytest.mark.parametrize("stage", ["environment", "demo-environment"])
def test_each_package_of_an_image_has_a_wheel(stage: str, machine: str) -> None:
    wanted, packages = tags(machine), list(installed(targets()[stage], machine))
    assert len(packages) > 40
    without = [
        package["name"]
        for package in packages
        if not any(
            parse_wheel_filename(wheel["url"].rpartition("/")[2])[3] & wanted for wheel in package.get("wheels", ())
        )
    ]
    assert without == []


def test_the_versions_here_are_the_dockerfiles() -> None:
    assert re.search(r"^FROM python:3\.13\.\d+-slim-bookworm AS base$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
