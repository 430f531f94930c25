"""Which Python would run a command, whether it would run the hook, and which versions stand there.

Nothing of this process tells: a script's first line may name the Python of another environment.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata

from opentelemetry.instrumentation.dependencies import get_dependency_conflicts

from bulkscope import __version__
from bulkscope._doctor.findings import FAULT, OK, WARNING, Finding

SUBJECT = "interpreter"
# For one start of Python; on a busy machine with a cold disk it takes seconds.
START_SECONDS = 60
_PYTHON = re.compile(r"(?:python|pypy)[\d.]*t?")
# Scripts of environments with a long path, or a space in it: sh reads the line, Python takes it for a string.
_TRAMPOLINE = re.compile(r"""'''exec' (?:"([^"]+)"|'([^']+)'|(\S+))""")
# Runs in any Python 3, whatever is installed there.
_ASK = """
import json, os, sys
found = {"version": "%d.%d.%d" % sys.version_info[:3], "executable": sys.executable, "bulkscope": None}
try:
    import bulkscope
    found["bulkscope"] = getattr(bulkscope, "__version__", "of another kind")
    found["doctor"] = os.path.isdir(os.path.join(os.path.dirname(bulkscope.__file__ or ""), "_doctor"))
except Exception as error:
    found["error"] = "%s: %s" % (type(error).__name__, error)
print("\\x1e" + json.dumps(found))
"""
MARK = "\x1e"


@dataclass(frozen=True, slots=True)
class Target:
    """The Python of a command; None where it cannot be told or found. ``findings`` say why, and what is odd."""

    python: str | None
    findings: tuple[Finding, ...] = ()


def _ignores_environment(words: Sequence[str]) -> str:
    """Return the first of Python's options among ``words`` with which it would not run the hook, or nothing."""
    options = iter(words)
    for word in options:
        if not word.startswith("-") or word == "-" or word.startswith("--"):
            break
        if found := re.match(r"-[A-Zabdhiqsuvx?]*?([EIS])", word):
            return f"-{found[1]}"
        if re.search(r"[cm]", word):
            break
        if word in ("-W", "-X"):
            next(options, None)
    return ""


def _python(python: str, options: Sequence[str]) -> Target:
    if ignored := _ignores_environment(options):
        finding = Finding(
            SUBJECT, FAULT, f"the command starts Python with {ignored}, which skips what PYTHONPATH and site add: the "
            "hook that switches telemetry on does not run",
            f"start it without {ignored}, for example as python -m MODULE instead of by a script with that option",
        )  # fmt: skip
        return Target(python, (finding,))
    return Target(python)


def _script(path: str) -> tuple[str, list[str]] | None:
    """Return the interpreter that a script's first line names, and its options; None for what is no script."""
    try:
        with open(path, "rb") as file:
            head = file.read(4096).decode(errors="replace")
    except OSError:
        return None
    first, _, second = head.partition("\n")
    if not first.startswith("#!"):
        return None
    try:
        words = shlex.split(first[2:])
    except ValueError:
        words = first[2:].split()
    if not words:
        return None
    if os.path.basename(words[0]) in ("sh", "bash", "dash") and (found := _TRAMPOLINE.match(second)):
        return next(name for name in found.groups() if name), []
    if os.path.basename(words[0]) == "env":
        rest = [word for word in words[1:] if "=" not in word and word not in ("-S", "-i")]
        return (rest[0], rest[1:]) if rest else None
    return words[0], words[1:]


def of(words: Sequence[str], environ: Mapping[str, str]) -> Target:
    """Return the Python that ``bulkscope run`` would start for the command ``words``; of no command this one."""
    if not words:
        return Target(sys.executable)
    path = environ.get("PATH", os.defpath)
    command = shutil.which(words[0], path=path) or shutil.which(words[0], path=os.path.dirname(sys.executable))
    if command is None:
        finding = Finding(
            SUBJECT, FAULT, f"{words[0]}: command not found",
            "activate the environment that it is installed in, or write its path",
        )  # fmt: skip
        return Target(None, (finding,))
    if _PYTHON.fullmatch(os.path.basename(command)):
        return _python(command, words[1:])
    if (script := _script(command)) is not None:
        interpreter = shutil.which(script[0], path=path)
        if _PYTHON.fullmatch(os.path.basename(script[0])):
            if interpreter is None:
                finding = Finding(
                    SUBJECT, FAULT, f"{command} names {script[0]}, which is not there",
                    "install the command again: the environment that it was made in has moved or gone",
                )  # fmt: skip
                return Target(None, (finding,))
            return _python(interpreter, script[1])
    python = shutil.which("python", path=path) or shutil.which("python3", path=path) or sys.executable
    finding = Finding(
        SUBJECT, WARNING, f"{command} is no Python script: which Python it starts cannot be told; checked is {python}",
        "check what it starts instead: bulkscope doctor -- COMMAND",
    )  # fmt: skip
    return Target(python, (finding,))


def marked(output: str) -> object:
    """Return the JSON on the marked line of a check's output; others may print beside it. None without one."""
    for line in reversed(output.split("\n")):  # splitlines would split at the mark
        if line.startswith(MARK):
            try:
                return json.loads(line[1:])
            except ValueError:
                return None
    return None


def last_line(text: str) -> str:
    """Return the last line that says something."""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "it printed nothing")


def asked(python: str, environ: Mapping[str, str], ours: str) -> tuple[Finding, ...]:
    """Return what keeps ``python`` from checking itself; nothing where it can. ``ours`` is this Bulkscope's version."""
    try:
        done = subprocess.run(
            [python, "-c", _ASK], env=dict(environ), capture_output=True, text=True, errors="replace",
            stdin=subprocess.DEVNULL, timeout=START_SECONDS,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        return (Finding(SUBJECT, FAULT, f"{python} cannot be started: {error}", "see that it runs by itself"),)
    found = marked(done.stdout)
    if not isinstance(found, dict):
        what = f"{python} ends before it can be asked: {last_line(done.stderr)}"
        return (Finding(SUBJECT, FAULT, what, "see that it runs by itself, and is Python 3.11 or newer"),)
    if found["bulkscope"] is None:
        what = f"Bulkscope is not in the environment of {python} (Python {found['version']}): {found.get('error')}"
        todo = f"install it there, where the service's libraries are: {python} -m pip install bulkscope"
        if tuple(map(int, found["version"].split("."))) < (3, 11):
            todo = "it needs Python 3.11 or newer: make the service's environment with one"
        return (Finding(SUBJECT, FAULT, what, todo),)
    if not found.get("doctor"):
        what = f"Bulkscope {found['bulkscope']} in the environment of {python} has no doctor; this one is {ours}"
        return (Finding(SUBJECT, FAULT, what, f"update it there: {python} -m pip install --upgrade bulkscope"),)
    return ()


def versions(launcher: str) -> list[Finding]:
    """Return what is said of this interpreter; ``launcher`` is the version of the Bulkscope that was called."""
    number = ".".join(map(str, sys.version_info[:3]))
    found = [Finding(SUBJECT, OK, f"Python {number}, {sys.executable}")]
    same = launcher == __version__
    what = f"Bulkscope {__version__}" + ("" if same else f"; the one that was called is {launcher}")
    todo = "" if same else "install the same version in both environments"
    found.append(Finding(SUBJECT, OK if same else WARNING, what, todo))
    parts = []
    for part in ("api", "sdk", "instrumentation"):
        try:
            parts.append(f"{part} {metadata.version(f'opentelemetry-{part}')}")
        except metadata.PackageNotFoundError:
            parts.append(f"{part} missing")
    conflict = get_dependency_conflicts(_needed())
    if conflict is None:
        found.append(Finding(SUBJECT, OK, f"OpenTelemetry {', '.join(parts)}"))
    else:
        what = f"OpenTelemetry {', '.join(parts)}: Bulkscope needs {conflict.required}, and "
        what += f"{conflict.found} is installed" if conflict.found else "it is not installed"
        found.append(
            Finding(SUBJECT, WARNING, what, f'{sys.executable} -m pip install --upgrade "{conflict.required}"')
        )
    return found


def _needed() -> list[str]:
    """Return what Bulkscope requires of a service's environment; nothing where it is not installed as a package."""
    try:
        requires = metadata.requires("bulkscope") or []
    except metadata.PackageNotFoundError:
        return []
    return [requirement for requirement in requires if ";" not in requirement]
