"""The check itself, in the interpreter of the command: ``python -m bulkscope._doctor``.

Its process has been set up as the service's would be, with the exporters ``none``. It reads the variables as they
would be from its input, and writes what it finds as one marked line.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable
from typing import Any

from bulkscope import _defaults
from bulkscope._doctor import endpoint, engine, interpreter, libraries, meter, numbers, studio, surroundings
from bulkscope._doctor.findings import FAULT, WARNING, Finding, Result


def _checked(subject: str, check: Callable[[], list[Finding]]) -> list[Finding]:
    """Return what ``check`` finds; its own failure is a finding, and hides no other."""
    try:
        return check()
    except Exception as error:
        # Not what it says: it may quote an address, with the login in it.
        last = traceback.extract_tb(error.__traceback__)[-1]
        what = f"this check failed: {type(error).__name__} at {os.path.basename(last.filename)}:{last.lineno}"
        return [Finding(subject, WARNING, what, "please report it, with the versions above")]


def _set_up() -> list[Finding]:
    if surroundings.is_set_up() or os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return []
    ran = "bulkscope._setup" in sys.modules
    what = "the hook ran, and telemetry could not be set up" if ran else "the hook that sets up telemetry did not run"
    todo = "see the end of this report for why" if ran else "see what else is on PYTHONPATH, and how Python is started"
    return [Finding(interpreter.SUBJECT, FAULT, what, todo)]


def inspect(asked: dict[str, Any]) -> Result:
    """Return what is found; ``asked`` has ``environ``, ``launcher`` (a version), ``studio`` and ``engine`` (URLs, or
    nothing)."""
    # What setting up has added is the service's too: a distribution's defaults, and ours under another launcher.
    environ = {name: value for name, value in os.environ.items() if value != "none"} | asked["environ"]
    _defaults.apply(environ)
    os.environ.clear()
    os.environ.update(environ)
    set_up = surroundings.is_set_up()
    there = libraries.installed()
    sight, engines = meter.sight(), engine.engines(asked["engine"])
    found = [
        *_checked(interpreter.SUBJECT, lambda: interpreter.versions(asked["launcher"])),
        *_set_up(),
        *_checked(libraries.SUBJECT, lambda: [*libraries.findings(there, set_up), *libraries.others()]),
        *_checked(surroundings.SUBJECT, lambda: surroundings.findings(set_up)),
        *_checked(endpoint.SUBJECT, endpoint.findings),
        *_checked(studio.SUBJECT, lambda: studio.findings(asked["studio"])),
        *engine.findings(engines),
        *_checked(meter.SUBJECT, lambda: list(sight.findings)),
    ]
    return Result(tuple(found), numbers.numbers(there, sight, set_up, engines))


if __name__ == "__main__":
    document = inspect(json.load(sys.stdin)).document()
    print(f"\n{interpreter.MARK}{json.dumps(document)}")
