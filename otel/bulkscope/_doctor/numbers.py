"""Which of the thirteen numbers this environment delivers: exactly, as an estimate, or not at all."""

from __future__ import annotations

from collections.abc import Sequence

from bulkscope._doctor.engine import Engine
from bulkscope._doctor.findings import Number
from bulkscope._doctor.libraries import Library
from bulkscope._doctor.meter import Sight

# As README has them; the kinds of library that each comes from.
NAMES = {
    1: ("API requests over time", ("API",)),
    2: ("API success and failure", ("API",)),
    3: ("API latency", ("API",)),
    4: ("jobs over time", ("queue",)),
    5: ("job success and failure", ("queue",)),
    6: ("time to process", ("queue",)),
    7: ("inference time", ("engine", "client")),
    8: ("CPU during inference", ("engine",)),
    9: ("RAM during inference", ("engine",)),
    10: ("tokens generated", ("engine", "client")),
    11: ("tokens used", ("engine", "client")),
    12: ("tokens per second", ("engine", "client")),
    13: ("wait ratio", ("queue",)),
}
_OWN = "docs/own-code.md has the functions for code of your own"


def numbers(
    libraries: Sequence[Library], sight: Sight, set_up: bool, engines: Sequence[Engine] = ()
) -> tuple[Number, ...]:
    """Return the state of each number, by the instrumented ``libraries``, what the meter sees, and ``engines``."""
    return tuple(
        Number(number, name, *_state(number, kinds, libraries, sight, set_up, engines))
        for number, (name, kinds) in NAMES.items()
    )


def _state(
    number: int,
    kinds: tuple[str, ...],
    libraries: Sequence[Library],
    sight: Sight,
    set_up: bool,
    engines: Sequence[Engine],
) -> tuple[str, str]:
    if not set_up:
        return "absent", "telemetry is not set up in this interpreter"
    there = [library for library in libraries if library.kind in kinds]
    used = [library for library in there if not library.skipped]
    if not used:
        if there:
            return "absent", f"{', '.join(library.found for library in there)} is not instrumented"
        if number in (8, 9) and any(library.kind == "client" and not library.skipped for library in libraries):
            return _behind_http(number, engines)
        return "elsewhere", f"no library of this kind is here: another process may have it; {_OWN}"
    names = ", ".join(library.name for library in used)
    if number == 8:
        overlap = "; an estimate where inferences overlap in one process, or child processes work"
        return sight.cpu, f"{names}: {sight.cpu_why}{overlap if sight.cpu == 'exact' else ''}"
    if number == 9:
        return sight.peak, f"{names}: {sight.peak_why}"
    if all(library.kind == "client" for library in used):
        return "exact", f"{names}: of an engine behind HTTP, if one is called; tokens as its answers have them"
    return "exact", names


def _behind_http(number: int, engines: Sequence[Engine]) -> tuple[str, str]:
    """Return the state of CPU or RAM where no engine is in this process, but one may be called."""
    if seen := [engine for engine in engines if engine.process]:
        what = ", ".join(engine.process for engine in seen)
        if number == 8:
            return "exact", f"of {what}; an estimate where calls overlap"
        return "estimated", f"of {what}; sampled, where an earlier peak was higher"
    if engines:
        return "absent", "; ".join(engine.unseen for engine in engines)
    return "elsewhere", "of an engine behind HTTP, where it runs here under the same user; --engine URL looks for it"
