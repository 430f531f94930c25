"""The command line of ``bulkscope setup``: options and environment in, steps run, exit code out."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from pathlib import Path

from bulkscope_studio.rendering.output import say
from bulkscope_studio.setup import elasticsearch, kibana, plan, session
from bulkscope_studio.setup.apply import CHANGING, Outcome, lines, run

EPILOG = """environment:
  ELASTICSEARCH_URL       default http://127.0.0.1:9200
  KIBANA_URL              default http://127.0.0.1:5601; with /s/SPACE for another space than the default
  ELASTIC_PASSWORD        of the user elastic; where there is none,
  ELASTICSEARCH_API_KEY   an encoded key with the rights of an administrator (it cannot make other keys)
  KIBANA_SYSTEM_PASSWORD  is given to the user kibana_system
  TRACES_RETENTION, LOGS_RETENTION, METRICS_RETENTION  as the options
Each secret may be in a file that its name with _FILE names. Secrets are never arguments and never shown.

exit codes: 0 done, or nothing to do; 1 failed, or one dashboard was refused, the message says what to do;
2 wrong usage"""


def _parser(variables: Mapping[str, str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bulkscope setup",
        description="Bring Elasticsearch and Kibana to what Bulkscope needs: templates, retention, roles, API keys, "
        "data views and dashboards. It may be run at any time: what is right stays as it is, no data is deleted.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--dry-run", action="store_true", help="show what would be done, and change nothing")
    parser.add_argument("--only", choices=("elasticsearch", "kibana"), help="do one half")
    parser.add_argument("--wait", type=float, default=180, metavar="SECONDS", help="how long to wait for each (180)")
    for signal in plan.SIGNALS:
        default = variables.get(f"{signal.upper()}_RETENTION") or None
        parser.add_argument(
            f"--{signal}-retention", default=default, metavar="DURATION", help=f"how long {signal} are kept, as 14d"
        )
    parser.add_argument(
        "--shorten-retention", action="store_true", help="also where data streams hold older data, which is deleted"
    )
    parser.add_argument("--rollover", action="store_true", help="roll over data streams whose mapping is an older one")
    parser.add_argument(
        "--exporter",
        choices=("otlp", "bulk"),
        default="otlp",
        help=f"how the Collector writes: otlp (Elasticsearch 9.5), or bulk ({elasticsearch.OVERLAY}, from 8.19)",
    )
    for role, use in (("collector", "the Collector's"), ("reader", "a reader's"), ("publisher", "a publisher's")):
        parser.add_argument(f"--{role}-key-file", type=Path, metavar="FILE", help=f"where {use} API key is written")
    parser.add_argument("--rotate-keys", action="store_true", help="make new keys; the old ones end a day later")
    parser.add_argument("--print-keys", action="store_true", help="print the keys that the files hold")
    parser.add_argument(
        "--force-dashboards", action="store_true", help="put dashboards back that were edited in Kibana"
    )
    parser.add_argument(
        "--ndjson", type=Path, metavar="FILE", help="write data views and dashboards for an import by hand"
    )
    parser.add_argument(
        "--files", type=Path, metavar="FOLDER", help="holds elasticsearch/ and kibana/, if not the usual"
    )
    parser.add_argument("--ca", type=Path, metavar="FILE", help="certificate of the authority, in PEM")
    return parser


def command(argv: list[str]) -> int:
    """Run ``bulkscope setup``; 0 done or unchanged, 1 failed, 2 wrong usage."""
    variables = os.environ
    options = _parser(variables).parse_args(argv)
    steps = {
        "elasticsearch": elasticsearch.STEPS,
        "kibana": kibana.STEPS,
        None: (*elasticsearch.STEPS, *kibana.STEPS),
    }[options.only]
    try:
        made = session.made(options, variables, say)
    except (session.Usage, session.BadEnvironment, plan.BadPlan) as error:
        say(f"bulkscope setup: {error}", error=True)
        return 2

    def report(outcome: Outcome) -> None:
        for line in lines(outcome, made.dry_run):
            say(line)

    try:
        done = run(made, steps, report)
    except (session.Trouble, plan.BadPlan) as error:
        say(f"bulkscope setup: {error}", error=True)
        return 1
    say(summary(done, made.dry_run))
    if any(outcome.state == "failed" for outcome in done):
        say(f"bulkscope setup: {failure(done)}", error=True)
        return 1
    return 0


def failure(done: list[Outcome]) -> str:
    """Return what was refused, why the first was, and what to do; the lines above have the reason of each."""
    failed = [outcome for outcome in done if outcome.state == "failed"]
    return (
        f"refused: {', '.join(outcome.subject for outcome in failed)} ({failed[0].details[0]}). The rest is done, and "
        "telemetry is taken without it; 'bulkscope setup --only kibana' tries again"
    )


def summary(done: list[Outcome], dry_run: bool) -> str:
    """Return the last line: how much was, or would be, changed."""
    changes = sum(outcome.state in CHANGING for outcome in done)
    if not changes:
        return "nothing was changed" if any(outcome.state == "failed" for outcome in done) else "unchanged"
    if dry_run:
        return f"{changes} to change; nothing was changed (--dry-run)"
    return f"done, {changes} changed"
