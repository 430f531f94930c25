"""CPU and memory of an engine in another process, against what that process says of itself."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from bulkscope._host import ledger, processes, sockets
from bulkscope._host.engine import Engine, Engines, engines
from bulkscope_instrumentation.openai import OpenaiInstrumentor
from tests.telemetry import Telemetry

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="this machine cannot: it has no /proc")
PROC = Path("/proc")
SERVER = Path(__file__).with_name("engine_server.py")
# Reading a request, writing the answer: the engine's CPU, and not the handler thread's between its two readings.
AROUND_S = 0.02


@dataclass
class Served:
    process: subprocess.Popen[bytes]
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ask(self, **asked: float) -> dict[str, Any]:
        found: dict[str, Any] = httpx.post(f"{self.url}/ask", json=asked, timeout=60).json()
        return found


def start(folder: Path) -> Served:
    note = folder / "port"
    process = subprocess.Popen([sys.executable, str(SERVER), str(note)])
    while not note.exists():
        assert process.poll() is None
        time.sleep(0.01)
    return Served(process, int(note.read_text()))


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    found = start(tmp_path)
    yield found
    found.process.kill()
    found.process.wait()


@pytest.fixture
def engine(served: Served, tmp_path: Path) -> Engine:
    folder = tmp_path / "ledgers"
    folder.mkdir()
    return Engine(served.process.pid, folder=folder)


def test_the_process_is_found_by_its_socket(served: Served) -> None:
    assert sockets.listener("127.0.0.1", served.port) == served.process.pid
    assert sockets.listener("localhost", served.port) == served.process.pid
    with pytest.raises(sockets.Unseen, match=r"nothing .* listens"):
        sockets.listener("127.0.0.1", free_port())
    with pytest.raises(sockets.Unseen, match="another machine"):
        sockets.listener("192.0.2.1", served.port)
    with pytest.raises(sockets.Unseen, match="no address"):
        sockets.listener("host.invalid", served.port)
    with socket.create_server(("127.0.0.1", 0)) as own, pytest.raises(sockets.Unseen, match="this process's own"):
        sockets.listener("127.0.0.1", own.getsockname()[1])


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "::1"])
def test_an_engine_on_all_addresses_is_found(host: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    program = (
        "import socket, sys, time\n"
        f"s = socket.create_server(({host!r}, 0), family=socket.{family.name}, "
        f"dualstack_ipv6={host == '::'})\nprint(s.getsockname()[1], flush=True)\ntime.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        asked = "::1" if host == "::1" else "127.0.0.1"
        assert sockets.listener(asked, port) == process.pid
        if host == "::1":
            with pytest.raises(sockets.Unseen):
                sockets.listener("127.0.0.1", port)
    finally:
        process.kill()
        process.wait()


def test_a_proxy_is_no_engine(tmp_path: Path) -> None:
    proxy = tmp_path / "docker-proxy"
    proxy.symlink_to(sys.executable)
    program = (
        "import socket, time\ns = socket.create_server(('127.0.0.1', 0))\n"
        "print(s.getsockname()[1], flush=True)\ntime.sleep(60)"
    )
    process = subprocess.Popen([str(proxy), "-c", program], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        with pytest.raises(sockets.Unseen, match=r"docker-proxy listens .* hands requests on"):
            sockets.listener("127.0.0.1", port)
    finally:
        process.kill()
        process.wait()


def test_cpu_of_one_call_is_what_the_engine_used(served: Served, engine: Engine) -> None:
    served.ask(cpu=0.2)  # of nobody: not counted
    call = engine.begin()
    assert call is not None
    used = served.ask(cpu=0.5)["used"]
    usage = engine.end(call)
    assert usage is not None
    assert usage.cpu_exact
    assert used <= usage.cpu <= used + AROUND_S
    assert usage.utilization == pytest.approx(usage.cpu / (usage.wall * engine.cores))


def test_a_childs_cpu_is_the_engines(served: Served, engine: Engine) -> None:
    call = engine.begin()
    assert call is not None
    served.ask(child=0.4)
    time.sleep(1.1)  # its children are listed once a second
    usage = engine.end(call)
    assert usage is not None
    assert 0.4 <= usage.cpu <= 0.4 + 0.3, "Python's own start is the child's too"
    assert not usage.cpu_exact, "a process came meanwhile"
    call = engine.begin()
    assert call is not None
    served.ask(child=0.4)
    usage = engine.end(call)
    assert usage is not None
    assert usage.cpu_exact
    assert 0.4 <= usage.cpu <= 0.4 + AROUND_S


def test_calls_at_once_share_the_cpu(served: Served, engine: Engine) -> None:
    whole, half = engine.begin(), engine.begin()
    assert whole is not None
    assert half is not None
    first = served.ask(cpu=0.4)["used"]
    shared = engine.end(half)
    second = served.ask(cpu=0.3)["used"]
    rest = engine.end(whole)
    assert shared is not None
    assert rest is not None
    assert shared.cpu == pytest.approx(first / 2, abs=AROUND_S)
    assert rest.cpu == pytest.approx(first / 2 + second, abs=2 * AROUND_S)
    assert not shared.cpu_exact
    assert not rest.cpu_exact
    later = engine.begin()
    assert later is not None
    served.ask(cpu=0.05)
    alone = engine.end(later)
    assert alone is not None
    assert alone.cpu_exact, "what was shared is over"


OTHER = """
import sys
from pathlib import Path
from bulkscope._host.engine import Engine
engine = Engine(int(sys.argv[1]), folder=Path(sys.argv[2]))
call = engine.begin()
print("begun", flush=True)
sys.stdin.readline()
usage = engine.end(call)
print(usage.cpu, usage.cpu_exact, flush=True)
"""


def other(served: Served, folder: Path) -> subprocess.Popen[str]:
    """Return another process that has a call under way; a line to it ends the call."""
    process = subprocess.Popen(
        [sys.executable, "-c", OTHER, str(served.process.pid), str(folder)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    return process


def test_calls_of_several_processes_share_the_cpu(served: Served, engine: Engine, tmp_path: Path) -> None:
    process = other(served, tmp_path / "ledgers")
    call = engine.begin()
    assert call is not None
    used = served.ask(cpu=0.4)["used"]
    usage = engine.end(call)
    said, _ = process.communicate("\n")
    cpu, exact = said.split()
    assert usage is not None
    assert not usage.cpu_exact
    assert exact == "False"
    assert usage.cpu == pytest.approx(used / 2, abs=AROUND_S)
    assert float(cpu) == pytest.approx(used / 2, abs=AROUND_S)


def test_who_is_not_known_to_ask_the_engine_makes_its_numbers_estimates(served: Served, engine: Engine) -> None:
    def call() -> bool:
        begun = engine.begin()
        assert begun is not None
        served.ask(cpu=0.05)
        usage = engine.end(begun)
        assert usage is not None
        return usage.cpu_exact

    assert call()
    time.sleep(0.3)  # a gap in which the engine did nothing
    assert call()
    served.ask(cpu=0.4)  # by a client that tells nobody
    assert not call()
    time.sleep(0.3)
    assert call(), "it has gone"


def test_a_killed_process_has_no_call_under_way(served: Served, engine: Engine, tmp_path: Path) -> None:
    process = other(served, tmp_path / "ledgers")
    process.kill()
    process.wait()
    heard, call = engine.begin(), engine.begin()
    assert heard is not None
    assert call is not None
    page = json.loads((tmp_path / "ledgers" / engine.name).read_text())
    assert page["calls"] == {processes.name(PROC, os.getpid()): 2}


def resident(served: Served) -> int:
    status = Path(f"/proc/{served.process.pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) * 1024


def test_memory_is_the_engines(served: Served, engine: Engine) -> None:
    served.ask(cpu=0.01)
    before, held = resident(served), 300 * 2**20
    call = engine.begin()
    assert call is not None
    served.ask(cpu=0.3, hold=held)
    usage = engine.end(call)
    assert usage is not None
    assert usage.memory_start == pytest.approx(before, abs=4 * 2**20)
    assert usage.memory_peak is not None
    assert usage.memory_exact, "the kernel's peak has grown"
    assert usage.memory_peak - before == pytest.approx(held, abs=10 * 2**20)
    while resident(served) > before + 20 * 2**20:  # it gives the memory back after its answer
        time.sleep(0.01)
    call = engine.begin()
    assert call is not None
    served.ask(cpu=0.4, hold=held // 2)
    usage = engine.end(call)
    assert usage is not None
    assert usage.memory_peak is not None
    assert not usage.memory_exact, "below an earlier peak it is looked at"
    assert usage.memory_peak - before == pytest.approx(held // 2, abs=20 * 2**20)


def test_an_engine_that_ends_leaves_the_numbers_absent(served: Served, engine: Engine) -> None:
    call = engine.begin()
    assert call is not None
    served.process.kill()
    served.process.wait()
    assert engine.end(call) is None
    assert engine.begin() is None
    assert not engine.lives()


def seen(known: Engines, host: str, port: int) -> Engine:
    """Return the engine at an address, when the search for it has come to its end."""
    latest = time.monotonic() + 30
    while (found := known.at(host, port)) is None:
        assert time.monotonic() < latest
        time.sleep(0.05)
    return found


def test_an_engine_that_is_started_again_is_found_again(tmp_path: Path) -> None:
    known = Engines()
    served = start(tmp_path)
    found = seen(known, "127.0.0.1", served.port)
    assert found.pid == served.process.pid
    assert seen(known, "localhost", served.port) is found
    served.process.kill()
    served.process.wait()
    assert known.at("127.0.0.1", served.port) is None


def test_who_does_not_let_go_of_the_file_holds_nobody_up(served: Served, engine: Engine, tmp_path: Path) -> None:
    with open(tmp_path / "ledgers" / engine.name, "rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert engine.begin() is None
    call = engine.begin()
    assert call is not None
    served.ask(cpu=0.05)
    usage = engine.end(call)
    assert usage is not None
    assert usage.cpu_exact, "the call that was not measured is not under way"


@pytest.mark.parametrize(
    "content", [b"", b"x", b"null", b"[]", b'{"cpu": "a"}', b'{"cpu": 1, "share": 1}', b"\xff" * 99]
)
def test_a_file_that_holds_something_else_begins_anew(tmp_path: Path, content: bytes) -> None:
    me = processes.name(PROC, os.getpid())
    name = me
    (tmp_path / name).write_bytes(content)
    book = ledger.Ledger(name, me, tmp_path)
    assert book.turn(1, {1: 5.0}) == ledger.Page({"1": 5.0}, 0.0, 0.0, {me: 1})
    assert book.turn(-1, {1: 7.0}) == ledger.Page({"1": 7.0}, 2.0, 0.0, {})


def test_files_of_engines_that_have_ended_go(tmp_path: Path) -> None:
    (tmp_path / "1-99999999999").write_text("")
    me = processes.name(PROC, os.getpid())
    ledger.Ledger(me, me, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [me]


def test_a_folder_of_others_is_not_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: str(path) != "/dev/shm" and access(path, mode))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    space = os.stat("/proc/self/ns/pid").st_ino
    (tmp_path / f"bulkscope-{os.geteuid()}-{space}").symlink_to(tmp_path / "elsewhere")
    me = processes.name(PROC, os.getpid())
    book = ledger.Ledger(me, me)
    assert not book.shared
    assert list((tmp_path / "elsewhere").iterdir()) == []
    assert book.turn(1, {1: 1.0}) == ledger.Page({"1": 1.0}, 0.0, 0.0, {me: 1}), "this process still counts its own"


def test_without_any_folder_for_files_the_calls_of_this_process_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A container with a root that is read-only, and nothing mounted: tempfile raises FileNotFoundError."""

    def nowhere() -> str:
        raise FileNotFoundError("no usable temporary directory")

    monkeypatch.setattr(tempfile, "gettempdir", nowhere)
    me = processes.name(PROC, os.getpid())
    book = ledger.Ledger(me, me)
    assert not book.shared
    assert book.turn(1, {1: 1.0}) is not None


def test_a_clock_that_was_read_earlier_is_not_counted_again(tmp_path: Path) -> None:
    me = processes.name(PROC, os.getpid())
    book = ledger.Ledger(me, me, tmp_path)
    book.turn(1, {1: 1.0})
    book.turn(0, {1: 2.0})
    book.turn(0, {1: 1.5})
    page = book.turn(-1, {1: 2.0})
    assert page is not None
    assert page.share == 1.0


def test_a_process_that_only_one_reader_knows_of_counts_once(tmp_path: Path) -> None:
    me, child = processes.name(PROC, os.getpid()), os.getppid()  # which lives
    book = ledger.Ledger(me, me, tmp_path)
    book.turn(1, {1: 1.0})
    for clocks in ({1: 1.0, child: 5.0}, {1: 1.0}, {1: 1.0, child: 5.0}):
        page = book.turn(0, clocks)
        assert page is not None
        assert page.share == 5.0
    assert page.mixed == 5.0, "and is no exact number"


def test_a_finaliser_inside_of_a_turn_does_not_wait_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    me = processes.name(PROC, os.getpid())
    book = ledger.Ledger(me, me, tmp_path)
    inside: list[object] = []
    lives = processes.lives

    def collected(root: Path, who: str) -> bool:
        if not inside:
            inside.append(book.turn(-1, {1: 1.0}))
        return lives(root, who)

    book.turn(2, {1: 1.0})
    (tmp_path / me).write_text(json.dumps({"used": {}, "share": 0, "mixed": 0, "calls": {"1-1": 1}}))
    monkeypatch.setattr(processes, "lives", collected)
    assert book.turn(0, {1: 1.0}) is not None
    assert inside == [None]
    page = book.turn(0, {1: 1.0})
    assert page is not None
    assert page.calls == {me: 1}


def test_a_full_disk_costs_the_numbers_of_a_call_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    me = processes.name(PROC, os.getpid())
    book = ledger.Ledger(me, me, tmp_path)
    with monkeypatch.context() as broken:
        broken.setattr(ledger, "_write", full)
        assert book.turn(1, {1: 1.0}) is None
        book.forget(1)
    page = book.turn(0, {1: 1.0})
    assert page is not None
    assert page.calls == {}


def test_a_call_that_nobody_ends_is_not_under_way(served: Served, engine: Engine) -> None:
    lost = engine.begin()
    assert lost is not None
    del lost
    call = engine.begin()
    assert call is not None
    served.ask(cpu=0.1)
    usage = engine.end(call)
    assert usage is not None
    assert usage.cpu_exact
    assert usage.cpu >= 0.1
    assert engine.end(call) is None, "and each is ended once"


def test_threads_do_not_lose_each_others_calls(tmp_path: Path) -> None:
    me = processes.name(PROC, os.getpid())
    book = ledger.Ledger(me, me, tmp_path)

    def turns() -> None:
        for _ in range(50):
            book.turn(1, {1: 1.0})
            book.turn(-1, {1: 1.0})

    threads = [threading.Thread(target=turns) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    page = book.turn(0, {1: 1.0})
    assert page is not None
    assert page.calls == {}


@pytest.fixture
def instrumented() -> Iterator[None]:
    instrumentor = OpenaiInstrumentor()
    instrumentor.instrument()
    yield
    instrumentor.uninstrument()


def test_a_span_has_the_engines_numbers(telemetry: Telemetry, served: Served, instrumented: None) -> None:
    seen(engines(), "127.0.0.1", served.port)
    answer = httpx.post(f"{served.url}/v1/chat/completions", json={"model": "m", "cpu": 0.3}, timeout=60).json()
    used = answer["used"]
    (span,) = telemetry.spans()
    assert span.attributes["bulk.inference.engine.pid"] == served.process.pid
    assert span.attributes["bulk.inference.engine.command"] == processes.command(PROC, served.process.pid)
    assert used <= span.attributes["bulk.inference.cpu.time"] <= used + AROUND_S
    assert span.attributes["bulk.inference.cpu.exact"] is True
    assert span.attributes["bulk.inference.memory.peak"] > 10 * 2**20
    assert span.attributes["bulk.inference.memory.limit"] > 0
