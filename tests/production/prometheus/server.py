"""A real Prometheus with the project's configuration, on free ports of the loopback address."""

from __future__ import annotations

import json
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.engines.binaries import binary
from tests.processes import PATIENCE_S, free_port

FOLDER = Path(__file__).resolve().parents[3] / "prometheus"
Sample = tuple[dict[str, str], float]


@dataclass
class Prometheus:
    """One that runs; ``otlp`` is where metrics are posted to.

    ``at`` is the time that queries ask for, in seconds since the epoch; None is now, and what ``wait`` asks for always.
    """

    url: str
    log: Path
    at: float | None = None

    @property
    def otlp(self) -> str:
        return f"{self.url}/api/v1/otlp/v1/metrics"

    def get(self, path: str, **fields: str) -> Any:
        """Return ``data`` of an answer of the HTTP API; its error fails the test."""
        query = f"?{urllib.parse.urlencode(fields)}" if fields else ""
        try:
            with urllib.request.urlopen(f"{self.url}/api/v1/{path}{query}", timeout=30) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{path} {fields}: {error.read().decode()}") from error

    def query(self, expression: str) -> list[Sample]:
        """Return labels, without the name, and value of each sample."""
        return self._samples(expression, {} if self.at is None else {"time": str(self.at)})

    def _samples(self, expression: str, when: dict[str, str]) -> list[Sample]:
        found = self.get("query", query=expression, **when)["result"]
        return [
            ({name: value for name, value in sample["metric"].items() if name != "__name__"}, float(sample["value"][1]))
            for sample in found
        ]

    def wait(
        self, expression: str, ready: Callable[[list[Sample]], bool] = bool, seconds: float = PATIENCE_S
    ) -> list[Sample]:
        """Ask until ``ready`` is content with the answer; fails with the last one when it never is."""
        deadline = time.monotonic() + seconds
        while True:
            found = self._samples(expression, {})
            if ready(found):
                return found
            if time.monotonic() > deadline:
                raise AssertionError(f"{expression}: {found}\n{self.log.read_text()[-2000:]}")
            time.sleep(0.2)


def _backfill(data: Path) -> None:
    """Write half an hour of ``bulkscope:rules:alive``, as of a Prometheus that has been evaluating the rules.

    One that has just begun takes no series for new, rightly; a test would have to wait for seven minutes.
    """
    now = int(time.time())
    lines = [f"bulkscope:rules:alive 1 {at}\n" for at in range(now - 1800, now - 30, 15)]
    history = data.parent / "history.txt"
    history.write_text("# TYPE bulkscope:rules:alive gauge\n" + "".join(lines) + "# EOF\n")
    command = [binary("promtool"), "tsdb", "create-blocks-from", "openmetrics", history, data]
    subprocess.run(command, check=True, capture_output=True)


def configuration(folder: Path, targets: dict[str, str]) -> Path:
    """Write ``prometheus.yml`` with what must differ here; return its path.

    That is how often (1 s), and who is scraped: ``targets`` has the address by job. Rule files are the project's own.
    """
    config = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["rule_files"] = [str(FOLDER / name) for name in config["rule_files"]]
    for job in config["scrape_configs"]:
        if "static_configs" in job:
            job["static_configs"] = [{"targets": [targets.get(job["job_name"], "127.0.0.1:1")]}]
    (folder / "targets").mkdir()
    path = folder / "prometheus.yml"
    path.write_text(yaml.safe_dump(config))
    return path


@contextmanager
def serve(folder: Path, targets: dict[str, str]) -> Iterator[Prometheus]:
    """Run Prometheus with its files in ``folder`` until the block ends."""
    address = f"127.0.0.1:{free_port()}"
    path = configuration(folder, {"prometheus": address, **targets})
    data = folder / "data"
    _backfill(data)
    log = folder / "prometheus.log"
    command = [
        binary("prometheus"),
        f"--config.file={path}",
        f"--web.listen-address={address}",
        f"--storage.tsdb.path={data}",
        "--web.enable-otlp-receiver",
    ]
    with log.open("w") as output, subprocess.Popen(command, stdout=output, stderr=output) as process:
        server = Prometheus(f"http://{address}", log)
        try:
            _wait_until_ready(server, process)
            yield server
        finally:
            process.terminate()


def _wait_until_ready(server: Prometheus, process: subprocess.Popen[bytes]) -> None:
    while True:
        try:
            with urllib.request.urlopen(f"{server.url}/-/ready", timeout=5):
                return
        except OSError:
            assert process.poll() is None, server.log.read_text()
            time.sleep(0.05)
