"""What telemetry adds to a start: CPU seconds and resident memory of a FastAPI service that is ready.

    python bench/startup.py [--repeats N]

The variants are those of ``overhead.py`` and take turns. Start-up is the CPU clock of the server's process when it
says that it serves; memory is its resident set then, and again after 1,000 requests. Medians of differences to
no telemetry within a repeat.
"""

from __future__ import annotations

import argparse
import os
import socket
import statistics
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from bench.overhead import APPS, UVICORN, Variant, ask, cpu_seconds, environment, started, variants  # noqa: E402


def resident(pid: int) -> int:
    """Return the resident bytes of a process."""
    with open(f"/proc/{pid}/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def measure(variant: Variant, endpoint: str) -> tuple[float, float, float]:
    """Return CPU seconds at the start, and MiB resident then and after 1,000 requests."""
    with started(
        [*variant.command, *UVICORN], environment(variant, endpoint, 1), r"running on http://[\d.]+:(\d+)"
    ) as (
        pid,
        port,
    ):
        cpu, first = cpu_seconds(pid), resident(pid)
        with socket.create_connection(("127.0.0.1", port)) as connection:
            ask(connection, 1000)
        return cpu, first / 2**20, resident(pid) / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    compared = variants()
    found: dict[str, list[tuple[float, float, float]]] = {variant.name: [] for variant in compared}
    with started([sys.executable, str(APPS / "sink.py")], dict(os.environ), r"^(\d+)$") as (_, port):
        for repeat in range(repeats + 1):
            for number, variant in enumerate(compared):
                print(f"repeat {repeat}/{repeats}, {variant.name}", file=sys.stderr)
                measured = measure(variant, f"http://127.0.0.1:{port}/{number}")
                if repeat:  # the first start writes the bytecode
                    found[variant.name].append(measured)
    print("| variant | start, CPU s | added s | resident, MiB | added | after 1,000 requests | added |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    none = found[compared[0].name]
    for variant in compared:
        cells = []
        for place, form in ((0, "{:.2f}"), (1, "{:.0f}"), (2, "{:.0f}")):
            values = [each[place] for each in found[variant.name]]
            more = [value - base[place] for value, base in zip(values, none, strict=True)]
            cells += [form.format(statistics.median(values))]
            cells += ["–" if variant is compared[0] else form.format(statistics.median(more))]
        print(f"| {variant.name} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
