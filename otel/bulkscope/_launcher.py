"""``bulkscope run COMMAND``: the command, with telemetry switched on before its first line runs."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import MutableMapping, Sequence
from importlib.util import find_spec
from pathlib import Path

from bulkscope import _defaults

_USAGE = """\
usage: bulkscope run [--] COMMAND [ARGUMENTS]

Runs COMMAND with every supported library instrumented and telemetry sent to a studio on this
machine. For example:

  bulkscope run uvicorn app:app
  bulkscope run celery -A tasks worker

OTEL_* variables that are set win over the defaults; OTEL_SERVICE_NAME names the service and
OTEL_EXPORTER_OTLP_ENDPOINT the place to send to (default http://127.0.0.1:4318)."""


def environment(command: Sequence[str], environ: MutableMapping[str, str]) -> None:
    """Prepare ``environ`` for ``command``: defaults, and the hook that Python runs at its start."""
    _defaults.apply(environ)
    if "service.name=" not in environ.get("OTEL_RESOURCE_ATTRIBUTES", ""):
        environ.setdefault("OTEL_SERVICE_NAME", _defaults.service_name(command))
    disabled = [name for name in environ.get("OTEL_PYTHON_DISABLED_INSTRUMENTATIONS", "").split(",") if name]
    # Left out by name, so that contrib's module (and the library it imports) is not even loaded.
    disabled += sorted(_defaults.superseded_names() - set(disabled))
    environ["OTEL_PYTHON_DISABLED_INSTRUMENTATIONS"] = ",".join(disabled)
    # Found, not imported: importing it takes 0.1 s, and only the command's own process needs it.
    if find_spec("opentelemetry.instrumentation.auto_instrumentation") is None:
        raise SystemExit("bulkscope run: opentelemetry-instrumentation is not installed (pip install bulkscope)")
    hook = str(Path(__file__).resolve().with_name("_hook"))
    paths = [path for path in environ.get("PYTHONPATH", "").split(os.pathsep) if path and path != hook]
    # opentelemetry-instrument puts the working directory on the path as well; so do we, for the same result.
    if os.getcwd() not in paths:
        paths.insert(0, os.getcwd())
    environ["PYTHONPATH"] = os.pathsep.join([hook, *paths])


def command(argv: list[str]) -> int:
    """Replace this process by the command; returns only on bad usage (2) or no start (126, 127)."""
    words = argv[1:] if argv[:1] == ["--"] else argv
    if not words or words[0] in ("-h", "--help"):
        print(_USAGE, file=sys.stdout if words else sys.stderr)
        return 0 if words else 2
    executable = shutil.which(words[0]) or shutil.which(words[0], path=os.path.dirname(sys.executable))
    if executable is None:
        print(f"bulkscope run: {words[0]}: command not found", file=sys.stderr)
        return 127
    environment(words, os.environ)
    try:
        os.execv(executable, [executable, *words[1:]])
    except OSError as error:
        print(f"bulkscope run: {executable}: {error.strerror}", file=sys.stderr)
        return 126
