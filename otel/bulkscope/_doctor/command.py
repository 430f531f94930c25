"""``bulkscope doctor [-- COMMAND]``: the checks, in the interpreter that would run the command."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from bulkscope import __version__, _launcher
from bulkscope._doctor import interpreter
from bulkscope._doctor.findings import FAULT, WARNING, Finding, Result, read, text

_CHECK_SECONDS = 180
# Its environment is made by itself, and by a distribution: other defaults than ours.
_THEIRS = "opentelemetry-instrument"
_EXPORTERS = ("OTEL_TRACES_EXPORTER", "OTEL_METRICS_EXPORTER", "OTEL_LOGS_EXPORTER")
_DESCRIPTION = """\
Says why telemetry does or does not arrive, and what to do about it: interpreter and versions, libraries, what else is
in the process, the end point (by a test span of a service of its own, bulkscope-doctor), what the meter can read, and
which of the thirteen numbers that gives. With a COMMAND it looks at the Python that would run it, as `bulkscope run
COMMAND` would start it; the command itself is not started."""
_EPILOG = """\
exit code: 0 all is well, 1 something will be missing, 2 nothing will arrive (or the command line is wrong)"""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bulkscope doctor", description=_DESCRIPTION, epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="bulkscope doctor [--format text|json] [--studio URL] [--engine URL] [[--] COMMAND [ARGUMENTS]]",
    )  # fmt: skip
    parser.add_argument("--format", choices=("text", "json"), default="text", help="text for people, json for scripts")
    parser.add_argument(
        "--studio", default="", metavar="URL",
        help="the address of the studio's pages, which knows what was dropped lately (default: port 8080 of the end "
        "point's host, if a studio answers there)",
    )  # fmt: skip
    parser.add_argument(
        "--engine", default="", metavar="URL",
        help="the address of an engine that the service calls: whether its CPU and memory can be measured from here "
        "(default: what OPENAI_BASE_URL, ANTHROPIC_BASE_URL and OLLAMA_HOST name)",
    )  # fmt: skip
    parser.add_argument("command", nargs=argparse.REMAINDER, help="what bulkscope run would be given")
    return parser


def _without_hook(environ: dict[str, str]) -> dict[str, str]:
    hook = str(Path(_launcher.__file__).resolve().with_name("_hook"))
    paths = [path for path in environ["PYTHONPATH"].split(os.pathsep) if path != hook]
    return environ | {"PYTHONPATH": os.pathsep.join(paths)}


def examine(words: list[str], environ: dict[str, str], studio: str = "", engine: str = "") -> Result:
    """Return what is found for the command ``words``, or for this interpreter; ``environ`` is not changed."""
    launcher, words = _their_launcher(words)
    there = dict(environ)
    if launcher:
        there.setdefault("PYTHONPATH", "")
    else:
        _launcher.environment(words or ["python"], there)
    target = interpreter.of(words, there)
    if target.python is None or any(finding.state == FAULT for finding in target.findings):
        return Result(target.findings)
    if kept := interpreter.asked(target.python, _without_hook(there), __version__):
        return Result((*target.findings, *kept))
    asked = {"environ": there, "launcher": __version__, "studio": studio, "engine": engine}
    found, said = _inside([*launcher, target.python], there, asked)
    return Result((*target.findings, *found.findings, *said), found.numbers)


def _their_launcher(words: list[str]) -> tuple[list[str], list[str]]:
    """Return OpenTelemetry's launcher with its options, where ``words`` begin with it, and the command that follows."""
    if not words or os.path.basename(words[0]) != _THEIRS:
        return [], words
    end = 1
    while end < len(words) and words[end].startswith("--"):
        end += 1 if "=" in words[end] else 2
    if end >= len(words):
        return [], words
    return [shutil.which(words[0]) or words[0], *words[1:end]], words[end:]


def _inside(
    words: list[str], environ: dict[str, str], asked: Mapping[str, object]
) -> tuple[Result, tuple[Finding, ...]]:
    """Run the checks by ``words``, a Python; return what they found, and what was written as telemetry was set up."""
    python = words[-1]
    try:
        done = subprocess.run(
            [*words, "-m", "bulkscope._doctor"], input=json.dumps(asked), capture_output=True, text=True,
            env=environ | dict.fromkeys(_EXPORTERS, "none"), errors="replace", timeout=_CHECK_SECONDS,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        what = f"the checks did not end in {python}: {type(error).__name__}"
        return Result((Finding(interpreter.SUBJECT, FAULT, what, "see that it starts by itself"),)), ()
    try:
        found = read(interpreter.marked(done.stdout))  # type: ignore[arg-type]
    except (KeyError, TypeError):
        what = f"the checks failed in {python}: {interpreter.last_line(done.stderr)}"
        todo = "see that Bulkscope has the same version in both environments"
        return Result((Finding(interpreter.SUBJECT, FAULT, what, todo),)), ()
    return found, tuple(
        Finding("set-up", WARNING, f"it wrote: {line}", "it is what the service would write as well")
        for line in list(dict.fromkeys(line.strip() for line in done.stderr.splitlines() if line.strip()))[-5:]
    )


def command(argv: list[str]) -> int:
    """Show what is found and return its exit code."""
    options = _parser().parse_args(argv)
    words = options.command[1:] if options.command[:1] == ["--"] else options.command
    result = examine(words, dict(os.environ), options.studio, options.engine)
    shown = result.json() if options.format == "json" else text(result, shutil.get_terminal_size((100, 24)).columns)
    try:
        print(shown, flush=True)
    except BrokenPipeError:  # who reads has seen enough; the interpreter would say so once more as it ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return result.code
