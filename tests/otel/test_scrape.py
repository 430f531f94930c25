"""Pages for Prometheus: one for each worker of a service, found through a folder, gone with its process."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from bulkscope._export import scrape
from tests.processes import BIN, environment, free_port, get, wait_for_line

Spawn = Callable[..., subprocess.Popen[str]]
REQUESTS = 20


def scraping(folder: Path, **extra: str) -> dict[str, str]:
    return environment(
        "http://127.0.0.1:1",
        OTEL_TRACES_EXPORTER="none",
        OTEL_LOGS_EXPORTER="none",
        OTEL_METRICS_EXPORTER="bulkscope_scrape",
        OTEL_EXPORTER_PROMETHEUS_PORT=str(free_port()),
        OTEL_SERVICE_NAME="shop",
        BULKSCOPE_SCRAPE_TARGETS=str(folder),
        **extra,
    )


def targets(folder: Path) -> dict[int, dict[str, Any]]:
    """Return by pid what the files say."""
    found = {}
    for file in folder.glob("*.json"):
        (found[int(file.stem.rpartition("@")[2])],) = json.loads(file.read_text())
    return found


def until(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def requests_counted(target: dict[str, Any]) -> int:
    text = get(f"http://{target['targets'][0]}/metrics").decode()
    counts = re.findall(r"^http_server_request_duration_seconds_count\{.*\} ([\d.]+)$", text, re.MULTILINE)
    return int(sum(float(count) for count in counts))


def test_several_workers_of_one_service(spawn: Spawn, tmp_path: Path) -> None:
    folder, port = tmp_path / "targets", free_port()
    command = ["gunicorn", "-w", "2", "-k", "uvicorn_worker.UvicornWorker", "-b", f"127.0.0.1:{port}", "app:app"]
    process = spawn(str(BIN / "bulkscope"), "run", *command, env=scraping(folder))
    for _ in range(2):  # before that, a worker that is told to end is just killed
        wait_for_line(process, "Application startup complete")
    until(lambda: len(targets(folder)) == 3)  # the master's too, which counts no requests
    for _ in range(REQUESTS):
        get(f"http://127.0.0.1:{port}/items/1")
    found = targets(folder)
    assert {target["labels"]["service_name"] for target in found.values()} == {"shop"}
    assert len({target["targets"][0] for target in found.values()}) == 3
    assert sum(requests_counted(target) for target in found.values()) == REQUESTS
    assert requests_counted(found[process.pid]) == 0
    process.terminate()
    output = process.communicate(timeout=30)[0]
    assert targets(folder) == {}, output


def test_what_a_killed_process_has_left_is_removed_by_the_next(spawn: Spawn, tmp_path: Path) -> None:
    folder = tmp_path / "targets"
    wait = "print('up', flush=True); import time; time.sleep(60)"
    for _ in range(2):
        process = spawn(str(BIN / "bulkscope"), "run", sys.executable, "-c", wait, env=scraping(folder))
        wait_for_line(process, "up")
        assert set(targets(folder)) == {process.pid}
        os.kill(process.pid, signal.SIGKILL)
        process.wait()


def test_a_taken_range_is_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    def taken(*where: Any) -> Any:
        raise OSError("address already in use")

    monkeypatch.setattr(scrape, "start_http_server", taken)
    monkeypatch.setenv("OTEL_EXPORTER_PROMETHEUS_PORT", "9000")
    scrape._Page(CollectorRegistry()).start()
    assert "9000 to 9099" in caplog.text


@pytest.mark.parametrize("text", ["x", "-1", "0", "70000", "65535"])
def test_a_port_that_is_none_is_said(text: str, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_PROMETHEUS_PORT", text)
    assert scrape._port() == 9464
    assert text in caplog.text


SHOP = """
import json, sys, time
import prometheus_client
from opentelemetry import metrics

metrics.get_meter("shop").create_counter("shop.seen").add(1)
prometheus_client.Counter("shop_orders", "Orders.").inc()
page = prometheus_client.generate_latest().decode().splitlines()
print(json.dumps([line if line[0] == "#" else line.rpartition(" ")[0] for line in page]), flush=True)
time.sleep(60 if "stay" in sys.argv else 0)
"""


def test_the_applications_own_page_does_not_change_by_a_line(spawn: Spawn, tmp_path: Path) -> None:
    folder = tmp_path / "targets"
    plain = subprocess.run([sys.executable, "-c", SHOP], capture_output=True, text=True, check=True).stdout
    assert '"shop_orders_total"' in plain
    process = spawn(str(BIN / "bulkscope"), "run", sys.executable, "-c", SHOP, "stay", env=scraping(folder))
    assert wait_for_line(process, "shop_orders").splitlines()[-1] == plain.rstrip()
    (target,) = targets(folder).values()
    ours = get(f"http://{target['targets'][0]}/metrics").decode()
    assert "shop_seen_total" in ours
    assert "target_info" in ours
    assert "shop_orders" not in ours
