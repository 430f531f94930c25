"""Which libraries of the environment are instrumented, which are not, and why."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from typing import Any

from opentelemetry.instrumentation.dependencies import get_dependency_conflicts

from bulkscope import _defaults
from bulkscope._doctor.findings import OK, WARNING, Finding

SUBJECT = "libraries"
_GROUP, _OURS = "opentelemetry_instrumentor", "bulkscope_"

# What each module is for; ``tests/otel/test_doctor.py`` holds it against the entry points.
KINDS = {
    "API": ("fastapi", "starlette"),
    "queue": (
        "celery",
        "rq",
        "dramatiq",
        "huey",
        "arq",
        "taskiq",
        "bullmq",
        "saq",
        "procrastinate",
        "pika",
        "aio-pika",
        "aiokafka",
        "confluent_kafka",
        "boto3",
    ),
    "engine": ("xllamacpp", "llama_cpp", "transformers"),
    "client": ("openai", "urllib3", "aiohttp"),  # of an engine in another process
    "ours": ("logging", "concurrent"),  # of the standard library
}
# Without these a library is there and cannot work.
_NEEDS = {"transformers": "torch"}


@dataclass(frozen=True, slots=True)
class Library:
    """An installed library that we have a module for; ``skipped`` says why it is not instrumented, empty if it is."""

    name: str
    found: str
    kind: str
    skipped: str = ""
    todo: str = ""


def _disabled() -> set[str]:
    names = os.environ.get("OTEL_PYTHON_DISABLED_INSTRUMENTATIONS", "").split(",")
    return {name.strip() for name in names}


def _kind(name: str) -> str:
    return next((kind for kind, names in KINDS.items() if name in names), "other")


def _found(instrumentor: Any) -> str:
    """Return the installed packages that an instrumentor is for, with their versions; nothing where none is."""
    requires = [requirement.split()[0] for requirement in instrumentor.requires]
    names = requires or [module.partition(".")[0] for module in (instrumentor.module, *instrumentor.other_modules)]
    found = []
    for name in names:
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            continue
    if not found and requires and find_spec(instrumentor.module.partition(".")[0]) is not None:
        return f"{requires[0]} (of no known version)"
    return ", ".join(found)


def _why_not(name: str, point: str, instrumentor: Any) -> tuple[str, str]:
    """Return why a library is not instrumented, and what to do; two empty texts where it is."""
    disabled, switch = _disabled(), f"BULKSCOPE_{(instrumentor.name or instrumentor.module).upper()}"
    if "*" in disabled or point in disabled:
        entry = "*" if "*" in disabled else point
        return (
            f"switched off by OTEL_PYTHON_DISABLED_INSTRUMENTATIONS ({entry})", f"take {entry} out of that variable",
        )  # fmt: skip
    if _defaults.left_to_others(instrumentor.name or instrumentor.module):
        others = [each.name for each in metadata.entry_points(group=_GROUP) if each.name == name]
        stands_in = "whose spans carry no bulk id and no queue wait" if others else "and none is installed"
        return f"left to another instrumentation by {switch}=contrib, {stands_in}", f"unset {switch}"
    conflict = get_dependency_conflicts(instrumentor.requires)
    if conflict is not None:
        return (
            f"its version is not supported: Bulkscope needs {conflict.required}", f'pip install "{conflict.required}"',
        )  # fmt: skip
    needed = _NEEDS.get(name)
    if needed is not None and find_spec(needed) is None:
        return f"{needed} is missing, without which it runs no model", f"pip install {needed}"
    if not instrumentor().is_instrumented_by_opentelemetry:
        return "its instrumentation was not loaded when telemetry was set up", "see the end of this report for why"
    return "", ""


def installed() -> list[Library]:
    """Return the libraries that are there and have a module of ours."""
    found = []
    for point in sorted(metadata.entry_points(group=_GROUP), key=lambda each: each.name):
        if not point.name.startswith(_OURS):
            continue
        name = point.name.removeprefix(_OURS)
        try:
            instrumentor = point.load()
        except ImportError as error:
            found.append(
                Library(name, name, _kind(name), f"its instrumentation cannot be imported: {error}",
                        "install what is missing, in versions that go together")
            )  # fmt: skip
            continue
        there = _found(instrumentor) or ("the standard library's" if _kind(name) == "ours" else "")
        if there:
            found.append(Library(name, there, _kind(name), *_why_not(name, point.name, instrumentor)))
    return found


def findings(libraries: Iterable[Library], set_up: bool) -> list[Finding]:
    """Return a line for each library, and one for each kind of which none is there.

    Where telemetry is not ``set_up`` at all, that is the reason of none, and is said elsewhere.
    """
    found, kinds = [], set()
    for library in libraries:
        if library.kind == "ours":
            if library.skipped and set_up:
                found.append(Finding(SUBJECT, WARNING, f"{library.name}: {library.skipped}", library.todo))
            continue
        kinds.add(library.kind)
        if not library.skipped:
            found.append(Finding(SUBJECT, OK, f"{library.found}: instrumented ({library.name})"))
        elif set_up:
            found.append(Finding(SUBJECT, WARNING, f"{library.found}: skipped, {library.skipped}", library.todo))
        else:
            found.append(Finding(SUBJECT, OK, f"{library.found}: not instrumented, as telemetry is not set up"))
    if not kinds & {"API", "queue", "engine"}:  # a client for HTTP is there in nearly every environment
        found.append(
            Finding(SUBJECT, WARNING, "no API, queue or engine that Bulkscope knows is in this environment",
                    "check the service's own interpreter: bulkscope doctor -- COMMAND; README lists the libraries")
        )  # fmt: skip
    elif "queue" not in kinds:
        found.append(
            Finding(SUBJECT, WARNING, f"no queue among {', '.join(KINDS['queue'])}: no job of another kind is seen",
                    "docs/own-code.md has the functions for a queue of your own and for BackgroundTasks")
        )  # fmt: skip
    return found


def others() -> list[Finding]:
    """Return the instrumentations that are not ours: those that ours stand in for, and those that run beside."""
    superseded = _defaults.superseded_names()
    names = {point.name for point in metadata.entry_points(group=_GROUP) if not point.name.startswith(_OURS)}
    found = []
    if silenced := sorted(names & superseded):
        found.append(Finding(SUBJECT, OK, f"instrumentations of others that ours stand in for: {', '.join(silenced)}"))
    if beside := sorted(names - superseded - _disabled()):
        found.append(Finding(SUBJECT, OK, f"instrumentations of others that run beside ours: {', '.join(beside)}"))
    return found
