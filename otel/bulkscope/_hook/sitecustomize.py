"""What Python runs first in every process of ``bulkscope run``: OpenTelemetry's own hook, where it can work.

Not in an interpreter beside the main one (``concurrent.futures.InterpreterPoolExecutor``): nothing can be sent from
there, and setting up would take it seconds. And after Celery's patches for greenlets, where it will ask for them.
"""

from __future__ import annotations

import _thread
import os
import sys


def _start() -> None:
    # Taken off the path meanwhile, as OpenTelemetry's does: a process that set-up starts must not set up.
    here = os.path.dirname(os.path.abspath(__file__))
    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    rest = [path for path in paths if path != here]
    os.environ["PYTHONPATH"] = os.pathsep.join(rest)
    try:
        from bulkscope import _green

        _green.patch_early(sys.orig_argv)
        from opentelemetry.instrumentation.auto_instrumentation import initialize

        initialize()
    finally:
        if len(rest) < len(paths):
            os.environ["PYTHONPATH"] = os.pathsep.join([here, *os.environ["PYTHONPATH"].split(os.pathsep)])


if getattr(_thread, "daemon_threads_allowed", lambda: True)():
    _start()
