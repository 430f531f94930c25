"""The ``bulkscope`` command: finds its subcommands among the entry points ``bulkscope.commands``."""

from __future__ import annotations

import sys
from importlib.metadata import entry_points

from bulkscope import __version__

_HELP = {
    "run": "run a command with telemetry switched on",
    "doctor": "why telemetry does or does not arrive, and what to do",
    "studio": "receive telemetry and show it on a web page",
    "report": "the thirteen numbers of one bulk",
    "bulks": "the bulks in the store",
    "explain": "what held a bulk up, with the evidence",
    "capacity": "what the system sustains, and with how many workers",
    "compare": "two models, runs or settings, number by number",
    "runs": "bulks kept under a name, to compare later ones with",
    "setup": "apply what Elasticsearch and Kibana need",
}


def _usage(names: list[str]) -> str:
    lines = ["usage: bulkscope COMMAND [ARGUMENTS]", "", "commands:"]
    width = max(map(len, names), default=0)
    lines += [f"  {name:<{width}}  {_HELP.get(name, '')}".rstrip() for name in names]
    return "\n".join([*lines, "", "bulkscope COMMAND --help tells more."])


def main(argv: list[str] | None = None) -> int:
    """Run a subcommand and return its exit code; 2 is a usage error."""
    arguments = sys.argv[1:] if argv is None else argv
    commands = {point.name: point for point in entry_points(group="bulkscope.commands")}
    names = sorted(commands, key=lambda name: (list(_HELP).index(name) if name in _HELP else len(_HELP), name))
    if arguments[:1] in (["--version"], ["-V"]):
        print(f"bulkscope {__version__}")
        return 0
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_usage(names), file=sys.stdout if arguments else sys.stderr)
        return 0 if arguments else 2
    name, rest = arguments[0], arguments[1:]
    if name not in commands:
        print(f"bulkscope: there is no command {name!r}\n\n{_usage(names)}", file=sys.stderr)
        return 2
    try:
        command = commands[name].load()
    except ModuleNotFoundError as error:
        print(
            f'bulkscope {name}: the package {error.name} is missing; install it with: pip install "bulkscope[studio]"',
            file=sys.stderr,
        )
        return 2
    return int(command(rest) or 0)


if __name__ == "__main__":
    sys.exit(main())
