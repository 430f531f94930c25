"""collector/*.yaml: each goes with the configuration that it is put on; agent and gateway are run for real.

Kafka, Elasticsearch's own exporter and Elastic's APM components are in no Collector that can be built here. For these
the merged configuration is read: its pipelines name defined components only, and nothing of the first one is lost.
"""

from __future__ import annotations

import copy
import re
import socket
import struct
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests import sink
from tests.engines.binaries import binary
from tests.engines.servers import ROOT, Server, eventually, http
from tests.processes import environment, free_port

BASE = "collector-config.yaml"
APM, BULK = "collector/kibana-apm.yaml", "collector/elasticsearch-bulk.yaml"
AGENT, GATEWAY = "collector/agent.yaml", "collector/gateway.yaml"
KAFKA_AGENT, KAFKA_GATEWAY = "collector/kafka-agent.yaml", "collector/kafka-gateway.yaml"
STACKS = [
    (BASE,),
    (BASE, APM),
    (BASE, BULK),
    (BASE, GATEWAY),
    (BASE, APM, GATEWAY),
    (BASE, KAFKA_GATEWAY),
    (BASE, APM, KAFKA_GATEWAY),
    (AGENT,),
    (AGENT, KAFKA_AGENT),
]
# What takes the place of an exporter, where it is not to stay.
INSTEAD = {
    BULK: {"otlphttp/elasticsearch": "elasticsearch"},
    KAFKA_AGENT: {"otlphttp/gateway": "kafka", "otlphttp/gateway_host": "kafka/host"},
}
# All have these but for the ones that cannot be built here.
BUILT = [names for names in STACKS if not {APM, BULK, KAFKA_AGENT, KAFKA_GATEWAY} & set(names)]
BATCH = 20


def read(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / name).read_text())
    return found


def put_on(below: Any, above: Any) -> Any:
    """Return ``above`` put on ``below`` as the Collector does with several ``--config``: maps add up, lists replace."""
    if not (isinstance(below, dict) and isinstance(above, dict)):
        return copy.deepcopy(above)
    found = copy.deepcopy(below)
    for key, value in above.items():
        found[key] = put_on(found[key], value) if key in found else copy.deepcopy(value)
    return found


def merged(names: tuple[str, ...]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in names:
        found = put_on(found, read(name))
    return found


def wrong(config: dict[str, Any]) -> Iterator[str]:
    """Yield what is wrong with the pipelines of a configuration."""
    connectors = set(config.get("connectors", {}))
    defined = {
        "receivers": set(config["receivers"]) | connectors,
        "processors": set(config["processors"]),
        "exporters": set(config["exporters"]) | connectors,
    }
    service = config["service"]
    for name, pipeline in service["pipelines"].items():
        if set(pipeline) != set(defined):
            yield f"{name} has {sorted(pipeline)}"
        for kind, known in defined.items():
            listed = pipeline.get(kind, [])
            if not listed and kind != "processors":
                yield f"{name} has no {kind}"
            if len(set(listed)) != len(listed):
                yield f"{name} names one of its {kind} twice"
            for one in listed:
                if one not in known:
                    yield f"{name}: {one} is none of the {kind}"
        if pipeline.get("processors", [""])[0] != "memory_limiter":
            yield f"{name} does not begin with the limit on memory"
    for connector in connectors:
        for kind in ("receivers", "exporters"):
            if not any(connector in pipeline[kind] for pipeline in service["pipelines"].values()):
                yield f"the connector {connector} is none of the {kind} of any pipeline"
    for name in service["extensions"]:
        if name not in config["extensions"]:
            yield f"the extension {name} is not defined"
    for pipeline in service["pipelines"].values():
        for name in set(pipeline["exporters"]) - connectors:
            queue = config["exporters"][name].get("sending_queue", {})
            if queue.get("storage") not in service["extensions"]:
                yield f"{name} has no queue on disk"
            if queue.get("block_on_overflow") is not False or queue.get("sizer") != "items" or "batch" not in queue:
                yield f"{name}: its queue is not as the others'"
            # Elasticsearch takes 8 MiB a request, whatever number of records that is.
            batch = queue.get("batch", {})
            if batch.get("sizer") != "bytes" or not batch["min_size"] <= batch["max_size"] <= 4_000_000:
                yield f"{name}: its requests are not cut by bytes"
            # It reserves these 8 MiB for each request before it reads it, of a tenth of its heap: 102 MiB of 1 GiB.
            if queue.get("num_consumers", 10) > 2:
                yield f"{name}: three signals at once would fill what Elasticsearch reserves for requests"
    used = {one for pipeline in service["pipelines"].values() for one in pipeline["processors"]}
    if any(one.partition("/")[0] == "batch" for one in used):
        yield "a batch processor holds what was acknowledged in memory"


@pytest.mark.parametrize("names", STACKS, ids="+".join)
def test_pipelines_name_what_is_defined_and_begin_with_the_limit_on_memory(names: tuple[str, ...]) -> None:
    assert list(wrong(merged(names))) == []


def test_what_is_wrong_is_found() -> None:
    config = merged((BASE, APM))
    config["service"]["pipelines"]["traces"]["processors"].reverse()
    config["service"]["pipelines"]["metrics/apm"]["receivers"] = ["elastic"]
    found = list(wrong(config))
    assert "traces does not begin with the limit on memory" in found
    assert "metrics/apm: elastic is none of the receivers" in found
    assert "the connector elasticapm is none of the receivers of any pipeline" in found


@pytest.mark.parametrize("names", [names for names in STACKS if len(names) > 1], ids="+".join)
def test_an_overlay_loses_nothing_of_what_it_is_put_on(names: tuple[str, ...]) -> None:
    before, after = read(names[0]), merged(names)
    instead = {old: new for name in names for old, new in INSTEAD.get(name, {}).items()}
    assert set(before["service"]["extensions"]) <= set(after["service"]["extensions"])
    for kind in ("receivers", "processors", "exporters", "extensions"):
        for name, settings in before[kind].items():
            assert after[kind][name] == settings, (kind, name)
    for name, pipeline in before["service"]["pipelines"].items():
        now = after["service"]["pipelines"][name]
        assert set(pipeline["receivers"]) <= set(now["receivers"]), name
        assert {instead.get(one, one) for one in pipeline["exporters"]} <= set(now["exporters"]), name
        kept = [one for one in now["processors"] if one in pipeline["processors"]]
        assert kept == pipeline["processors"], name  # all of them, in their order


def test_kibana_apm_has_what_elastics_own_gateway_has() -> None:
    config = merged((BASE, APM))
    pipelines = config["service"]["pipelines"]
    assert pipelines["traces"]["processors"][-1] == "elasticapm"  # what the connector counts, the processor has put on
    for name in ("traces", "logs"):
        assert {"elasticapm", "otlphttp/elasticsearch"} <= set(pipelines[name]["exporters"])
    fed = [name for name, pipeline in pipelines.items() if "elasticapm" in pipeline["receivers"]]
    assert fed == ["metrics/apm"]
    assert pipelines["metrics/apm"]["exporters"] == ["otlphttp/elasticsearch"]
    # A folder of its own, beside the queues.
    folders = [one["directory"] for name, one in config["extensions"].items() if name.startswith("file_storage")]
    assert config["connectors"]["elasticapm"]["aggregation"]["directory"] not in folders


def test_kibana_apm_leaves_on_the_spans_what_reports_read_of_them() -> None:
    """The queue's name above all. The keys are those of the processor's own configuration; it cannot be built here."""
    processor = read(APM)["processors"]["elasticapm"]
    assert set(processor) == {"elastic_transaction", "elastic_span"}
    for kind in processor.values():
        assert kind == {"remove_messaging": {"enabled": False}}


def test_the_agent_measures_a_host_as_the_one_collector_does() -> None:
    base, agent = read(BASE), read(AGENT)
    for kind, name in (("receivers", "hostmetrics"), ("receivers", "otlp")):
        assert agent[kind][name] == base[kind][name]
    assert agent["service"]["telemetry"] == base["service"]["telemetry"]
    for exporter in agent["exporters"].values():
        assert exporter["retry_on_failure"] == base["exporters"]["otlphttp/elasticsearch"]["retry_on_failure"]
        assert "headers" not in exporter  # no key of a backend


def test_both_halves_of_kafka_name_the_same_topics() -> None:
    sent, got = read(KAFKA_AGENT)["exporters"], read(KAFKA_GATEWAY)["receivers"]
    for signal in ("traces", "logs", "metrics"):
        assert [sent["kafka"][signal]["topic"]] == got["kafka"][signal]["topics"]
        assert sent["kafka"][signal]["encoding"] == got["kafka"][signal]["encoding"]
    assert [sent["kafka/host"]["metrics"]["topic"]] == got["kafka/host"]["metrics"]["topics"]
    assert sent["kafka/host"]["metrics"]["topic"] != sent["kafka"]["metrics"]["topic"]
    # Two receivers in one group would share a topic's partitions: each would have a part.
    assert got["kafka"]["group_id"] != got["kafka/host"]["group_id"]
    # A message that an agent may send can be read.
    assert got["kafka"]["max_partition_fetch_size"] >= sent["kafka"]["producer"]["max_message_bytes"]


def test_what_was_never_run_says_so() -> None:
    built = {BASE, *(name for names in BUILT for name in names)}
    for path in sorted((ROOT / "collector").glob("*.yaml")):
        name = f"collector/{path.name}"
        assert name in {one for names in STACKS for one in names}, name
        if name not in built:
            assert re.search(r"NOT RUN IN CI|in\n?#? ?no other", path.read_text()), name


def variables(names: tuple[str, ...]) -> set[str]:
    """Return the environment variables without which these files say nothing."""
    return {one for name in names for one in re.findall(r"\$\{env:(\w+)\}", (ROOT / name).read_text())}


@pytest.mark.parametrize("names", BUILT, ids="+".join)
def test_the_collector_takes_it(names: tuple[str, ...]) -> None:
    words = [word for name in names for word in ("--config", str(ROOT / name))]
    given = dict.fromkeys(variables(names), "http://127.0.0.1:1")
    done = subprocess.run(
        [binary("otelcol"), "validate", *words], env=environment("") | given, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr


@contextmanager
def collector(folder: Path, *configs: str, **given: str) -> Iterator[Server]:
    """Run a Collector with these configurations; ``ports`` has AGENTS as well."""
    folder.mkdir()
    ports = {name: free_port() for name in ("GRPC", "HTTP", "HEALTH", "METRICS", "AGENTS")}
    health = f"http://127.0.0.1:{ports['HEALTH']}/"
    server = Server(
        [str(binary("otelcol")), *(word for name in configs for word in ("--config", str(ROOT / name)))],
        {name: value for name, value in environment("").items() if not name.startswith("OTEL_")}
        | {"COLLECTOR_STORAGE": str(folder / "storage"), "COLLECTOR_HOST_INTERVAL": "1s"}
        | {f"COLLECTOR_{name}_PORT": str(port) for name, port in ports.items()}
        | given,
        folder / "collector.log",
        lambda: http("GET", health),
        f"http://127.0.0.1:{ports['HTTP']}",
        ports,
    )
    server.start()
    try:
        yield server
    finally:
        server.stop()


class Load:
    """A container's service: sends spans, log records and metrics to the agent, and keeps what was acknowledged."""

    def __init__(self, agent: Server) -> None:
        self._agent = agent
        self._ended = threading.Event()
        self._number = 0
        self.acknowledged: dict[str, set[str]] = {"traces": set(), "logs": set(), "metrics": set()}
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _requests(self) -> Iterator[tuple[str, list[str], bytes]]:
        now = time.time_ns()
        numbers = range(self._number + 1, self._number + BATCH + 1)
        self._number += BATCH
        traces = ExportTraceServiceRequest()
        group = traces.resource_spans.add()
        group.resource.attributes.add(key="host.name").value.string_value = "container-1"
        scope = group.scope_spans.add()
        for number in numbers:
            scope.spans.add(
                name="job", trace_id=struct.pack(">QQ", 1, number), span_id=struct.pack(">Q", number),
                start_time_unix_nano=now, end_time_unix_nano=now + 1,
            )  # fmt: skip
        yield "traces", [f"{number:016x}" for number in numbers], traces.SerializeToString()
        logs = ExportLogsServiceRequest()
        records = logs.resource_logs.add().scope_logs.add().log_records
        for number in numbers:
            records.add(time_unix_nano=now).body.string_value = f"log {number}"
        yield "logs", [f"log {number}" for number in numbers], logs.SerializeToString()
        metrics = ExportMetricsServiceRequest()
        found = metrics.resource_metrics.add().scope_metrics.add().metrics
        for number in numbers:
            found.add(name=f"own-{number}").gauge.data_points.add(time_unix_nano=now, as_double=1.0)
        yield "metrics", [f"own-{number}" for number in numbers], metrics.SerializeToString()

    def _run(self) -> None:
        while not self._ended.is_set():
            for signal, names, body in self._requests():
                try:
                    http("POST", f"{self._agent.url}/v1/{signal}", body, "application/x-protobuf")
                except OSError:
                    continue  # not acknowledged: a service would keep it and try again
                self.acknowledged[signal].update(names)
            self._ended.wait(0.05)

    def end(self) -> None:
        self._ended.set()
        self._thread.join()


@pytest.mark.parametrize("killed", ["nothing", "gateway", "gateway, then agent"])
def test_what_services_send_comes_through_agent_and_gateway_once(killed: str, tmp_path: Path) -> None:
    with sink.serve() as store, sink.serve() as metrics:
        backends = {"ELASTICSEARCH_ENDPOINT": store.url, "PROMETHEUS_ENDPOINT": metrics.url}
        named = {"OTEL_RESOURCE_ATTRIBUTES": "host.name=the-gateways-own"}
        with collector(tmp_path / "gateway", BASE, GATEWAY, **backends, **named) as gateway:
            ways = {
                "GATEWAY_ENDPOINT": gateway.url, "GATEWAY_HOST_ENDPOINT": f"http://127.0.0.1:{gateway.ports['AGENTS']}",
            }  # fmt: skip
            with collector(tmp_path / "agent", AGENT, **ways) as agent:
                load = Load(agent)
                eventually(lambda: store.spans and store.logs and metrics.points)
                if killed != "nothing":
                    gateway.kill()
                    before = len(load.acknowledged["traces"])
                    time.sleep(5)
                    if killed == "gateway, then agent":
                        agent.kill()
                        agent.start()
                    time.sleep(5)
                    assert len(load.acknowledged["traces"]) > before + 20 * BATCH  # services felt nothing of it
                    gateway.start()
                    time.sleep(2)
                load.end()

                def missing() -> list[int]:
                    return [
                        len(load.acknowledged["traces"] - {span["span_id"] for span in list(store.spans)}),
                        len(load.acknowledged["logs"] - {record["body"] for record in list(store.logs)}),
                        len(load.acknowledged["metrics"] - {point["name"] for point in list(metrics.points)}),
                    ]

                eventually(lambda: not any(missing()), 120)
                times = Counter(span["span_id"] for span in store.spans)
                twice = sum(count - 1 for count in times.values())
                print(f"killed: {killed}; {len(times)} spans, 0 missing, {twice} twice")
                if killed == "nothing":
                    assert twice == 0
                # What was under way at the kill, at most: one request of the agent's, two of the gateway's. A span here
                # takes some 50 bytes.
                assert twice <= 3 * 4_000_000 / 50

                # The host's name is the agent's, whatever a container calls itself; the gateway's is its own.
                ours = socket.gethostname()
                assert {span["resource"].get("host.name") for span in store.spans} == {ours}
                assert {record["resource"].get("host.name") for record in store.logs} == {ours}
                for backend in (store, metrics):
                    hosts = eventually(
                        lambda backend=backend: (
                            (
                                found := {
                                    point["resource"]["host.name"]
                                    for point in list(backend.points)
                                    if point["name"] == "system.cpu.utilization"
                                }
                            )
                            == {ours, "the-gateways-own"}
                            and found
                        )
                    )
                    assert hosts
                # Services' metrics go to Prometheus alone.
                assert not [point for point in store.points if point["name"].startswith("own-")]
