"""Our encoder of metrics and the official one, decoded and compared."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics as official
from opentelemetry.metrics import Observation
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.sdk.metrics import AlwaysOnExemplarFilter, Exemplar, Histogram, MeterProvider
from opentelemetry.sdk.metrics import export as sdk
from opentelemetry.sdk.metrics._internal.point import Buckets
from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation
from opentelemetry.sdk.trace import TracerProvider

from bulkscope._export.otlp_metrics import encode_metrics
from tests import chance
from tests.otel.records import RESOURCES, SCOPES, attributes

NUMBERS: list[Any] = [0, 1, -1, 2**62, 0.0, -0.0, 1.5, -1e300, float("inf")]
TEMPORALITIES = list(sdk.AggregationTemporality)


def exemplars(rng: random.Random) -> list[Exemplar]:
    return [
        Exemplar(
            attributes(rng),
            rng.choice(NUMBERS),
            rng.getrandbits(62),
            *rng.choice(((None, None), (rng.getrandbits(64), rng.getrandbits(128)))),
        )
        for _ in range(rng.choice((0, 0, 2)))
    ]


def number(rng: random.Random) -> sdk.NumberDataPoint:
    start: Any = rng.choice((None, 0, rng.getrandbits(62)))
    return sdk.NumberDataPoint(attributes(rng), start, rng.getrandbits(62), rng.choice(NUMBERS), exemplars(rng))


def histogram(rng: random.Random) -> sdk.HistogramDataPoint:
    bounds = sorted(rng.uniform(-10, 1e6) for _ in range(rng.choice((0, 1, 12))))
    counts = [rng.choice((0, 1, 300, 2**40)) for _ in range(len(bounds) + 1)]
    low, high = rng.choice(((None, None), (0.0, 2.5), (-1, 7)))
    return sdk.HistogramDataPoint(
        attributes(rng), rng.getrandbits(62), rng.getrandbits(62), sum(counts), rng.choice(NUMBERS), counts, bounds,
        low, high, exemplars(rng),
    )  # fmt: skip


def exponential(rng: random.Random) -> sdk.ExponentialHistogramDataPoint:
    def buckets() -> Buckets:
        return Buckets(rng.randint(-900, 900), [rng.choice((0, 1, 2**40)) for _ in range(rng.choice((0, 20)))])

    return sdk.ExponentialHistogramDataPoint(
        attributes(rng), rng.getrandbits(62), rng.getrandbits(62), rng.getrandbits(30), 1.5, rng.randint(-10, 20),
        rng.choice((0, 9)), buckets(), buckets(), rng.choice((0, 1)), 0.5, 2.5, exemplars(rng),
    )  # fmt: skip


def data(rng: random.Random) -> Any:
    several = rng.choice((0, 1, 5))
    temporality = rng.choice(TEMPORALITIES)
    return rng.choice(
        (
            lambda: sdk.Gauge([number(rng) for _ in range(several)]),
            lambda: sdk.Sum([number(rng) for _ in range(several)], temporality, rng.random() < 0.5),
            lambda: sdk.Histogram([histogram(rng) for _ in range(several)], temporality),
            lambda: sdk.ExponentialHistogram([exponential(rng) for _ in range(several)], temporality),
        )
    )()


@pytest.mark.chance
@pytest.mark.parametrize("seed", range(60 * chance.TIMES))
def test_random_metrics_mean_the_same(seed: int) -> None:
    rng = chance.rng(seed)
    groups = [
        sdk.ResourceMetrics(
            resource,
            [
                sdk.ScopeMetrics(
                    scope,
                    [
                        sdk.Metric(f"m{n}", rng.choice((None, "", "what it is")), rng.choice((None, "s")), data(rng))
                        for n in range(rng.choice((0, 1, 6)))
                    ],
                    "",
                )
                for scope in SCOPES
                if scope is not None
            ],
            "",
        )
        for resource in RESOURCES[: rng.choice((0, 1, 3))]
    ]
    batch = sdk.MetricsData(groups)
    assert ExportMetricsServiceRequest.FromString(encode_metrics(batch)) == official(batch)


@pytest.mark.parametrize("aggregation", [None, ExponentialBucketHistogramAggregation()], ids=["explicit", "base2"])
def test_what_the_sdk_collects_means_the_same(aggregation: Any) -> None:
    reader = sdk.InMemoryMetricReader(preferred_aggregation={Histogram: aggregation} if aggregation else None)
    provider = MeterProvider([reader], exemplar_filter=AlwaysOnExemplarFilter())
    meter = provider.get_meter("tests", "1.0", "https://schema/1", {"scope": "attribute"})
    callback: Callable[[Any], list[Observation]] = lambda options: [Observation(0.5, {"k": "v"}), Observation(2)]  # noqa: E731
    meter.create_observable_gauge("gauge", [callback], "1", "a gauge")
    meter.create_observable_up_down_counter("updown", [callback])
    with TracerProvider().get_tracer("tests").start_as_current_span("span"):
        for value in (0, 0.001, 3, 70_000, -5):
            meter.create_histogram("histogram", "s").record(value, {"model": "m", "batch": 3, "ok": True, "x": 1.5})
            meter.create_counter("counter").add(abs(value))
    collected = reader.get_metrics_data()
    assert collected is not None
    request = official(collected)
    assert ExportMetricsServiceRequest.FromString(encode_metrics(collected)) == request
    found = [metric.name for metric in request.resource_metrics[0].scope_metrics[0].metrics]
    assert sorted(found) == ["counter", "gauge", "histogram", "updown"]
