"""The store beside its readers, on a full disk and at its end: nothing acknowledged is lost, nothing hangs."""

from __future__ import annotations

import concurrent.futures
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import grpc
import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import TraceServiceStub

from bulkscope_studio.ingest.writer import MAX_WAITING, REST_SECONDS, Busy, Ingest
from bulkscope_studio.server import process as serve
from bulkscope_studio.storage.store import MAX_READS, Store, TooLong, Unavailable
from tests import decoding
from tests.processes import BIN, wait_for_line
from tests.studio.otlp import PROTOBUF, traces

# What no machine counts to in a test.
ENDLESS = "SELECT count(*) AS n FROM range(1000000) a, range(1000000) b WHERE a.range % 7 = b.range % 11"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(tmp_path / "s.duckdb")
    yield opened
    opened.close()


Spawn = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def spawn() -> Iterator[Spawn]:
    """Start a command whose output can be read; one that has not ended with the test is killed."""
    started: list[subprocess.Popen[str]] = []

    def start(*words: object, **options: Any) -> subprocess.Popen[str]:
        process = subprocess.Popen([str(word) for word in words], text=True, stdout=subprocess.PIPE, **options)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


def spans(store: Store) -> int:
    return int(store.query("SELECT count(*) AS n FROM spans")["n"][0].as_py())


def test_a_question_that_takes_too_long_is_ended_and_says_so(store: Store) -> None:
    with pytest.raises(TooLong, match="took longer than 1 s"):
        store.query(ENDLESS, seconds=1.0)
    assert spans(store) == 0


def test_a_question_beside_others_waits_for_its_turn_and_not_for_ever(store: Store) -> None:
    with concurrent.futures.ThreadPoolExecutor(MAX_READS) as pool:
        others = [pool.submit(store.query, ENDLESS, None, 60.0) for _ in range(MAX_READS)]
        while len(store._running._running) < MAX_READS:
            time.sleep(0.01)
        with pytest.raises(TooLong, match="other questions kept the store busy"):
            store.query("SELECT 1", seconds=0.5)
        store.interrupt()
        assert all(isinstance(other.exception(30), TooLong) for other in others)
    assert spans(store) == 0


def test_no_more_than_two_questions_are_worked_on_at_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    select, lock, now, most = store._read, threading.Lock(), [0], [0]

    def counted(*args: object) -> object:
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        try:
            return select(*args)  # type: ignore[arg-type]
        finally:
            with lock:
                now[0] -= 1

    monkeypatch.setattr(store, "_read", counted)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda n: store.query("SELECT sum(range) AS n FROM range($n)", {"n": n}), [10**6] * 40))
    assert len({answer["n"][0].as_py() for answer in answers}) == 1
    assert most == [MAX_READS]


def test_who_needs_the_store_alone_ends_those_who_read(store: Store) -> None:
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        other = pool.submit(store.query, ENDLESS, None, 60.0)
        while not store._running._running:
            time.sleep(0.01)
        with store.alone(grace=0.1):
            assert isinstance(other.exception(30), TooLong)
    assert spans(store) == 0


def test_the_memory_is_the_machines_share(store: Store) -> None:
    (row,) = store.query("SELECT current_setting('memory_limit') AS v").to_pylist()
    number, unit = row["v"].split()
    size = float(number) * {"MiB": 2**20, "GiB": 2**30}[unit]
    assert 511e6 < size < 2.01e9


def test_after_a_fatal_error_the_file_is_opened_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read and written on, with all that was committed, by whoever comes next."""
    ingest = Ingest(store)
    ingest.submit(decoding.traces(traces({}, {})), "traces", "http").result(30)
    once = iter([True])
    transaction = ingest._transaction

    def fatal(*args: object, **kwargs: object) -> object:
        if next(once, False):
            raise duckdb.FatalException("FATAL Error: database has been invalidated because of a previous fatal error")
        return transaction(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(ingest, "_transaction", fatal)
    opened = store.opened
    ingest.submit(decoding.traces(traces({})), "traces", "http").result(30)
    assert store.opened == opened + 1
    assert spans(store) == 3
    assert ingest.status()["accepted"] == {"traces": 3}
    assert ingest.close()


def test_a_commit_that_was_durable_though_it_failed_counts_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """As DuckDB says when only the checkpoint after it failed."""
    ingest = Ingest(store)
    once = iter([True])
    transaction = ingest._transaction

    def durable(*args: object, **kwargs: object) -> object:
        done = transaction(*args, **kwargs)  # type: ignore[arg-type]
        if next(once, False):
            raise duckdb.FatalException("FATAL Error: Transaction COMMIT succeeded, but the autocheckpoint failed")
        return done

    monkeypatch.setattr(ingest, "_transaction", durable)
    ingest.submit(decoding.traces(traces({}, {})), "traces", "http").result(30)
    assert spans(store) == 2
    assert ingest.status()["accepted"] == {"traces": 2}
    assert ingest.status()["repeated"] == {}
    assert ingest.close()


def test_a_store_that_cannot_be_opened_again_says_why_and_recovers(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingest = Ingest(store)
    ingest.submit(decoding.traces(traces({})), "traces", "http").result(30)
    opening, why = store._open, "IO Error: No space left on device"

    def full() -> duckdb.DuckDBPyConnection:
        raise duckdb.IOException(why)

    monkeypatch.setattr(store, "_open", full)
    with pytest.raises(Unavailable, match="No space left"), store.writing():
        raise duckdb.FatalException("FATAL Error: No space left on device")
    with pytest.raises(Unavailable, match="No space left"):
        store.query("SELECT 1")
    with pytest.raises(Unavailable, match="No space left"):
        ingest.submit(decoding.traces(traces({})), "traces", "http").result(30)
    assert "No space left" in ingest.status()["trouble"]
    monkeypatch.setattr(store, "_open", opening)
    monkeypatch.setattr("bulkscope_studio.storage.store.REOPEN_SECONDS", 0.0)
    monkeypatch.setattr("bulkscope_studio.ingest.writer.REST_SECONDS", 0.0)
    ingest.submit(decoding.traces(traces({})), "traces", "http").result(30)
    assert spans(store) == 2
    assert ingest.status()["trouble"] is None
    assert ingest.close()


def test_who_no_longer_waits_is_stored_and_the_writer_goes_on(store: Store) -> None:
    ingest, free = Ingest(store), threading.Event()
    kept = ingest.call(free.wait)
    gone = ingest.submit(decoding.traces(traces({})), "traces", "http")
    assert gone.cancel()
    free.set()
    kept.result(30)
    ingest.submit(decoding.traces(traces({})), "traces", "http").result(30)
    assert spans(store) == 2
    assert ingest.close()


def test_a_full_queue_refuses_and_an_end_answers_all_who_wait(store: Store) -> None:
    ingest, free = Ingest(store), threading.Event()
    kept = ingest.call(free.wait)
    waiting = [ingest.submit(decoding.traces(traces({})), "traces", "http") for _ in range(MAX_WAITING)]
    with pytest.raises(Busy, match="busy"):
        ingest.submit(decoding.traces(traces({})), "traces", "http")
    assert not ingest.close(0.2), "the call does not end"
    assert all(isinstance(future.exception(0), Busy) for future in [kept, *waiting])
    with pytest.raises(Busy, match="ending"):
        ingest.submit(decoding.traces(traces({})), "traces", "http")
    free.set()


def test_senders_that_ask_often_do_not_keep_the_store_at_rest(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*words: object, **options: object) -> None:
        raise duckdb.IOException("no space left")

    ingest, now = Ingest(store), [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(ingest, "_transaction", full)
        with pytest.raises(Unavailable, match="no space left"):
            ingest.submit(decoding.traces(traces({})), "traces", "http").result(30)
    refused = 0
    for _ in range(20):
        now[0] += REST_SECONDS / 5
        try:
            ingest.submit(decoding.traces(traces({})), "traces", "http").result(30)
            break
        except Unavailable:
            refused += 1
    assert refused == 4, "it is tried again after the rest, and not before"
    assert spans(store) == 1
    assert store.trouble is None


SLOW = """
import sys, time
from bulkscope_studio.cli import studio
from bulkscope_studio.ingest import writer
from bulkscope_studio.server import process
original = writer.Ingest._transaction
def slow(self, connection, batches, **options):
    if any("spans" in batch for batch in batches):
        print("committing", flush=True)
        time.sleep(float(sys.argv[1]))
    return original(self, connection, batches, **options)
writer.Ingest._transaction = slow
process.CLOSE_SECONDS = float(sys.argv[3])
ports = ["--port", "0", "--otlp-http-port", "0", "--otlp-grpc-port", "0"]
sys.exit(studio.command(["--no-host", *ports, "--db", sys.argv[2]]))
"""


@pytest.mark.parametrize(("seconds", "patience", "stored"), [(2, serve.CLOSE_SECONDS, True), (60, 2, False)])
def test_an_end_while_requests_wait_for_a_slow_disk(
    seconds: int, patience: float, stored: bool, spawn: Spawn, tmp_path: Path
) -> None:
    """What was taken is committed and answered when the disk allows it, and kept by its sender when it does not."""
    db = tmp_path / "s.duckdb"
    process = spawn(sys.executable, "-c", SLOW, seconds, db, patience, stderr=subprocess.STDOUT)
    lines = wait_for_line(process, "Data  ").splitlines()
    _, otlp_http, otlp_grpc = (line.split()[-1] for line in lines if " http://" in line)

    def http_post() -> bool | None:
        body = traces({}).SerializeToString()
        try:
            answer = httpx.post(f"{otlp_http}/v1/traces", content=body, headers=PROTOBUF, timeout=60)
        except httpx.TransportError:
            return None  # it came when nobody listened any longer
        assert answer.status_code in (200, 503)
        return answer.status_code == 200

    def grpc_post() -> bool | None:
        with grpc.insecure_channel(otlp_grpc.removeprefix("http://")) as channel:
            try:
                TraceServiceStub(channel).Export(traces({}), timeout=60)
            except grpc.RpcError as error:
                return False if error.code() is grpc.StatusCode.UNAVAILABLE else None
        return True

    with concurrent.futures.ThreadPoolExecutor(5) as pool:
        first = pool.submit(http_post)
        wait_for_line(process, "committing")
        others = [pool.submit(ask) for ask in (http_post, http_post, grpc_post)]
        time.sleep(1)
        process.send_signal(signal.SIGTERM)
        code = process.wait(60)
        answers = [one.result(30) for one in (first, *others)]
    assert answers[0] is stored
    assert code == (0 if stored else 1)
    with duckdb.connect(str(db), read_only=True) as read:
        assert read.execute("SELECT count(*) FROM spans").fetchone() == (answers.count(True),)


def test_a_full_disk_is_said_and_survived(spawn: Spawn, tmp_path: Path) -> None:
    """The studio may write no file beyond 6 MB for a while, which fails as a full disk does."""
    db = tmp_path / "s.duckdb"
    words = [BIN / "bulkscope", "studio", "--no-host", "--port", "0", "--otlp-http-port", "0", "--otlp-grpc-port", "0"]
    process = spawn(
        *words, "--db", db, stderr=subprocess.DEVNULL,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (6 * 10**6, resource.RLIM_INFINITY)),
    )  # fmt: skip
    lines = wait_for_line(process, "Data  ").splitlines()
    web, otlp_http, otlp_grpc = (line.split()[-1] for line in lines if " http://" in line)
    acknowledged = 0
    with httpx.Client(timeout=60) as client:

        def made() -> bytes:
            attributes = [{"bulk.id": "b", "pad": os.urandom(200).hex()} for _ in range(200)]
            return traces(*attributes).SerializeToString()

        def send(body: bytes) -> httpx.Response:
            nonlocal acknowledged
            answer = client.post(f"{otlp_http}/v1/traces", content=body, headers=PROTOBUF)
            acknowledged += 200 * (answer.status_code == 200)
            return answer

        body = made()
        while (refused := send(body)).status_code == 200:
            body = made()
        assert refused.status_code == 503
        assert refused.headers["retry-after"] == "1"
        with grpc.insecure_channel(otlp_grpc.removeprefix("http://")) as channel:
            with pytest.raises(grpc.RpcError) as also:
                TraceServiceStub(channel).Export(traces({}))
            assert also.value.code() is grpc.StatusCode.UNAVAILABLE
        (bulk,) = client.get(f"{web}/api/bulks").json()
        assert bulk["id"] == "b"
        asked = subprocess.run([BIN / "bulkscope", "bulks", "--db", db], capture_output=True, text=True, timeout=60)
        assert asked.returncode == 0
        assert "cannot take data" in asked.stderr
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        while send(body).status_code != 200:  # as senders do
            time.sleep(0.5)
        for _ in range(5):
            assert send(made()).status_code == 200
    process.terminate()
    assert process.wait(30) == 0
    with duckdb.connect(str(db), read_only=True) as read:
        assert read.execute("SELECT count(*) FROM spans").fetchone() == (acknowledged,)


def test_a_file_may_be_open_twice_in_one_process(store: Store) -> None:
    other = Store(store.path)
    assert other.query("SELECT count(*) AS n FROM spans").to_pylist() == [{"n": 0}]
    with pytest.raises(duckdb.InvalidInputException, match="locked"):
        other.query("SET memory_limit = '1GB'")
    other.close()
    assert spans(store) == 0
