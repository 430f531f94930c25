"""Agent and gateway as the manifests start them, in the real Collector: arguments, environment, files and all."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests import sink
from tests.engines.binaries import binary
from tests.engines.servers import Server, eventually, http
from tests.kubernetes.rendered import expanded, objects
from tests.processes import environment, free_port

pytestmark = pytest.mark.engines
NODE = "node-7"
POD = {"k8s.pod.name": "worker-abc", "k8s.namespace.name": "demo", "k8s.container.name": "service"}


class Pod:
    """What a pod of the manifests holds, with folders of this machine in the places of its volumes."""

    def __init__(self, owner: str, folder: Path, values: dict[str, str], files: dict[str, str]) -> None:
        found = {f"{each['kind']}/{each['metadata']['name']}": each for each in objects(".")}
        spec = found[owner]["spec"]["template"]["spec"]
        (container,) = spec["containers"]
        self.folder = folder
        sources = {volume["name"]: volume for volume in spec["volumes"]}
        places: dict[str, str] = {}
        for mount in container["volumeMounts"]:
            place = folder / mount["name"]
            place.mkdir(parents=True)
            places[mount["mountPath"]] = str(place)
            if "configMap" in sources.get(mount["name"], {}):
                data = found[f"ConfigMap/{sources[mount['name']]['configMap']['name']}"]["data"]
                for name, text in data.items():
                    (place / name).write_text(text)
        # The longest first: one may lie in another.
        self._places = sorted(places.items(), key=lambda pair: -len(pair[0]))
        for path, text in files.items():
            Path(self.here(path)).write_text(text)
        self.env = {name: self.here(value) for name, value in expanded(container["env"], values).items()}
        self.words = [str(binary("otelcol")), *map(self.here, container["args"])]

    def here(self, text: str) -> str:
        for there, here in self._places:
            text = text.replace(there, here)
        return text

    def link(self, volume: str, path: str) -> None:
        (self.folder / volume).rmdir()
        (self.folder / volume).symlink_to(path)


def gateway_pod(folder: Path, elasticsearch: str, prometheus: str) -> Pod:
    return Pod(
        "StatefulSet/bulkscope-gateway",
        folder,
        {"ELASTICSEARCH_URL": elasticsearch, "PROMETHEUS_URL": prometheus, "SSL_CERT_FILE": "/none"},
        {"/etc/bulkscope/key/api-key": "the-key"},
    )


def agent_pod(folder: Path, gateway: str, host: str) -> Pod:
    pod = Pod("DaemonSet/bulkscope-agent", folder, {"spec.nodeName": NODE}, {})
    for volume in ("proc", "sys"):
        pod.link(volume, f"/{volume}")
    # As the pod has them: both below one folder.
    root = folder / "hostfs"
    root.mkdir()
    for volume in ("proc", "sys"):
        (root / volume).symlink_to(f"/{volume}")
    pod.env |= {"GATEWAY_ENDPOINT": gateway, "GATEWAY_HOST_ENDPOINT": host, "HOST_ROOT": str(root)}
    return pod


@contextmanager
def running(pod: Pod) -> Iterator[Server]:
    ports = {name: free_port() for name in ("GRPC", "HTTP", "HEALTH", "METRICS", "AGENTS")}
    kept = {name: value for name, value in environment("").items() if not name.startswith("OTEL_")}
    server = Server(
        pod.words,
        # The address of a pod is its own; here it is everybody's.
        kept | pod.env | {"COLLECTOR_BIND": "127.0.0.1", "COLLECTOR_HOST_INTERVAL": "1s"}
        | {f"COLLECTOR_{name}_PORT": str(port) for name, port in ports.items()},
        pod.folder / "collector.log",
        lambda: http("GET", f"http://127.0.0.1:{ports['HEALTH']}/"),
        f"http://127.0.0.1:{ports['HTTP']}",
        ports,
    )  # fmt: skip
    server.start()
    try:
        yield server
    finally:
        server.stop()


def test_the_collector_takes_both_configurations(tmp_path: Path) -> None:
    pods = [
        gateway_pod(tmp_path / "gateway", "http://127.0.0.1:1", "http://127.0.0.1:1"),
        agent_pod(tmp_path / "agent", "http://127.0.0.1:1", "http://127.0.0.1:1"),
    ]
    for pod in pods:
        words = [pod.words[0], "validate", *pod.words[1:]]
        kept = {name: value for name, value in environment("").items() if not name.startswith("OTEL_")}
        done = subprocess.run(words, env=kept | pod.env, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr


def requests() -> Iterator[tuple[str, Any]]:
    """A span, a log record and a point of a service in a pod, which knows its node as ``bulkscope.yaml`` tells it."""
    now = time.time_ns()
    traces, logs, metrics = ExportTraceServiceRequest(), ExportLogsServiceRequest(), ExportMetricsServiceRequest()
    groups = (traces.resource_spans.add(), logs.resource_logs.add(), metrics.resource_metrics.add())
    for group in groups:
        for name, value in {**POD, "host.name": "what-the-service-thinks", "service.name": "demo-worker"}.items():
            group.resource.attributes.add(key=name).value.string_value = value
    groups[0].scope_spans.add().spans.add(
        name="job", trace_id=b"t" * 16, span_id=b"s" * 8, start_time_unix_nano=now, end_time_unix_nano=now + 1
    )
    groups[1].scope_logs.add().log_records.add(time_unix_nano=now).body.string_value = "a line"
    points = groups[2].scope_metrics.add().metrics.add(name="bulk.worker.busy").gauge.data_points
    points.add(time_unix_nano=now, as_double=1.0)
    yield from (("traces", traces), ("logs", logs), ("metrics", metrics))


def test_what_a_pod_sends_comes_through_with_its_pod_and_its_node(tmp_path: Path) -> None:
    with sink.serve() as store, sink.serve() as metrics:
        with running(gateway_pod(tmp_path / "gateway", store.url, metrics.url)) as gateway:
            ways = gateway.url, f"http://127.0.0.1:{gateway.ports['AGENTS']}"
            with running(agent_pod(tmp_path / "agent", *ways)) as agent:
                for signal, request in requests():
                    body = request.SerializeToString()
                    http("POST", f"{agent.url}/v1/{signal}", body, "application/x-protobuf")

                def of(points: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
                    return [point["resource"] for point in list(points) if point["name"] == name]

                eventually(lambda: store.spans and store.logs and of(metrics.points, "bulk.worker.busy"))
                eventually(lambda: of(metrics.points, "system.cpu.load_average.1m"))
                eventually(lambda: of(store.points, "system.memory.utilization"))
                # Nothing of the gateway's own host, nor of the agent's container.
                for points in (store.points, metrics.points):
                    assert {point["resource"].get("host.name") for point in list(points)} == {NODE}
        resources = [store.spans[0]["resource"], store.logs[0]["resource"], *of(metrics.points, "bulk.worker.busy")]
        for resource in resources:
            assert POD.items() <= resource.items()
            assert (resource["host.name"], resource["k8s.node.name"]) == (NODE, NODE)
        assert not of(store.points, "bulk.worker.busy"), "services' metrics go to Prometheus alone"
        assert {"ApiKey the-key"} == {headers["authorization"] for headers in store.headers}
        assert all("authorization" not in headers for headers in metrics.headers)


def test_what_was_acknowledged_outlives_the_agent_and_the_gateway(tmp_path: Path) -> None:
    """Each is killed while what it has cannot be delivered, and finds it on its disk when it starts again."""
    with sink.serve() as store, sink.serve() as metrics:
        elsewhere = gateway_pod(tmp_path / "gateway", "http://127.0.0.1:1", metrics.url)
        with running(elsewhere) as gateway:
            ways = gateway.url, f"http://127.0.0.1:{gateway.ports['AGENTS']}"
            with running(agent_pod(tmp_path / "agent", *ways)) as agent:
                gateway.kill()
                (_, request), *_ = requests()
                http("POST", f"{agent.url}/v1/traces", request.SerializeToString(), "application/x-protobuf")
                agent.kill()
                agent.start()
                gateway.start()
                log = http("GET", f"http://127.0.0.1:{gateway.ports['METRICS']}/metrics")

                def queued() -> bool:
                    nonlocal log
                    log = http("GET", f"http://127.0.0.1:{gateway.ports['METRICS']}/metrics")
                    return any(
                        line.startswith(b"otelcol_receiver_accepted_spans") and not line.endswith(b" 0")
                        for line in log.splitlines()
                    )

                eventually(queued)
                gateway.kill()
                gateway.environment["ELASTICSEARCH_ENDPOINT"] = store.url
                gateway.start()
                assert store.wait(lambda s: bool(s.spans))
        assert {span["span_id"] for span in store.spans} == {(b"s" * 8).hex()}
