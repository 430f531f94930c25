"""What each backend gets of the metrics: of services nothing that Prometheus refuses, of hosts what is read."""

from __future__ import annotations

import os
import re
import time
import urllib.error
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality, Metric

from tests import sink
from tests.engines import bridge, servers
from tests.engines.servers import ROOT, ask, eventually, http

CUMULATIVE = AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE
DELTA = AggregationTemporality.AGGREGATION_TEMPORALITY_DELTA


def _sum(metric: Metric, temporality: AggregationTemporality.ValueType) -> None:
    metric.sum.aggregation_temporality = temporality
    metric.sum.is_monotonic = True
    metric.sum.data_points.add(time_unix_nano=time.time_ns(), as_int=1)


def _histogram(metric: Metric, temporality: AggregationTemporality.ValueType) -> None:
    metric.histogram.aggregation_temporality = temporality
    metric.histogram.data_points.add(
        time_unix_nano=time.time_ns(), count=1, sum=1.0, explicit_bounds=[1.0], bucket_counts=[1, 0]
    )


def _gauge(metric: Metric) -> None:
    metric.gauge.data_points.add(time_unix_nano=time.time_ns(), as_double=1.0)


REFUSED: dict[str, Callable[[Metric], None]] = {
    "delta": lambda metric: _sum(metric, DELTA),
    "delta_histogram": lambda metric: _histogram(metric, DELTA),
    "no_temporality": lambda metric: _sum(metric, AggregationTemporality.AGGREGATION_TEMPORALITY_UNSPECIFIED),
    "no_points": lambda metric: metric.gauge.SetInParent(),
    "no_type": lambda metric: None,
}
TAKEN: dict[str, Callable[[Metric], None]] = {
    "gauge": _gauge,
    "counter": lambda metric: _sum(metric, CUMULATIVE),
    "histogram": lambda metric: _histogram(metric, CUMULATIVE),
}


def request(makers: dict[str, Callable[[Metric], None]]) -> bytes:
    """Return one request of one service with a metric of each name."""
    made = ExportMetricsServiceRequest()
    group = made.resource_metrics.add()
    group.resource.attributes.add(key="service.name").value.string_value = "shop"
    scope = group.scope_metrics.add()
    for name, make in makers.items():
        make(scope.metrics.add(name=name))
    return made.SerializeToString()


def names(prometheus: servers.Server) -> set[str]:
    query = "/api/v1/query?query={job=%22shop%22}"
    return {series["metric"]["__name__"] for series in ask("GET", prometheus.url + query)["data"]["result"]}


def total(text: str, metric: str) -> float:
    """Return the sum of a counter of the Collector's own metrics; 0 where it has not counted yet."""
    found = re.findall(rf"^{metric}(?:_total)?(?:{{[^}}]*}})? (\S+)$", text, re.MULTILINE)
    return sum(map(float, found))


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.Server]:
    with servers.prometheus(
        tmp_path_factory.mktemp("prometheus"), "storage: {tsdb: {out_of_order_time_window: 1h}}"
    ) as one:
        yield one


@pytest.mark.parametrize("name", REFUSED)
def test_prometheus_stores_nothing_of_a_request_with_one_metric_that_it_refuses(
    prometheus: servers.Server, name: str
) -> None:
    """The reason for `filter/prometheus`: where this fails, Prometheus has learnt to take it or to leave it out."""
    body = request({f"beside_{name}": _gauge, name: REFUSED[name]})
    with pytest.raises(urllib.error.HTTPError) as refused:
        http("POST", f"{prometheus.url}/api/v1/otlp/v1/metrics", body, "application/x-protobuf")
    assert refused.value.code == 500
    assert f"beside_{name}" not in names(prometheus)


def test_the_collector_leaves_out_what_would_cost_the_whole_request(tmp_path: Path, prometheus: servers.Server) -> None:
    with sink.serve() as store:
        backends = {"ELASTICSEARCH_ENDPOINT": store.url, "PROMETHEUS_ENDPOINT": prometheus.url}
        with servers.collector(tmp_path, backends) as collector:
            http("POST", f"{collector.url}/v1/metrics", request(REFUSED | TAKEN), "application/x-protobuf")
            wanted = {"gauge", "counter_total", "histogram_bucket", "histogram_count", "histogram_sum"}
            eventually(lambda: wanted <= names(prometheus))
            assert not {name for name in names(prometheus) if name.startswith(("delta", "no_"))}
            own = http("GET", f"http://127.0.0.1:{collector.ports['METRICS']}/metrics").decode()
            # The three that have a point.
            assert total(own, "otelcol_processor_filter_datapoints_filtered") >= 3
            assert total(own, "otelcol_exporter_send_failed_metric_points") == 0


def read_of_hosts() -> set[str]:
    """Return the metrics of hosts that dashboards and reports name."""
    texts = [path.read_text() for path in (ROOT / "kibana" / "source").glob("*.yaml")]
    texts += [path.read_text() for path in (ROOT / "studio" / "bulkscope_studio").glob("*.py")]
    found = {
        name.replace("`", "").rstrip(".")
        for text in texts
        for name in re.findall(r"(?<=metrics\.)system\.[a-z_.`0-9]+|(?<=\")system\.[a-z_.]+(?=\")", text)
    }
    assert {"system.cpu.utilization", "system.memory.utilization", "system.cpu.load_average.1m"} <= found
    return found


# Of Kibana's Hosts page (elastic/kibana, metrics_data_access, inventory_models/host); it has no use for the rest.
HOSTS_PAGE = {
    "system.cpu.utilization", "system.cpu.logical.count", "system.cpu.load_average.1m", "system.cpu.load_average.5m",
    "system.cpu.load_average.15m", "system.memory.utilization", "system.memory.usage", "system.disk.io",
    "system.disk.operations", "system.network.io", "system.filesystem.usage",
}  # fmt: skip


def test_elasticsearch_gets_of_hosts_what_is_read_and_prometheus_all(tmp_path: Path) -> None:
    config: dict[str, Any] = yaml.safe_load((ROOT / "collector-config.yaml").read_text())
    # Each CPU by itself, as from receivers before contrib 0.160.
    cpu = config["receivers"]["hostmetrics"]["scrapers"]["cpu"]["metrics"]
    cpu["system.cpu.utilization"] = {"enabled": True, "attributes": ["cpu", "state"]}
    path = tmp_path / "collector.yaml"
    path.write_text(yaml.safe_dump(config))
    with sink.serve() as store, sink.serve() as metrics:
        backends = {"ELASTICSEARCH_ENDPOINT": store.url, "PROMETHEUS_ENDPOINT": metrics.url}
        with servers.collector(tmp_path / "collector", backends, path) as collector:
            wanted = read_of_hosts() | HOSTS_PAGE | {"system.paging.faults"}  # which explain reads

            def sent(to: sink.Sink) -> set[str]:
                return {point["name"] for point in list(to.points)}

            eventually(lambda: wanted <= sent(store) and wanted <= sent(metrics))
            collector.stop()
    assert sent(store) < sent(metrics)
    assert {"system.cpu.time", "system.network.connections", "system.paging.operations"} <= sent(metrics) - sent(store)

    def utilization(of: sink.Sink) -> list[tuple[frozenset[str], str]]:
        found = [point["attributes"] for point in of.points if point["name"] == "system.cpu.utilization"]
        return [(frozenset(attributes), attributes["state"]) for attributes in found]

    assert {keys for keys, _ in utilization(metrics)} == {frozenset({"cpu", "state"})}
    assert {keys for keys, _ in utilization(store)} == {frozenset({"state"})}
    # Shares of all that CPUs did add up to 1: the mean was taken, not the sum.
    samples = Counter(state for _, state in utilization(store))
    whole = sum(point["value"] for point in store.points if point["name"] == "system.cpu.utilization")
    assert whole / max(samples.values()) == pytest.approx(1.0, abs=0.05)

    # All that Kibana adds up to the memory in use.
    states = {point["attributes"]["state"] for point in store.points if point["name"] == "system.memory.utilization"}
    assert {"used", "buffered", "slab_reclaimable", "slab_unreclaimable"} <= states
    mounts = {point["attributes"]["mountpoint"] for point in store.points if point["name"] == "system.filesystem.usage"}
    assert "/" in mounts

    def documents(of: sink.Sink) -> float:
        """A collection's documents, as Elasticsearch makes them."""
        made = [
            document["@timestamp"] // 1000
            for _, body in of.bodies
            for _, document, _ in bridge.metrics(ExportMetricsServiceRequest.FromString(body))
        ]
        return max(Counter(made).values())

    assert documents(store) < documents(metrics) / 2


def test_in_a_container_the_disk_is_the_one_below_the_container(tmp_path: Path) -> None:
    """/proc and /sys of the host stand in a folder of the container's own, as docker-compose.yml has it."""
    root = tmp_path / "hostfs"
    root.mkdir()
    for name in ("proc", "sys"):
        (root / name).symlink_to(f"/{name}")
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    mounts = compose["services"]["collector"]["environment"]["COLLECTOR_HOST_MOUNTS"]
    with sink.serve() as store, sink.serve() as metrics:
        backends = {"ELASTICSEARCH_ENDPOINT": store.url, "PROMETHEUS_ENDPOINT": metrics.url}
        given = {"HOST_ROOT": str(root), "COLLECTOR_HOST_MOUNTS": mounts, "COLLECTOR_HOST_NETWORK": "false"}
        with servers.collector(tmp_path / "collector", {**backends, **given}) as collector:

            def usage() -> dict[str, float]:
                points = [point for point in list(store.points) if point["name"] == "system.filesystem.usage"]
                assert {point["attributes"]["mountpoint"] for point in points} <= {"/"}
                return {point["attributes"]["state"]: point["value"] for point in points}

            found = eventually(lambda: len(usage()) == 3 and usage())
            own = os.statvfs(root)
            assert sum(found.values()) == pytest.approx(own.f_blocks * own.f_frsize, rel=0.01)
            collector.stop()
        assert "failed to read usage" not in collector.log.read_text()


def test_in_a_container_no_interface_is_shown_as_the_hosts(tmp_path: Path) -> None:
    with sink.serve() as store, sink.serve() as metrics:
        backends = {"ELASTICSEARCH_ENDPOINT": store.url, "PROMETHEUS_ENDPOINT": metrics.url}
        with servers.collector(tmp_path, {**backends, "COLLECTOR_HOST_NETWORK": "false"}):
            for of in (store, metrics):
                # The last scraper's as well: a collection is whole.
                eventually(lambda of=of: {point["name"] for point in list(of.points)} >= {"system.disk.io"})
                eventually(lambda of=of: len([p for p in list(of.points) if p["name"] == "system.memory.limit"]) > 2)
        assert not {point["name"] for of in (store, metrics) for point in of.points if "network" in point["name"]}
