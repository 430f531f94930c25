"""``./run stack init|up|down|status|logs``."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from stack import docker, envfile, passwords, preflight, status
from stack.services import ROOT, SCALED, BadPort, file_sums, port


def say(line: str, to: TextIO | None = None) -> None:
    """One line to whoever started it. Names in it come from elsewhere: no escape of theirs reaches the terminal."""
    print("".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in line), file=to, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "./run stack", description="Elasticsearch, Kibana, Prometheus and the Collector on this machine, by Docker."
    )
    parser.add_argument("--env-file", type=Path, default=ROOT / ".env", help="ports, retention (default: .env here)")
    parser.add_argument(
        "--file", type=Path, action="append", default=[], metavar="FILE", dest="files",
        help="a compose file to put on docker-compose.yml and docker-compose.override.yml; may be given again",
    )  # fmt: skip
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("init", help="write .env, and new passwords and keys; never changes one that is there")
    up = commands.add_parser("up", help="check this machine, then start the stack and wait until it is healthy")
    up.add_argument("--demo", action="store_true", help="start the demo's service as well")
    up.add_argument(
        "--scale", type=_scale, default=1, metavar=f"{SCALED}=NUMBER", dest="workers",
        help="start so many workers of the demo, and the demo with them",
    )  # fmt: skip
    up.add_argument("--no-checks", action="store_true", help="start even where this machine seems unfit")
    down = commands.add_parser("down", help="stop the stack; its data stays")
    down.add_argument("--volumes", action="store_true", help="delete all its data as well; asks first")
    down.add_argument("--yes", action="store_true", help="do not ask")
    commands.add_parser("status", help="ask every service how it is; exit code 1 when something is wrong")
    logs = commands.add_parser("logs", help="what the services wrote")
    logs.add_argument("-f", "--follow", action="store_true", help="go on until Ctrl-C")
    logs.add_argument("--tail", default="200", metavar="LINES", help="last lines of each (default: 200; or 'all')")
    logs.add_argument("services", nargs="*", metavar="SERVICE", help="only these (default: all)")
    return parser


def _scale(text: str) -> int:
    service, _, number = text.partition("=")
    if service != SCALED or not number.isascii() or not number.isdigit() or not 1 <= int(number) <= 1000:
        raise argparse.ArgumentTypeError(
            f"write {SCALED}=2: every other service publishes a port, and can run only once"
        )
    return int(number)


def init(given: argparse.Namespace) -> int:
    """Write the passwords and keys that are missing."""
    for line in envfile.init(given.env_file):
        say(line)
    return 0


def up(given: argparse.Namespace) -> int:
    """Start the stack; 1 when this machine is unfit, else Compose's exit code."""
    init(given)
    environ = _environ(given.env_file)
    demo = given.demo or given.workers > 1
    if not given.no_checks:
        found = list(preflight.problems(_project(given), environ, demo=demo, workers=given.workers))
        for problem in found:
            say(f"- {problem}")
        if found:
            say("Nothing was started. './run stack up --no-checks' tries all the same.")
            return 1
    # Into the file and not into Compose's environment alone: a plain `docker compose up` would find other sums, and
    # make the containers anew.
    envfile.note(given.env_file, file_sums())
    # --build costs seconds when nothing changed, and a `setup` from older code would be hard to notice.
    words = [*_project(given).words(demo=demo), "up", "--detach", "--wait", "--build"]
    if given.workers > 1:
        words += ["--scale", f"{SCALED}={given.workers}"]
    say(f"docker {shlex.join(words)}")
    code = docker.run(words)
    if code == 127:
        say("Docker is not installed: https://docs.docker.com/get-docker/")
    elif code:
        say(f"Compose ended with code {code}. './run stack status' says what is wrong, './run stack logs SERVICE' why.")
        if status.get(port("COLLECTOR_HEALTH_PORT", environ), "/").code == 200:
            say("Telemetry is taken all the same: the Collector is well.")
    else:
        kept = passwords.file(envfile.secrets_folder(given.env_file), "ELASTIC_PASSWORD")
        say(f"Kibana      http://localhost:{port('KIBANA_PORT', environ)}  (user elastic, password in {kept})")
        say(f"Prometheus  http://localhost:{port('PROMETHEUS_PORT', environ)}")
        say(f"OTLP        http://127.0.0.1:{port('OTLP_HTTP_PORT', environ)}, where 'bulkscope run' sends to")
        if demo:
            say(f"Demo's API  http://localhost:{port('API_PORT', environ)}/docs")
    return code


def down(given: argparse.Namespace) -> int:
    """Stop the stack; with ``--volumes``, and only after a yes, delete its data."""
    if given.volumes and not given.yes:
        say("This deletes all traces, logs, metrics, dashboards and undelivered telemetry of the stack, for good.")
        try:
            answer = input("Type 'delete' to go on: ")
        except (EOFError, KeyboardInterrupt):
            answer = ""
        if answer.strip() != "delete":
            say("Nothing was stopped or deleted.")
            return 1
    # The profile, so that the demo's services stop as well.
    words = [*_project(given).words(demo=True), "down", *(["--volumes"] if given.volumes else [])]
    return _docker(words)


def show_status(given: argparse.Namespace) -> int:
    """Print the state of every service; 1 when one that should run does not."""
    environ = _environ(given.env_file)
    wrong = 0
    password = passwords.read(envfile.secrets_folder(given.env_file), "ELASTIC_PASSWORD")
    said = {service: docker.logged(_project(given), service) for service in status.SETUPS}
    for state in status.all_states(environ, password, docker.containers(_project(given)), said):
        mark = "ok" if state.ok else "--" if not state.expected else "!!"
        wrong += mark == "!!"
        say(f"{mark}  {state.service:<14} {state.words}")
        if state.todo:
            say(f"    {'':<14} {state.todo}")
    return 1 if wrong else 0


def logs(given: argparse.Namespace) -> int:
    """Show what the services wrote."""
    follow = ["--follow"] if given.follow else []
    return _docker([*_project(given).words(demo=True), "logs", "--tail", given.tail, *follow, *given.services])


def _docker(words: Sequence[str]) -> int:
    code = docker.run(words)
    if code == 127:
        say("Docker is not installed: https://docs.docker.com/get-docker/")
    return code


def _project(given: argparse.Namespace) -> docker.Project:
    return docker.Project(given.env_file, tuple(given.files))


def _environ(path: Path) -> dict[str, str]:
    # As Compose: what the shell has set wins over the file.
    return envfile.read(path) | dict(os.environ)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; 2 is a usage error."""
    given = _parser().parse_args(argv)
    given.env_file = given.env_file.expanduser().absolute()
    given.files = [file.expanduser().absolute() for file in given.files]
    for file in given.files:
        if not file.is_file():
            say(f"./run stack: there is no file {file}, which --file names", sys.stderr)
            return 2
    command = {"init": init, "up": up, "down": down, "status": show_status, "logs": logs}[given.command]
    try:
        return command(given)
    except (envfile.EnvFileError, passwords.PasswordError, BadPort) as error:
        say(f"./run stack: {error}", sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
