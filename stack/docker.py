"""Calls of the ``docker`` command."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stack.services import COMPOSE_FILE, OVERRIDE_FILE, ROOT


@dataclass(frozen=True, slots=True)
class Answer:
    """What a short command said; ``code`` 127 means that there is no such command."""

    code: int
    out: str
    err: str


def ask(*words: str, seconds: float = 20.0) -> Answer:
    """Run ``docker WORDS`` and return what it said."""
    try:
        done = subprocess.run(
            ["docker", *words], capture_output=True, text=True, timeout=seconds, check=False, cwd=ROOT
        )
    except FileNotFoundError:
        return Answer(127, "", "there is no command 'docker'")
    except (OSError, subprocess.TimeoutExpired) as error:
        return Answer(1, "", str(error))
    return Answer(done.returncode, done.stdout.strip(), done.stderr.strip())


@dataclass(frozen=True, slots=True)
class Project:
    """What Compose is told of the stack: its env file, and ``files`` that are put on docker-compose.yml, in order.

    docker-compose.override.yml, where there is one, comes before them.
    """

    env_file: Path
    files: tuple[Path, ...] = ()

    def words(self, *, demo: bool = False) -> list[str]:
        """Return the words that every call of Compose begins with, without ``docker`` itself."""
        override = (OVERRIDE_FILE,) if OVERRIDE_FILE.exists() else ()
        words = ["compose", "--project-directory", str(ROOT)]
        for file in (COMPOSE_FILE, *override, *self.files):
            words += ["--file", str(file)]
        words += ["--env-file", str(self.env_file)]
        return [*words, "--profile", "demo"] if demo else words


def run(words: Sequence[str]) -> int:
    """Run ``docker WORDS`` on this terminal and return its exit code."""
    try:
        return subprocess.run(["docker", *words], check=False, cwd=ROOT).returncode
    except FileNotFoundError:
        return 127
    except KeyboardInterrupt:
        return 130


def containers(project: Project) -> list[dict[str, Any]]:
    """Return what Compose knows of this stack's containers, ended ones too; nothing where Docker does not answer."""
    answer = ask(*project.words(demo=True), "ps", "--all", "--format", "json")
    if answer.code:
        return []
    try:  # one object a line, or (before 2.21) one list
        found = [json.loads(line) for line in answer.out.splitlines() if line.strip()]
    except ValueError:
        return []
    flat = [entry for part in found for entry in (part if isinstance(part, list) else [part])]
    return [entry for entry in flat if isinstance(entry, dict)]


def logged(project: Project, service: str) -> list[str]:
    """Return the lines that a service's container has written, of all its runs; none where Docker does not answer."""
    answer = ask(*project.words(), "logs", "--no-color", "--no-log-prefix", service)
    return [] if answer.code else answer.out.splitlines()
