"""The project's two images: how large they are, who they are, and that the studio works in its own."""

from __future__ import annotations

import base64
import json
import os
import time
import urllib.error
import urllib.request

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.containers import engine, images
from tests.containers.bulks import eventually
from tests.containers.stack import Stack
from tests.processes import free_port

pytestmark = pytest.mark.timeout(1800)

# MB, the base (126 MB) included.
MOST = {"bulkscope": 450, "bulkscope-demo": 650}


@pytest.mark.parametrize("name", sorted(MOST))
def test_an_image_is_no_larger_than_it_must_be(stack: Stack, name: str) -> None:
    found = json.loads(engine.docker("image", "inspect", images.pinned()[name]))[0]
    assert found["Size"] / 1e6 < MOST[name]
    assert found["Architecture"] == {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine]


@pytest.mark.parametrize("name", sorted(MOST))
def test_an_image_runs_without_any_right(stack: Stack, name: str) -> None:
    words = ["--rm", "--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "--security-opt", "no-new-privileges:true"]
    tag = images.pinned()[name]
    assert "usage: bulkscope" in engine.docker("run", *words, "--network", "none", tag)
    asked = "import os; print(os.getuid(), os.getgid(), os.access('/opt/bulkscope', os.W_OK), os.access('/', os.W_OK))"
    assert engine.docker("run", *words, tag, "python", "-c", asked) == "10001 10001 False False"


def job(bulk: str) -> bytes:
    """Return a request with the span of one job, as a service's own exporter would send it."""
    request = ExportTraceServiceRequest()
    group = request.resource_spans.add()
    group.resource.attributes.add(key="service.name").value.string_value = "mine"
    now = time.time_ns()
    span = group.scope_spans.add().spans.add(
        name="job", kind=5, trace_id=b"t" * 16, span_id=b"s" * 8,
        start_time_unix_nano=now - 10**9, end_time_unix_nano=now,
    )  # fmt: skip
    for name, value in (("bulk.id", bulk), ("bulk.job.id", "1"), ("messaging.operation.type", "process")):
        span.attributes.add(key=name).value.string_value = value
    return request.SerializeToString()


def status(url: str, body: bytes | None = None, **headers: str) -> int:
    """Return the status of an answer; 0 where there is none."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=60) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


def test_the_studio_runs_in_its_image_with_a_named_volume(stack: Stack) -> None:
    web, otlp, password = free_port(), free_port(), "a-password-for-tests"
    login = {"Authorization": "Basic " + base64.b64encode(f"any:{password}".encode()).decode()}
    words = [
        "run", "--detach", "--init", "--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL",
        "--security-opt", "no-new-privileges:true", "--volume", "studio-tests:/var/lib/bulkscope/studio",
        "--publish", f"127.0.0.1:{web}:8080", "--publish", f"127.0.0.1:{otlp}:4318",
        "--env", f"BULKSCOPE_STUDIO_PASSWORD={password}", images.pinned()["bulkscope"],
        "bulkscope", "studio", "--host", "0.0.0.0",
    ]  # fmt: skip

    def started() -> str:
        name = engine.docker(*words)
        eventually(lambda: status(f"http://127.0.0.1:{web}/", **login) == 200)
        return name

    names = []
    try:
        names.append(started())
        assert status(f"http://127.0.0.1:{web}/") == 401
        url, kind = f"http://127.0.0.1:{otlp}/v1/traces", {"Content-Type": "application/x-protobuf"}
        assert status(url, job("in-a-volume"), **kind, **login) == 200
        engine.docker("kill", names[0])  # what was answered with 200 is on the disk
        names.append(started())
        told = json.loads(engine.docker("exec", names[1], "bulkscope", "report", "in-a-volume", "--format", "json"))
        assert told["total"]["jobs"]["done"] == 1
        assert status(f"http://127.0.0.1:{web}/bulk/in-a-volume", **login) == 200
    finally:
        for name in names:
            engine.docker("rm", "--force", name, check=False)
        engine.docker("volume", "rm", "studio-tests", check=False)
