"""The ``bulkscope`` command: what is asked for is imported, and nothing else.

A service carries ``run`` alone; what the others need comes with ``bulkscope[studio]``.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module

from bulkscope import __version__

# By name: the module whose function ``command`` takes the arguments and returns the exit code, and a line of help.
COMMANDS = {
    "run": ("bulkscope._launcher", "run a command with telemetry switched on"),
    "doctor": ("bulkscope._doctor.command", "why telemetry does or does not arrive, and what to do"),
    "studio": ("bulkscope_studio.cli.studio", "receive telemetry and show it on a web page"),
    "report": ("bulkscope_studio.cli.report", "the thirteen numbers of one bulk"),
    "bulks": ("bulkscope_studio.cli.bulks", "the bulks in the store"),
    "watch": ("bulkscope_studio.cli.watch", "how far a bulk is and when it ends, until it has"),
    "explain": ("bulkscope_studio.cli.explain", "what held a bulk up, with the evidence"),
    "capacity": ("bulkscope_studio.cli.capacity", "what the system sustains, and with how many workers"),
    "whatif": ("bulkscope_studio.cli.whatif", "a bulk played again: other workers, another order, a faster model"),
    "compare": ("bulkscope_studio.cli.compare", "two models, runs or settings, number by number"),
    "check": ("bulkscope_studio.cli.check", "whether a bulk is slower than another: an exit code for CI"),
    "runs": ("bulkscope_studio.cli.runs", "bulks kept under a name, to compare later ones with"),
    "export": ("bulkscope_studio.cli.export", "the jobs of a bulk as CSV, JSON, Parquet or Arrow"),
    "sql": ("bulkscope_studio.cli.sql", "a SELECT of what is stored, while the studio runs or afterwards"),
    "setup": ("bulkscope_studio.cli.setup", "apply what Elasticsearch and Kibana need"),
    "completion": ("bulkscope._completion", "commands and options on Tab, for bash, zsh and fish"),
}


def _usage() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {says}" for name, (_, says) in COMMANDS.items()]
    return "\n".join(
        ["usage: bulkscope COMMAND [ARGUMENTS]", "", "commands:", *lines, "", "bulkscope COMMAND --help tells more."]
    )


def main(argv: list[str] | None = None) -> int:
    """Run a subcommand and return its exit code; 2 is a usage error, 141 that nobody reads its output any more."""
    try:
        try:
            return _main(argv)
        finally:
            if sys.stdout is not None:  # closed by the caller
                sys.stdout.flush()
    except BrokenPipeError:  # of `| head`: what stands in the buffer must not be tried again at the exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


def _main(argv: list[str] | None) -> int:
    arguments = sys.argv[1:] if argv is None else argv
    if arguments[:1] in (["--version"], ["-V"]):
        print(f"bulkscope {__version__}")
        return 0
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_usage(), file=sys.stdout if arguments else sys.stderr)
        return 0 if arguments else 2
    name, rest = arguments[0], arguments[1:]
    if name not in COMMANDS:
        print(f"bulkscope: there is no command {name!r}\n\n{_usage()}", file=sys.stderr)
        return 2
    try:
        module = import_module(COMMANDS[name][0])
    except ModuleNotFoundError as error:
        print(
            f'bulkscope {name}: the package {error.name} is missing; install it with: pip install "bulkscope[studio]"',
            file=sys.stderr,
        )
        return 2
    return int(module.command(rest) or 0)


if __name__ == "__main__":
    sys.exit(main())
