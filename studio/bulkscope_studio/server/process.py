"""The running studio: one process that receives, stores, samples the host and shows."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import duckdb
import pyarrow as pa
import uvicorn

from bulkscope_studio.ingest import connections, host_sampler, otlp_grpc
from bulkscope_studio.ingest.intake import Intake
from bulkscope_studio.ingest.otlp_http import OtlpHttp
from bulkscope_studio.ingest.writer import Busy, Ingest
from bulkscope_studio.rendering.output import say
from bulkscope_studio.server import login, loopback
from bulkscope_studio.storage import address as runtime
from bulkscope_studio.storage import retention, storefile, summaries
from bulkscope_studio.storage.store import Store, StoreLocked, Unavailable, first_line
from bulkscope_studio.text import parse

HOST = "127.0.0.1"
PASSWORD_VARIABLE = login.VARIABLE
# After SIGTERM: for what was taken to be committed and answered. A second signal ends it at once.
CLOSE_SECONDS = 10.0
# The size is looked at once a minute: at 20,000 spans/s 100 MB come in that time.
RETENTION_SECONDS = 60.0
logger = logging.getLogger("bulkscope.studio")


@dataclass(frozen=True, slots=True)
class Settings:
    """What a studio is started with, as the user writes it: the times and sizes are ``7d`` and ``2GB``."""

    db: Path
    host: str
    port: int
    otlp_http_port: int
    otlp_grpc_port: int
    retention: str
    max_size: str
    sample_host: bool


def _listen(address: str, port: int, option: str) -> socket.socket:
    listener = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((address, port))
    except (OSError, OverflowError) as error:
        listener.close()
        where = f"port {port}" if address == HOST else f"port {port} at {address}"
        raise CannotStart(f"{where} cannot be used ({error}); choose another with {option}, or 0") from error
    return listener


def _url(address: str, port: int) -> str:
    """Return where a server at an address is reached on this machine."""
    found = ipaddress.ip_address(address)
    if found.is_unspecified:
        found = ipaddress.ip_address(HOST if found.version == 4 else "::1")
    return f"http://[{found}]:{port}" if found.version == 6 else f"http://{found}:{port}"


class CannotStart(Exception):
    """The settings ask for what cannot be had; the message says what to do."""


class _Server(uvicorn.Server):
    """A uvicorn server that leaves signals to the studio, which runs two of them."""

    def capture_signals(self) -> Any:
        return contextlib.nullcontext()

    async def until_told(self, listener: socket.socket) -> None:
        """Serve until ``should_exit``. A start that fails is in the log, and ends this alone."""
        with contextlib.suppress(SystemExit):
            await self.serve(sockets=[listener])


def _server(app: Any, lifespan: Literal["on", "off"], grace: float, most: int) -> _Server:
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        lifespan=lifespan,
        timeout_graceful_shutdown=int(grace),
        ws="none",
        http=connections.protocol(most),
        backlog=128,
        timeout_notify=0,
    )
    server = _Server(config)

    async def look() -> None:
        connections.look(server.server_state.connections)

    config.callback_notify = look
    return server


def run(settings: Settings) -> bool:
    """Run the studio until it is told to end; False when a server could not be started, or ended by itself.

    Raises ``CannotStart``.
    """
    to_terminal = logging.StreamHandler()
    to_terminal.addFilter(connections.Seldom())
    logging.basicConfig(
        level=logging.WARNING, format="%(asctime)s %(name)s %(levelname)s %(message)s", handlers=[to_terminal]
    )
    os.umask(0o077)  # logs of every service come in: file, log and runs are this user's alone
    try:
        keep, limit = parse.duration(settings.retention), parse.size(settings.max_size)
        asked = login.of(settings.host, os.environ)
    except ValueError as error:
        raise CannotStart(str(error)) from error
    web_socket = _listen(settings.host, settings.port, "--port")
    http_socket = _listen(settings.host, settings.otlp_http_port, "--otlp-http-port")
    db = settings.db.expanduser().absolute()
    store = _store(db)
    with store.writing() as connection:
        summaries.ensure(connection)
    ingest = Ingest(store)
    intake = Intake(ingest)
    try:
        most = connections.most(connections.descriptors())
        grpc_server = otlp_grpc.Server(intake, settings.otlp_grpc_port, most, host=settings.host)
    except OSError as error:
        store.close()
        raise CannotStart(
            f"port {settings.otlp_grpc_port} cannot be used ({error}); choose another with --otlp-grpc-port, or 0"
        ) from error
    note = runtime.Runtime(
        pid=os.getpid(),
        web=_url(settings.host, web_socket.getsockname()[1]),
        otlp_http=_url(settings.host, http_socket.getsockname()[1]),
        otlp_grpc=_url(settings.host, grpc_server.port),
        token=asked.token if asked else "",
    )
    stops: list[Callable[[], Any]] = []
    if settings.sample_host:

        def sampled(tables: dict[str, pa.Table]) -> None:
            with contextlib.suppress(Busy):  # the next second's sample comes
                ingest.submit_tables(tables)

        stops.append(host_sampler.start(sampled))
    kept = retention.Retention(store, keep, limit)
    stops.append(_keep_small(ingest, kept))
    stops.append(_sum_up(ingest, store))
    served = False
    try:
        served = asyncio.run(_serve(store, intake, kept, note, asked, web_socket, http_socket, most))
    finally:
        for stop in stops:
            stop()
        ended = ingest.close(CLOSE_SECONDS)
        intake.close()
        grpc_server.stop(1)
        runtime.remove(db)
        if not ended:
            # A commit that the disk does not end cannot be waited for; DuckDB's own log has what was committed.
            logger.error(
                "the disk did not end a commit; the studio ends without it, its senders were told to try again"
            )
            os._exit(1)
        store.close()
    return served


def _store(db: Path) -> Store:
    try:
        return Store(db)
    except StoreLocked as locked:
        running = runtime.read(db)
        where = f", a studio at {running.web}" if running else ""
        raise CannotStart(f"{db} is held by {locked.holder}{where}; end it, or choose another --db") from locked
    except (OSError, duckdb.Error, storefile.Unfit) as error:
        raise CannotStart(f"{db} cannot be opened as a store ({error}); choose another --db") from error


async def _serve(
    store: Store, intake: Intake, kept: retention.Retention, note: runtime.Runtime, asked: login.Login | None,
    web_socket: socket.socket, http_socket: socket.socket, most: int,
) -> bool:  # fmt: skip
    """Serve until a signal comes; False when a server could not be started, or ended by itself."""
    from bulkscope_studio.server import app as web

    ingest = intake.ingest

    def status() -> dict[str, Any]:
        found = ingest.status() | {"db": str(store.path), "otlp_http": note.otlp_http, "otlp_grpc": note.otlp_grpc}
        found["db_bytes"] = store.path.stat().st_size if store.path.exists() else 0
        return found

    def delete(bulk_id: str) -> Mapping[str, int]:
        """Delete a bulk by the thread that writes."""
        try:
            return ingest.call(lambda: kept.delete_bulk(bulk_id), deletes=True).result()
        except Busy as error:
            raise Unavailable(str(error)) from error
        except duckdb.Error as error:
            raise Unavailable(f"the store could not delete the bulk: {first_line(error)}") from error

    guarded = loopback.Guard(OtlpHttp(intake), loopback.is_sender_host, loopback.SENDER_SAID)
    receiver = _server(guarded, "off", CLOSE_SECONDS + 3, most)
    app = web.build(store, status, asked, delete)
    pages = _server(app, "on", 2, most)
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()

    def end(number: int) -> None:
        if ended.is_set():
            os._exit(128 + number)
        ended.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, end, number)
    tasks = [
        asyncio.create_task(receiver.until_told(http_socket)),
        asyncio.create_task(pages.until_told(web_socket)),
    ]
    while not (receiver.started and pages.started) and not ended.is_set():
        if any(task.done() for task in tasks):
            break
        await asyncio.sleep(0.01)
    else:
        try:
            runtime.write(store.path, note)
        except OSError as error:
            logger.warning("'bulkscope report' and the others cannot find this studio: %s", error)
        say(f"Studio       {note.web}")
        say(f"OTLP/HTTP    {note.otlp_http}")
        say(f"OTLP/gRPC    {note.otlp_grpc}")
        if asked is not None:
            say(f"Login        any user, the password in {login.VARIABLE}")
        say(f"Data         {store.path}")
        await asyncio.wait([asyncio.create_task(ended.wait()), *tasks], return_when=asyncio.FIRST_COMPLETED)
    app.state.close_events()
    receiver.should_exit = pages.should_exit = True
    # Requests that were taken are answered before their connections are closed; questions are not waited for.
    closed = asyncio.create_task(asyncio.to_thread(ingest.close, CLOSE_SECONDS))
    store.interrupt()
    await closed
    await asyncio.wait(tasks, timeout=5)
    return ended.is_set()


def _keep_small(ingest: Ingest, kept: retention.Retention) -> Callable[[], None]:
    """Apply the retention now and every minute, by the thread that writes; return what stops it."""
    stopped = threading.Event()

    def run() -> None:
        while True:
            try:
                ingest.call(kept.apply, deletes=True).result()
            except Busy:
                pass  # what is written now counts the next time
            except Exception:
                logger.warning("old data could not be deleted", exc_info=True)
            if stopped.wait(RETENTION_SECONDS):
                return

    thread = threading.Thread(target=run, name="bulkscope-retention", daemon=True)
    thread.start()
    return stopped.set


def _sum_up(ingest: Ingest, store: Store) -> Callable[[], None]:
    """Sum up the bulks that have come to rest, by the thread that writes; return what stops it."""
    stopped = threading.Event()

    def work() -> int:
        with store.writing() as connection:
            return summaries.refresh(connection)

    def run() -> None:
        rest = summaries.REST_S / 2
        while not stopped.wait(rest):
            rest = summaries.REST_S / 2
            try:
                if summaries.waits(store):
                    began = time.monotonic()
                    if ingest.call(work).result():
                        # A store of before the table has many: one part after the other, and other work between them.
                        rest = time.monotonic() - began
            except Busy:
                pass  # readers sum up what they ask for
            except Exception:
                logger.warning("the table of bulks could not be kept up", exc_info=True)

    thread = threading.Thread(target=run, name="bulkscope-bulks", daemon=True)
    thread.start()
    return stopped.set
