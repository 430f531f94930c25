"""Nothing is imported in the path of a request, a job, an inference or an export, once set-up is over.

A child that is forked while another thread imports inherits the module's lock, for good.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from tests.processes import BIN, environment
from tests.sink import Sink

Spawn = Callable[..., Any]

PATHS = """
import asyncio, logging, os, sys, traceback
import bulkscope
from bulkscope import _lifecycle
from fastapi import FastAPI, Request

logging.basicConfig(level=logging.INFO, handlers=[logging.NullHandler()])
log, app = logging.getLogger("app"), FastAPI()

@app.post("/ok/{bulk_id}")
async def ok(bulk_id: str, request: Request):
    await request.json()
    log.info("seen")
    with bulkscope.enqueue("q", task="t") as job:
        headers = dict(job.headers)
    with bulkscope.dequeue("q", headers=headers):
        with bulkscope.inference(model="m") as call:
            call.tokens(input=1, output=2)
            call.prompt(input=1, output=2)
            call.prompt(input=1, output=2)

@app.get("/fails")
async def fails():
    try:
        with bulkscope.dequeue("q", job_id="x"), bulkscope.inference(model="m"):
            raise IndexError
    except IndexError:
        log.exception("no")
    raise KeyError("no")

async def ask(method, path):
    async def receive():
        return {"type": "http.request", "body": b'{"bulkId": "b"}', "more_body": False}
    async def send(message):
        pass
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "path": path,
        "raw_path": path.encode(), "query_string": b"bulk_id=a", "root_path": "", "scheme": "http",
        "headers": [
            (b"host", b"a:1"), (b"baggage", b"bulk.id=x"),
            (b"traceparent", b"00-%b-%b-01" % (b"1" * 32, b"2" * 16)),
        ],
        "server": ("a", 1), "client": ("b", 2),
    }
    try:
        await app(scope, receive, send)
    except KeyError:
        pass

def hook(event, arguments):
    if event == "import" and watching:
        imported.append((arguments[0], [f"{f.f_code.co_filename}:{f.f_lineno}" for f in frames(sys._getframe(1))]))

def frames(frame):
    while frame is not None:
        yield frame
        frame = frame.f_back

def horse(job_id):
    if os.fork() == 0:
        with bulkscope.dequeue("q", job_id=job_id):
            pass
        _lifecycle.flush()
        assert imported == [], imported
        os._exit(0)
    return os.waitstatus_to_exitcode(os.wait()[1])

async def requests():
    global watching
    watching = True
    await ask("POST", "/ok/b")
    await ask("GET", "/fails")
    watching = False

watching, imported = False, []
sys.addaudithook(hook)
asyncio.run(requests())
watching = True
print("child ended with", horse("of the first"))
print("flushed:", _lifecycle.flush(30))
print("child ended with", horse("of the second"))
print("imported:", imported, flush=True)
import wave
print("noticed:", [name for name, _ in imported], flush=True)
"""


def test_nothing_is_imported_after_set_up(sink: Sink, spawn: Spawn) -> None:
    sink.answers += [(503, {"Retry-After": "0.01"}, b"busy")]
    process = spawn(str(BIN / "bulkscope"), "run", sys.executable, "-c", PATHS, env=environment(sink.url))
    output = process.communicate(timeout=120)[0]
    assert output.count("child ended with 0") == 2, output
    assert "flushed: True" in output
    assert "imported: []" in output, output
    assert "noticed: ['wave'" in output, "an import would have been seen"
    jobs = {span["attributes"].get("bulk.job.id") for span in sink.spans if span["kind"] == 5}
    assert {"x", "of the first", "of the second"} < jobs
    assert sink.logs
    assert sink.points


# What OpenTelemetry's own packages bring along, whatever is switched on; ours; and the interpreter's.
CARRIED = {
    "bulkscope", "bulkscope_instrumentation", "opentelemetry", "packaging", "psutil", "typing_extensions", "wrapt",
    "__main__", "__mp_main__", "sitecustomize", "_distutils_hack", "_virtualenv",
}  # fmt: skip
LOADED = "import sys; print(*sorted({name.partition('.')[0] for name in sys.modules} - sys.stdlib_module_names))"


def test_nothing_of_a_path_that_is_off_is_imported(sink: Sink, spawn: Spawn) -> None:
    """No gRPC, protobuf or requests, no page of metrics, and none of the libraries that are instrumented."""
    process = spawn(str(BIN / "bulkscope"), "run", sys.executable, "-c", LOADED, env=environment(sink.url))
    loaded = process.communicate(timeout=60)[0].splitlines()[-1].split()
    assert set(loaded) <= CARRIED, set(loaded) - CARRIED
    assert {"bulkscope", "bulkscope_instrumentation"} <= set(loaded)
    grpc = environment(sink.url) | {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc", "OTEL_EXPORTER_OTLP_TIMEOUT": "0.1"}
    process = spawn(str(BIN / "bulkscope"), "run", sys.executable, "-c", LOADED, env=grpc)
    assert any("grpc" in line.split() for line in process.communicate(timeout=60)[0].splitlines()), "would be seen"
