"""Nothing recorded is lost when a process ends. With the flush removed, each of these fails: the batch
processors' delay is ten minutes, so only a flush at the end can deliver anything."""

from __future__ import annotations

import signal
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bulkscope import _lifecycle
from tests.processes import BIN, environment, free_port, get, wait_for_line, wait_for_listener
from tests.sink import Sink

Spawn = Callable[..., Any]

SERVERS = {
    "uvicorn": ("uvicorn", "app:app", "--port"),
    "uvicorn with two workers": ("uvicorn", "app:app", "--workers", "2", "--port"),
    "gunicorn": ("gunicorn", "app:app", "-k", "uvicorn_worker.UvicornWorker", "--workers", "2", "--bind"),
}


def serve_and_ask(spawn: Spawn, command: tuple[str, ...], env: dict[str, str], launcher: tuple[str, ...]) -> Any:
    port = free_port()
    where = f"127.0.0.1:{port}" if command[-1] == "--bind" else str(port)
    process = spawn(*launcher, str(BIN / command[0]), *command[1:], where, env=env)
    wait_for_listener(port)
    for number in range(5):
        assert get(f"http://127.0.0.1:{port}/items/{number}") == b'{"item":%d}' % number
    process.send_signal(signal.SIGTERM)
    output = process.communicate(timeout=60)[0]
    assert "Traceback" not in output, output
    return process


def requests_of(sink: Sink) -> int:
    return sum(span["name"] == "GET /items/{item}" for span in sink.spans)


@pytest.mark.parametrize("name", SERVERS)
def test_server_on_sigterm(name: str, sink: Sink, spawn: Spawn) -> None:
    serve_and_ask(spawn, SERVERS[name], environment(sink.url), (str(BIN / "bulkscope"), "run"))
    assert requests_of(sink) == 5
    durations = [point for point in sink.points if point["name"] == "http.server.request.duration"]
    assert sum(point["count"] for point in durations) == 5


def test_opentelemetry_instrument_gives_the_same(sink: Sink, spawn: Spawn) -> None:
    """Without any distribution: the SDK is configured by the pre-instrument hook."""
    env = environment(sink.url, OTEL_PYTHON_DISTRO="none", OTEL_PYTHON_CONFIGURATOR="none")
    serve_and_ask(spawn, SERVERS["uvicorn"], env, (str(BIN / "opentelemetry-instrument"),))
    assert requests_of(sink) == 5
    assert {span["kind"] for span in sink.spans} == {2}


def test_the_distribution_of_opentelemetry(sink: Sink, spawn: Spawn) -> None:
    """With one: its configuration is taken as it is, and contrib's own instrumentor stays quiet."""
    env = environment(sink.url, OTEL_EXPORTER_OTLP_PROTOCOL="http/protobuf")
    serve_and_ask(spawn, SERVERS["uvicorn"], env, (str(BIN / "opentelemetry-instrument"),))
    assert requests_of(sink) == len(sink.spans) == 5


def test_contrib_by_a_setting(sink: Sink, spawn: Spawn) -> None:
    env = environment(sink.url, BULKSCOPE_FASTAPI="contrib")
    serve_and_ask(spawn, SERVERS["uvicorn"], env, (str(BIN / "bulkscope"), "run"))
    assert {span["scope"] for span in sink.spans} == {"opentelemetry.instrumentation.fastapi"}


def test_exit_status_is_the_applications_own(sink: Sink, spawn: Spawn, tmp_path: Path) -> None:
    # Not signal.pause(): a handler runs between steps of Python, never when the signal comes as pause() begins.
    (tmp_path / "job.py").write_text("import time\nprint('ready', flush=True)\nwhile True:\n    time.sleep(0.05)\n")
    process = spawn(str(BIN / "bulkscope"), "run", sys.executable, "job.py", env=environment(sink.url))
    wait_for_line(process, "ready")
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == -signal.SIGTERM
    assert any(point["name"] == "process.memory.usage" for point in sink.points)


@pytest.mark.parametrize("leave", ["sys.exit(3)", "os._exit(3)", "raise SystemExit(3)"])
def test_normal_exit(leave: str, sink: Sink, spawn: Spawn, tmp_path: Path) -> None:
    (tmp_path / "job.py").write_text(
        "import logging, os, sys\n"
        "logging.basicConfig(level=logging.INFO)\n"
        f"logging.getLogger('mine').info('the last line')\n{leave}\n"
    )
    process = spawn(str(BIN / "bulkscope"), "run", sys.executable, "job.py", env=environment(sink.url))
    process.communicate(timeout=60)
    assert process.returncode == 3
    assert [log["body"] for log in sink.logs] == ["the last line"]


def test_forked_child_counts_for_itself(sink: Sink, spawn: Spawn, tmp_path: Path) -> None:
    """Parent and child each report what they did, under an instance id of their own."""
    (tmp_path / "job.py").write_text(
        "import os, sys\n"
        "from opentelemetry import metrics\n"
        "done = metrics.get_meter('mine').create_counter('done')\n"
        "done.add(2)\n"
        "pid = os.fork()\n"
        "done.add(1 if pid == 0 else 10)\n"
        "if pid == 0: os._exit(0)\n"
        "os.waitpid(pid, 0)\n"
    )
    process = spawn(str(BIN / "bulkscope"), "run", sys.executable, "job.py", env=environment(sink.url))
    output = process.communicate(timeout=60)[0]
    assert process.returncode == 0, output
    points = [point for point in sink.points if point["name"] == "done"]
    assert sorted(point["value"] for point in points) == [1, 12]
    assert len({point["resource"]["service.instance.id"] for point in points}) == 2
    assert len({point["resource"]["process.pid"] for point in points}) == 2


def test_forked_child_lets_go_of_every_connection(sink: Sink, spawn: Spawn, tmp_path: Path) -> None:
    # Two processes that write on one connection send each other's requests in pieces.
    (tmp_path / "fork.py").write_text(
        "import logging, os, socket\n"
        "from opentelemetry import metrics, trace\n"
        "from bulkscope import _lifecycle\n"
        "def connections():\n"
        "    found = []\n"
        "    for number in os.listdir('/proc/self/fd'):\n"
        "        try:\n"
        "            found.append(socket.socket(fileno=os.dup(int(number))).getpeername()[1])\n"
        "        except OSError:\n"
        "            pass\n"
        f"    return found.count({sink.url.rpartition(':')[2]})\n"
        "metrics.get_meter('x').create_counter('c').add(1)\n"
        "trace.get_tracer('x').start_span('s').end()\n"
        "logging.getLogger('x').addHandler(logging.NullHandler())\n"
        "logging.getLogger('x').warning('w')\n"
        "assert _lifecycle.flush()\n"
        "print('parent', connections(), flush=True)\n"
        "pid = os.fork()\n"
        "if pid == 0:\n"
        "    print('child', connections(), flush=True)\n"
        "    os._exit(0)\n"
        "os.waitpid(pid, 0)\n"
    )
    process = spawn(
        str(BIN / "bulkscope"), "run", sys.executable, "fork.py", env=environment(sink.url, PYTHONWARNINGS="ignore")
    )
    assert process.communicate(timeout=60)[0].splitlines() == ["parent 3", "child 0"]


def test_nothing_listens(spawn: Spawn, tmp_path: Path) -> None:
    """An end point that is down: the process ends by itself, with its own status, in bounded time."""
    (tmp_path / "job.py").write_text("import logging\nlogging.warning('x')\nprint('done', flush=True)\n")
    env = environment(f"http://127.0.0.1:{free_port()}", BULKSCOPE_FLUSH_TIMEOUT="1")
    process = spawn(str(BIN / "bulkscope"), "run", sys.executable, "job.py", env=env)
    output = process.communicate(timeout=30)[0]
    assert process.returncode == 0
    assert "done" in output
    assert f"logs lost at the end of the process, not delivered to {env['OTEL_EXPORTER_OTLP_ENDPOINT']}: 1" in output


AWAY = """
import os, sys
import bulkscope

pid = os.fork()
if pid == 0:
    for n in range(3):
        with bulkscope.dequeue("q", job_id=str(n)):
            pass
    os._exit(7)
print("child ended with", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


@pytest.mark.parametrize("away", ["nobody listens", "nobody answers", "503"])
def test_a_work_horse_says_what_it_takes_with_it(away: str, sink: Sink, spawn: Spawn) -> None:
    """A child that leaves by ``os._exit`` while the end point is away ends in bounded time, with its own status."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        sink.answers += [(503, {"Retry-After": "60"}, b"")] * 100
        url = {
            "nobody listens": f"http://127.0.0.1:{free_port()}",
            "nobody answers": f"http://127.0.0.1:{listener.getsockname()[1]}",
            "503": sink.url,
        }[away]
        env = environment(url, BULKSCOPE_FLUSH_TIMEOUT="1", OTEL_EXPORTER_OTLP_TIMEOUT="3600")
        process = spawn(str(BIN / "bulkscope"), "run", sys.executable, "-c", AWAY, env=env)
        output = process.communicate(timeout=60)[0]
    assert "child ended with 7" in output
    assert f"traces lost at the end of the process, not delivered to {url}: 3" in output
    assert sink.spans == []


REPAIRS = """
import os, sys
import bulkscope
from bulkscope import _lifecycle

broken = int(sys.argv[1])

def fails():
    raise RuntimeError("a repair that fails")

done = []
def noted(repair):
    def run():
        done.append(repair)
        repair()
    return run

_lifecycle._REPAIRS = tuple(fails if n == broken else noted(repair) for n, repair in enumerate(_lifecycle._REPAIRS))
pid = os.fork()
if pid == 0:
    with bulkscope.dequeue("q", job_id="child"):
        pass
    print("repairs", len(done), flush=True)
    os._exit(0)
os.waitpid(pid, 0)
"""


@pytest.mark.parametrize("broken", range(len(_lifecycle._REPAIRS)))
def test_one_repair_that_fails_after_a_fork_leaves_the_others(broken: int, sink: Sink, spawn: Spawn) -> None:
    process = spawn(
        str(BIN / "bulkscope"), "run", sys.executable, "-c", REPAIRS, str(broken), env=environment(sink.url)
    )
    output = process.communicate(timeout=60)[0]
    assert process.returncode == 0, output
    assert f"repairs {len(_lifecycle._REPAIRS) - 1}" in output
    assert "a repair that fails" in output
    assert [span["attributes"]["bulk.job.id"] for span in sink.spans] == ["child"]


LATE = """
import time

time.sleep(1)


class NetrcParseError(Exception):
    pass


class netrc:
    def __init__(self, file):
        pass

    def authenticators(self, host):
        return None
"""
FORKS = """
import logging, os, sys, time
import bulkscope

logging.getLogger("app").warning("the first thing that is sent")
sending = lambda: any(name == "netrc" for name in sys.modules)
while not sending():
    time.sleep(0.001)
if os.fork() == 0:
    with bulkscope.dequeue("q", job_id="child"):
        pass
    os._exit(0)
os.wait()
"""


def test_a_child_forked_while_the_first_export_imports(sink: Sink, spawn: Spawn, tmp_path: Path) -> None:
    """``requests`` imports ``netrc`` with its first request; here that takes a second, in which a child is forked."""
    (tmp_path / "netrc.py").write_text(LATE)
    official = {f"OTEL_{signal}_EXPORTER": "otlp" for signal in ("TRACES", "METRICS", "LOGS")}
    env = environment(sink.url, OTEL_BLRP_SCHEDULE_DELAY="50", **official)
    process = spawn(str(BIN / "bulkscope"), "run", sys.executable, "-c", FORKS, env=env)
    output = process.communicate(timeout=60)[0]
    assert process.returncode == 0, output
    assert [span["attributes"]["bulk.job.id"] for span in sink.spans] == ["child"]


IMPORTS = """
import logging, sys
from opentelemetry import metrics
import bulkscope

with bulkscope.dequeue("q", job_id="1"):
    logging.getLogger("app").warning("something to send")
before = set(sys.modules)
from bulkscope import _lifecycle
assert _lifecycle.flush(30)
print("imported:", sorted(set(sys.modules) - before))
"""


def test_our_exporters_import_nothing_when_they_send(sink: Sink, spawn: Spawn) -> None:
    process = spawn(str(BIN / "bulkscope"), "run", sys.executable, "-c", IMPORTS, env=environment(sink.url))
    output = process.communicate(timeout=60)[0]
    assert sink.spans, output
    assert sink.logs, output
    assert sink.points, output
    assert "imported: []" in output


LOCKED = """
import os, threading
import bulkscope
from bulkscope._export import pipeline

with bulkscope.dequeue("q", job_id="parent"):
    pass
provider = pipeline.providers()["metrics"]
consumer = provider._measurement_consumer
(reader,) = pipeline.processors("metrics", provider)
locks = [consumer._lock, reader._export_lock, *(storage._lock for storage in consumer._reader_storages.values())]
held, go_on = threading.Event(), threading.Event()

def collecting():  # what a collection and an export in a thread of the parent hold
    for lock in locks:
        lock.acquire()
    held.set()
    go_on.wait()
    for lock in locks:
        lock.release()

threading.Thread(target=collecting, daemon=True).start()
held.wait()
child = os.fork()
if child == 0:
    with bulkscope.dequeue("q", job_id="child"):
        pass
    os._exit(0)
print("child ended with", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
go_on.set()
"""


def test_a_child_forked_while_metrics_are_collected_and_exported(sink: Sink, spawn: Spawn) -> None:
    process = spawn(str(BIN / "bulkscope"), "run", sys.executable, "-c", LOCKED, env=environment(sink.url))
    output = process.communicate(timeout=60)[0]
    assert "child ended with 0" in output
    assert {span["attributes"]["bulk.job.id"] for span in sink.spans} == {"parent", "child"}
    processes = {
        point["resource"]["process.pid"] for point in sink.points if point["name"] == "messaging.process.duration"
    }
    assert len(processes) == 2


@pytest.mark.parametrize(("text", "seconds"), [("inf", threading.TIMEOUT_MAX), ("nan", 5.0), ("-1", 0.0), ("x", 5.0)])
def test_odd_bounds_of_the_flush(text: str, seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BULKSCOPE_FLUSH_TIMEOUT", text)
    assert _lifecycle.flush_seconds() == seconds


TWICE = """
from opentelemetry.instrumentation.auto_instrumentation import initialize
initialize()
import bulkscope
with bulkscope.dequeue("q", job_id="1"):
    pass
"""


def test_initialising_a_second_time_changes_nothing(sink: Sink, spawn: Spawn) -> None:
    process = spawn(str(BIN / "bulkscope"), "run", sys.executable, "-c", TWICE, env=environment(sink.url))
    output = process.communicate(timeout=60)[0]
    assert "could not record" not in output
    assert len(sink.spans) == 1
