"""What ``bulkscope capacity`` predicts of a system against what the system then does.

    python bench/capacity.py [--seconds N] [--jobs N] [--max-tokens N] [--keep FOLDER]

A sweep of the demo (real Valkey, API, Celery workers and model, all on this machine): first all jobs at once with 1 to
4 workers, then Poisson arrivals at 0.3 to 0.9 of what 2 workers sustained. Throughput with 2 and 4 workers is predicted
from the steps with 1 and 3 alone, waits at each rate from the steps in which all jobs came at once (also for a host as
fast as it was in the step), and from those of one rate. Beside the waits is what chance alone makes of such a step
(other arrivals, the same service times), and what the step's own arrivals and service times give, played through: what
that misses is the model's error.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import urllib.parse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402

from bulkscope_studio.analysis.statistics.simulation import replay  # noqa: E402
from bulkscope_studio.storage.store import Store  # noqa: E402
from demo import client, models, valkey  # noqa: E402
from demo.processes import Children, free_port  # noqa: E402

BIN = Path(sys.executable).parent
COUNTS, FITTED = (1, 2, 3, 4), (1, 3)
WORKERS = 2
SHARES = (0.3, 0.5, 0.7, 0.8, 0.9)
BASIS = 0.5  # the rate whose service times predict the waits at the others
LONGEST = 125  # characters of a prompt: a job then takes some 0.2 s, and a step holds many
CHANCES = 200  # steps drawn to see what chance makes of one
MODEL = "smollm2-135m-q4_1"
PLAN = """
name = "{name}"
limit = "2h"
seconds = "{seconds}s"
[workers]
command = ["celery", "-A", "demo.tasks", "worker", "-n", "w{{number}}@%h", "-P", "solo", "--loglevel", "INFO"]
directory = "{root}"
ready = "ready"
[request]
url = "{api}/bulks"
body = {{ bulkId = "{{request_id}}", model = "{model}", prompts = "{{prompts}}", max_tokens = {tokens} }}
prompts = "prompts.json"
"""


def started(children: Children, folder: Path) -> tuple[dict[str, str], str, str]:
    """Start studio, Valkey and API; return the environment of what talks to them, the page and the API."""
    page, otlp, grpc, broker, api = (free_port() for _ in range(5))
    env = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "DEMO_"))}
    env |= {"PATH": f"{BIN}{os.pathsep}{env.get('PATH', '')}", "DEMO_BROKER": f"redis://127.0.0.1:{broker}/0"}
    ports = ["--port", str(page), "--otlp-http-port", str(otlp), "--otlp-grpc-port", str(grpc)]
    words = [str(BIN / "bulkscope"), "studio", "--db", str(folder / "s.duckdb"), *ports]
    children.start("studio", words, env=env, cwd=ROOT, grace_s=20)
    children.start("valkey", valkey.command(broker, folder), env=env, cwd=folder)
    children.wait("Valkey", lambda: valkey.answers(broker), 30)
    web = f"http://127.0.0.1:{page}"
    children.wait("the studio", lambda: client.answers(f"{web}/api/bulks"), 60)
    words = [str(BIN / "bulkscope"), "run", "uvicorn", "demo.app:app", "--port", str(api), "--log-level", "warning"]
    children.start("api", words, env=env | {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{otlp}"}, cwd=ROOT)
    url = f"http://127.0.0.1:{api}"
    children.wait("the API", lambda: client.answers(f"{url}/healthz"), 60)
    return env, web, url


def swept(folder: Path, env: dict[str, str], plan: str, name: str, load: str) -> dict[str, Any]:
    """Run a sweep as a user does; return its JSON."""
    path = folder / f"{name}.toml"
    path.write_text(plan + load)
    words = [str(BIN / "bulkscope"), "capacity", "--sweep", str(path), "--db", str(folder / "s.duckdb")]
    done = subprocess.run([*words, "--format", "json"], env=env, stdout=subprocess.PIPE, text=True, check=True)
    return dict(json.loads(done.stdout))


def asked(web: str, bulks: Sequence[str], **more: object) -> dict[str, Any]:
    """Return what the studio says of some bulks."""
    query = [("bulk", bulk) for bulk in bulks] + [(name, str(value)) for name, value in more.items()]
    (pool,) = client.get(f"{web}/api/capacity?{urllib.parse.urlencode(query)}")["pools"]
    return dict(pool)


def jobs(db: Path, bulk: str) -> tuple[np.ndarray, np.ndarray]:
    """Return when each job of a bulk was sent, and how long it was worked on, in s."""
    store = Store(db, read_only=True)
    try:
        rows = store.query(
            "SELECT start_ns / 1e9 - wait AS sent, (end_ns - start_ns) / 1e9 AS service FROM spans"
            " WHERE bulk_id = $bulk AND kind = 'CONSUMER' ORDER BY sent",
            {"bulk": bulk},
        )
    finally:
        store.close()
    return rows["sent"].to_numpy(), rows["service"].to_numpy()


def closed(found: dict[str, Any], web: str) -> dict[int, float]:
    """Print throughput by worker count, measured and predicted; return the measured."""
    bulks = {step["workers"]: step["bulk"] for step in found["steps"]}
    (model,) = found["capacity"]["pools"][0]["models"]
    levels = {level["places"]: level for level in model["levels"]}
    if any(levels[n]["rate_per_s"] is None for n in COUNTS):
        raise SystemExit("a number of workers was not driven to its limit; give more --jobs")
    part = asked(web, [bulks[n] for n in FITTED])["models"][0]["scaling"]
    ceilings = {item["places"]: item for item in part["ceilings"]}
    print("| workers | jobs/s | interval | seconds a job | CPU-s a job | predicted from 1 and 3 | off |")
    print("|---:|---:|---|---:|---:|---:|---:|")
    for n in COUNTS:
        level = levels[n]
        rate = level["rate_per_s"]
        rest = "fitted | –"
        if n not in FITTED:
            most = ceilings[n]["most_per_s"]
            rest = f"{most:.2f}{' (cores)' if ceilings[n]['by_cores'] else ''} | {most / rate['value'] - 1:+.1%}"
        print(
            f"| {n} | {rate['value']:.2f} | {rate['low']:.2f} to {rate['high']:.2f} | {level['service_s']:.3f} | "
            f"{level['cpu_s']:.3f} | {rest} |"
        )
    return {n: float(levels[n]["rate_per_s"]["value"]) for n in COUNTS}


def _rate(step: dict[str, Any]) -> float:
    """Return the arrivals a second that came, or were asked for where they were too few to tell."""
    return float(step["rate_per_s"] or step["asked_rate_per_s"])


def opened(found: dict[str, Any], web: str, at_once: list[str], measured: float) -> list[tuple[str, str]]:
    """Return the bulk of each step, and its row: p95 of the waits, measured and predicted."""
    steps = found["steps"]
    basis = min(steps, key=lambda step: abs(_rate(step) / measured - BASIS))["bulk"]
    rows = []
    for step in steps:
        wait = step["wait"]["p95_s"]
        cells = []
        forecasts = [asked(web, bulks, rate=_rate(step), workers=WORKERS)["forecast"] for bulks in (at_once, [basis])]
        for sources, forecast in zip((at_once, [basis]), forecasts, strict=True):
            said = forecast["wait"]
            if step["bulk"] in sources or said is None:
                cells.append("– | –" if said is None else "fitted | –")
                continue
            low, high = said["p95_s"]["low"], said["p95_s"]["high"]
            ends = f" [{low:.2f} to {'∞' if high is None else f'{high:.2f}'}]"
            cells.append(f"{said['p95_s']['value']:.2f}{ends} | {said['p95_s']['value'] / wait - 1:+.0%}")
        cells.append(_at_its_speed(web, at_once, step, forecasts[0]["service_s"]))
        share = _rate(step) / measured
        head = f"| {_rate(step):.2f} | {share:.0%} | {step['jobs']} | {step['wait']['p50_s']:.2f} | {wait:.2f} | "
        rows.append((step["bulk"], head + " | ".join(cells)))
    return rows


def _at_its_speed(web: str, at_once: list[str], step: dict[str, Any], usual: float) -> str:
    """Return p95 as predicted for a host as fast as it was in the step: time is counted in seconds of a job there.

    ``usual`` is what a job takes where all come at once, in s.
    A virtual machine's cores are another's too: between steps they change by a tenth.
    """
    own = asked(web, [step["bulk"]])["models"][0]["now"]["service_s"]
    slower = own / usual
    said = asked(web, at_once, rate=_rate(step) * slower, workers=WORKERS)["forecast"]["wait"]
    if said is None:
        return "– | –"
    p95 = said["p95_s"]["value"] * slower
    return f"{p95:.2f} | {p95 / step['wait']['p95_s'] - 1:+.0%}"


def waits(db: Path, rows: list[tuple[str, str]], steps: list[dict[str, Any]]) -> None:
    """Print the rows of ``opened``, each with what chance does to it and its own arrivals played through."""
    random = np.random.default_rng(1)
    print(
        "\n| jobs/s | of capacity | jobs | wait p50, s | p95 | from all at once | off | from one rate | off | "
        "from all at once, at the host's speed then | off | p95 of 95 % of steps like it | seconds a job | replayed | "
        "off |"
    )
    print("|---:|---:|---:|---:|---:|---|---:|---|---:|---:|---:|---|---:|---:|---:|")
    for (bulk, row), step in zip(rows, steps, strict=True):
        arrivals, services = jobs(db, bulk)
        drawn = [
            _p95(
                np.cumsum(random.exponential(1 / _rate(step), len(services))),
                services[random.integers(0, len(services), len(services))],
            )
            for _ in range(CHANCES)
        ]
        low, high = np.quantile(drawn, (0.025, 0.975))
        p95 = _p95(arrivals, services)
        print(
            f"{row} | {low:.2f} to {high:.2f} | {np.mean(services):.3f} | {p95:.2f} | "
            f"{p95 / step['wait']['p95_s'] - 1:+.0%} |"
        )


def _p95(arrivals: np.ndarray, services: np.ndarray) -> float:
    return float(np.quantile(replay(arrivals, services, WORKERS).waits, 0.95))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=240, help="of each step with arrivals (default: 240)")
    parser.add_argument(
        "--jobs", type=int, default=150, help="for each worker of the steps with all at once (default: 150)"
    )
    parser.add_argument("--max-tokens", type=int, default=4, help="of each answer (default: 4)")
    parser.add_argument("--keep", type=Path, help="a folder for the store, the plans and the logs")
    given = parser.parse_args()
    models.prepare(lambda line: print(line, file=sys.stderr))
    with tempfile.TemporaryDirectory(prefix="bulkscope-bench-") as temporary:
        folder = given.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        children = Children(folder)
        children.catch_signals()
        try:
            env, web, api = started(children, folder)
            short = [
                prompt for prompt in json.loads((ROOT / "demo/prompts.json").read_text()) if len(prompt) <= LONGEST
            ]
            (folder / "prompts.json").write_text(json.dumps(short))
            plan = {"root": ROOT, "api": api, "model": MODEL, "tokens": given.max_tokens, "seconds": given.seconds}
            load = f"[closed]\nworkers = {list(COUNTS)}\njobs_per_worker = {given.jobs}\n"
            first = swept(folder, env, PLAN.format(name="counts", **plan), "counts", load)
            sustained = closed(first, web)[WORKERS]
            rates = [round(share * sustained, 3) for share in SHARES]
            load = f"[open]\nworkers = [{WORKERS}]\nrates = {rates}\n"
            second = swept(folder, env, PLAN.format(name="rates", **plan), "rates", load)
            rows = opened(second, web, [step["bulk"] for step in first["steps"]], sustained)
        finally:
            children.end(lambda line: print(line, file=sys.stderr))
        waits(folder / "s.duckdb", rows, second["steps"])
    return 0


if __name__ == "__main__":
    sys.exit(main())
