"""``bulkscope whatif``: a bulk played again with other workers, another order or a faster model."""

from __future__ import annotations

import argparse

from bulkscope_studio.cli import options, running
from bulkscope_studio.rendering import whatif
from bulkscope_studio.rendering.output import Output
from bulkscope_studio.sources.source import ORDERS, Change


def command(argv: list[str]) -> int:
    """Run ``bulkscope whatif``; 0 when printed, 2 when there is no such bulk or it cannot be played."""
    parser = argparse.ArgumentParser(
        "bulkscope whatif",
        description="What a bulk that has ended would have taken under a change, and which combination ends first.",
        epilog="Its own jobs are played again, with their times of arrival, work, gaps and cold starts.",
    )
    options.bulk(parser)
    parser.add_argument("--workers", type=int, help="so many workers")
    parser.add_argument("--threads", type=int, help="so many concurrency slots a worker")
    parser.add_argument("--prefetch", type=int, help="1: a worker takes a job only when it is free")
    parser.add_argument("--order", choices=ORDERS, help="the longest job goes first")
    parser.add_argument("--preload", action="store_true", help="the model is loaded before a worker's first job")
    parser.add_argument("--speed", type=float, metavar="TIMES", help="times as fast, such as 1.3 for a cheaper model")
    options.output(parser, "md")
    options.source(parser)
    given = parser.parse_args(argv)
    change = Change(given.workers, given.threads, given.prefetch, given.order, given.preload, given.speed)
    return running.run(
        "whatif", given, lambda source: source.whatif(given.bulk, change),
        lambda found: whatif.text(found, Output()), whatif.markdown,
    )  # fmt: skip
