"""Each of the thirteen numbers of one bulk, in the report, in the list, in Kibana and in Prometheus: one value.

Real processes record the bulk (``thirteen.py``): two workers, two models, a retry, two failures, cached tokens, a
request refused, one broken, one malformed. What they send goes into DuckDB, Elasticsearch and Prometheus. The values
wanted are those of ``thirteen.py``, and of times that only the clock knows plain sums over the spans as they were sent.
The definitions are in ``docs/telemetry.md``.
"""

from __future__ import annotations

import math
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from bulkscope import conventions as c
from bulkscope_studio.services import listing, reports
from tests import sink
from tests.engines import bridge, homes, servers, templates, thirteen
from tests.engines.panels import panel
from tests.processes import BIN, environment
from tests.production.prometheus import server
from tests.production.prometheus.server import Prometheus

pytestmark = pytest.mark.engines

ROOT = Path(__file__).resolve().parents[2]
SERVER, PRODUCER, CONSUMER = 2, 4, 5
# What Elasticsearch keeps of fractions in the templates of these tests: 32 bits.
BITS = {"rel": 1e-6}
MODELS = ("small", "large")
Span = dict[str, Any]


@dataclass
class Everywhere:
    """One bulk in all places; ``spans`` as they were sent."""

    spans: list[Span]
    report: dict[str, Any]
    listed: dict[str, Any]  # the row of the list of bulks
    elasticsearch: str
    window: tuple[int, int]
    prometheus: Prometheus

    def kind(self, kind: int) -> list[Span]:
        """Return the bulk's spans of a kind, without reads of its progress."""
        found = [span for span in self.spans if span["kind"] == kind]
        return [span for span in found if span["attributes"].get(c.HTTP_REQUEST_METHOD) != "GET"]

    def inferences(self, model: str | None = None) -> list[Span]:
        return [
            span for span in self.spans
            if c.GEN_AI_MODEL in span["attributes"] and model in (None, span["attributes"][c.GEN_AI_MODEL])
        ]  # fmt: skip

    def of(self, name: str) -> dict[str, Any]:
        """Return a group of the report: a model or ``total``."""
        return next(group for group in (self.report["total"], *self.report["models"]) if group["name"] == name)

    def kibana(self, title: str, dashboard: str = "bulkscope-bulk") -> dict[str, Any]:
        (row,) = panel(self.elasticsearch, dashboard, title, self.window, thirteen.BULK)
        return row

    def model(self, name: str) -> dict[str, Any]:
        rows = panel(self.elasticsearch, "bulkscope-inference", "Models", self.window, thirteen.BULK)
        return next(row for row in rows if row["model"] == name)

    def rule(self, expression: str, **labels: str) -> float:
        """Return the only sample of a rule with ``labels``, times 300 for what is counted over 5 minutes."""
        found = [value for of, value in self.prometheus.query(expression) if labels.items() <= of.items()]
        assert len(found) == 1, (expression, labels, found)
        return found[0]


def seconds(spans: Sequence[Span]) -> list[float]:
    return [(span["end"] - span["start"]) / 1e9 for span in spans]


def attribute(spans: Sequence[Span], name: str) -> list[float]:
    return [span["attributes"][name] for span in spans if name in span["attributes"]]


def quantile(values: Sequence[float], q: float) -> float:
    """Type 7, by its textbook: the value at (n - 1) q steps from the least, between two of them in proportion."""
    ordered, at = sorted(values), (len(values) - 1) * q
    low = math.floor(at)
    return ordered[low] + (at - low) * (ordered[min(low + 1, len(ordered) - 1)] - ordered[low])


def near(values: Sequence[float], q: float) -> tuple[float, float]:
    """Return the two values between which any quantile lies, however it is interpolated (``t-digest``)."""
    ordered, at = sorted(values), len(values) * q
    return ordered[max(0, math.floor(at) - 1)], ordered[min(len(ordered) - 1, math.ceil(at))]


LATER_S = 0.02


def bucket(values: Sequence[float], q: float, metric: str) -> tuple[float, float]:
    """Return between which bounds a histogram's quantile lies: it is known to within the bucket of such a value."""
    (bounds,) = [each.buckets for each in c.METRICS if each.name == metric]
    low, high = near(values, q)
    # A histogram's duration is of a second reading of the clock, which a process that lost its core takes later.
    high += LATER_S
    return max((bound for bound in bounds if bound <= low), default=0.0), min(b for b in (*bounds, 1e99) if b >= high)


@pytest.fixture(scope="module")
def everywhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Everywhere]:
    folder = tmp_path_factory.mktemp("numbers")
    (folder / "prometheus").mkdir()
    with (
        servers.elasticsearch(folder / "elasticsearch") as engine,
        server.serve(folder / "prometheus", {}) as prometheus,
        sink.serve() as sent,
    ):
        templates.install(engine.url)
        jobs = str(folder / "jobs")
        for service, *arguments in (
            ("api", "api", jobs),
            ("worker", "work", jobs, *map(str, thirteen.FIRST)),
            ("worker", "work", jobs, *map(str, thirteen.SECOND)),
        ):
            _run(sent.url, service, *arguments)
        for path, body in sent.bodies:
            if path.endswith("/metrics"):
                assert sink.pass_on(prometheus.otlp, body) == 200
        stored = [
            document for path, body in sent.bodies if path.endswith("/traces")
            for document in bridge.spans(ExportTraceServiceRequest.FromString(body))
        ]  # fmt: skip
        assert bridge.store(engine.url, stored) == []
        servers.ask("POST", f"{engine.url}/traces-*/_refresh")
        store = homes.store(folder / "studio.duckdb", sent.bodies, "traces", "logs")
        report = reports.bulk_report(store, thirteen.BULK)
        listed = listing.one(store, listing.Verdicts(store), thirteen.BULK)
        assert listed is not None
        prometheus.wait(
            "300 * sum(queue_outcome_domain:messaging_process:rate5m)",
            lambda found: [round(v) for _, v in found] == [9],
        )
        times = [span["start"] // 10**6 for span in sent.spans]
        (at,) = prometheus.get("query", query="timestamp(bulkscope:rules:alive)")["result"]
        prometheus.at = float(at["value"][1])
        yield Everywhere(
            sent.spans, report, listed, engine.url, (min(times) - 1000, max(times) + 60_000), prometheus,
        )  # fmt: skip
        store.close()


def _run(url: str, service: str, *arguments: str) -> None:
    variables = environment(
        url, OTEL_SERVICE_NAME=service, OTEL_RESOURCE_ATTRIBUTES="deployment.environment.name=test",
        PYTHONPATH=str(ROOT),
    )  # fmt: skip
    command = [BIN / "bulkscope", "run", BIN / "python", ROOT / "tests" / "engines" / "thirteen.py", *arguments]
    subprocess.run(command, env=variables, check=True, timeout=120)


def exactly(wanted: float) -> Any:
    return pytest.approx(wanted, rel=1e-9)


def test_1_requests(everywhere: Everywhere) -> None:
    assert everywhere.report["requests"]["count"] == 4
    starts = [span["start"] for span in everywhere.kind(SERVER)]
    assert everywhere.report["requests"]["rate_per_s"] == exactly(4e9 / (max(starts) - min(starts)))
    listed = panel(everywhere.elasticsearch, "bulkscope-bulk", "Requests of this bulk", everywhere.window, "b")
    assert len(listed) == 4
    # All of the service, as the overview has it: the one that asks for progress too.
    assert everywhere.kibana("API requests", "bulkscope-overview") == {"requests": 5}
    assert everywhere.rule("300 * service:http_server_requests:rate5m") == exactly(5)
    assert everywhere.rule("300 * service_route:http_server_requests:rate5m", http_route="/bulks") == exactly(4)


def test_2_outcomes_of_requests(everywhere: Everywhere) -> None:
    wanted = {"ok": 1, "client_error": 1, "overload": 1, "internal_error": 1}
    assert everywhere.report["requests"]["outcomes"] == wanted
    rows = panel(everywhere.elasticsearch, "bulkscope-bulk", "Requests of this bulk", everywhere.window, "b")
    assert sorted(row["outcome"] for row in rows) == sorted(wanted)
    assert everywhere.kibana("Internal failures of the API", "bulkscope-overview") == {"internal": 1, "overload": 1}
    for outcome in wanted:
        rule = "300 * service_route_outcome:http_server_requests:rate5m"
        assert everywhere.rule(rule, bulk_outcome=outcome, http_route="/bulks") == exactly(1)


def test_3_latency_of_requests(everywhere: Everywhere) -> None:
    took = seconds(everywhere.kind(SERVER))
    report = everywhere.report["requests"]
    for name, q in (("p50", 0.5), ("p95", 0.95)):
        assert report["latency_s"][name] == exactly(quantile(took, q))
        rule = f"service_route:http_server_request_duration_seconds:{name}_5m"
        low, high = bucket(took, q, c.M_HTTP_SERVER_DURATION)
        assert low <= everywhere.rule(rule, http_route="/bulks") <= high
    rows = panel(everywhere.elasticsearch, "bulkscope-bulk", "Requests of this bulk", everywhere.window, "b")
    assert sorted(row["seconds"] for row in rows) == pytest.approx(sorted(took), **BITS)
    (enqueued,) = attribute(everywhere.kind(SERVER), c.BULK_ENQUEUE_DURATION)
    assert report["enqueue_s"] == exactly(enqueued)
    assert sum(row["enqueue"] or 0 for row in rows) == pytest.approx(enqueued, **BITS)


def test_4_jobs(everywhere: Everywhere) -> None:
    total = everywhere.of("total")["jobs"]
    assert (everywhere.report["progress"]["sent"], total["done"], total["attempts"], total["retries"]) == (8, 6, 9, 1)
    assert (everywhere.listed["sent_jobs"], everywhere.listed["done_jobs"]) == (8, 6)
    first = min(span["start"] for span in everywhere.kind(PRODUCER))
    makespan = (max(span["end"] for span in everywhere.kind(CONSUMER)) - first) / 1e9
    assert (total["makespan_s"], total["rate_per_s"]) == (exactly(makespan), exactly(6 / makespan))
    # A job of each model that was done, and the failed one of the large.
    assert [everywhere.of(model)["jobs"]["done"] for model in MODELS] == [3, 3]
    assert everywhere.kibana("Jobs")["done"] == everywhere.kibana("Jobs done", "bulkscope-overview")["done"] == 6
    (bulk,) = panel(everywhere.elasticsearch, "bulkscope-overview", "Newest bulks", everywhere.window)
    assert (bulk["done"], bulk["failed"], bulk["attempts"]) == (6, 2, 9)
    assert everywhere.rule("300 * queue:messaging_client_sent_messages:rate5m") == exactly(8)
    assert everywhere.rule("300 * queue_outcome_domain:messaging_process:rate5m", bulk_outcome="ok") == exactly(6)


def test_5_failures(everywhere: Everywhere) -> None:
    total = everywhere.of("total")["jobs"]
    assert (total["failed"], total["failures_by_domain"]) == (2, {"code": 1, "resource": 1})
    assert everywhere.listed["failed_jobs"] == 2
    assert everywhere.kibana("Jobs")["failed"] == 2
    rows = panel(everywhere.elasticsearch, "bulkscope-bulk", "Failed jobs by domain", everywhere.window, "b")
    assert {(row["domain"], row["result"], row["jobs"]) for row in rows} == {
        ("code", "failed", 1), ("resource", "failed", 1), ("timeout", "to be retried", 1),
    }  # fmt: skip
    for domain in ("code", "resource"):
        rule = "300 * queue_domain:messaging_process_failures:rate5m"
        assert everywhere.rule(rule, bulk_failure_domain=domain) == exactly(1)
    assert everywhere.rule("queue:messaging_process_failures:ratio_rate5m") == exactly(2 / 8)


def test_6_wait_and_work(everywhere: Everywhere) -> None:
    attempts = everywhere.kind(CONSUMER)
    waits, work = attribute(attempts, c.TIME_IN_QUEUE), seconds(attempts)
    assert (len(waits), len(work)) == (9, 9)
    jobs = everywhere.of("total")["jobs"]
    assert everywhere.listed["wait_mean_s"] == exactly(fmean(waits))
    assert jobs["wait_s"]["mean"] == exactly(fmean(waits))
    assert jobs["process_s"]["mean"] == exactly(fmean(work))
    for name, q in (("p50", 0.5), ("p95", 0.95)):
        assert jobs["wait_s"][name] == exactly(quantile(waits, q))
        for rule, values in ((c.M_QUEUE_WAIT, waits), (c.M_PROCESS_DURATION, work)):
            low, high = bucket(values, q, rule)
            assert low <= everywhere.rule(f"queue:{rule.replace('.', '_')}_seconds:{name}_5m") <= high
    assert everywhere.kibana("Mean wait in the queue") == {"mean": pytest.approx(fmean(waits), **BITS), "negative": 0}
    low, high = near(waits, 0.95)
    over_all = everywhere.kibana("Queue wait, 95th percentile", "bulkscope-overview")
    assert low * (1 - 1e-6) <= over_all["p95"] <= high * (1 + 1e-6)
    assert over_all["mean"] == pytest.approx(fmean(waits), **BITS)
    assert everywhere.rule("queue:bulk_job_queue_wait_seconds:mean5m") == exactly(fmean(waits))
    # The worker's clock of the duration is the one that does not step, read once more for the span.
    assert everywhere.rule("queue:messaging_process_duration_seconds:mean5m") == pytest.approx(fmean(work), abs=1e-6)


@pytest.mark.parametrize("model", MODELS)
def test_7_inference_time(everywhere: Everywhere, model: str) -> None:
    took = seconds(everywhere.inferences(model))
    assert len(took) == 4
    report, kibana = everywhere.of(model)["inferences"], everywhere.model(model)
    assert report["count"] == kibana["inferences"] == 4
    assert report["failed"] == 1
    for name, q in (("p50", 0.5), ("p95", 0.95)):
        assert report["duration_s"][name] == exactly(quantile(took, q))
        low, high = near(took, q)
        assert low * (1 - 1e-6) <= kibana[name] <= high * (1 + 1e-6)
        low, high = bucket(took, q, c.M_INFERENCE_DURATION)
        rule = f"model:gen_ai_client_operation_duration_seconds:{name}_5m"
        assert low <= everywhere.rule(rule, gen_ai_request_model=model) <= high
    assert report["ttft_s"]["p50"] == 0.005
    assert kibana["ttft"] == pytest.approx(0.005, **BITS)
    rule = "model:gen_ai_client_operation_duration_seconds:mean5m"
    assert everywhere.rule(rule, gen_ai_request_model=model) == pytest.approx(fmean(took), abs=1e-6)


@pytest.mark.parametrize("model", MODELS)
def test_8_cpu(everywhere: Everywhere, model: str) -> None:
    every, mine = everywhere.inferences(), everywhere.inferences(model)
    cpu, good = attribute(mine, c.CPU_TIME), [span for span in mine if c.GEN_AI_OUTPUT_TOKENS in span["attributes"]]
    report, kibana = everywhere.of(model)["inferences"], everywhere.model(model)
    assert len(cpu) == 4
    assert report["cpu_s"] == exactly(math.fsum(cpu))
    # By hand: 20 + 30 + 5 and 50 + 80 + 1 tokens; what failed has CPU and no tokens, and no part in the ratio.
    tokens = {"small": 55, "large": 131}[model]
    each = math.fsum(attribute(good, c.CPU_TIME)) / tokens
    assert report["cpu_s_per_output_token"] == exactly(each)
    assert kibana["cpu_per_token"] == pytest.approx(each, **BITS)
    all_cpu = math.fsum(attribute(every, c.CPU_TIME))
    assert everywhere.kibana("CPU seconds")["cpu"] == pytest.approx(all_cpu, **BITS)
    assert everywhere.of("total")["inferences"]["cpu_s"] == exactly(all_cpu)
    used = fmean(attribute(mine, c.CPU_UTILIZATION))
    assert report["cpu_utilization"]["mean"] == exactly(used)
    rule = "model:bulk_inference_cpu_time_seconds:mean5m"
    assert everywhere.rule(rule, gen_ai_request_model=model) == exactly(fmean(cpu))


@pytest.mark.parametrize("model", MODELS)
def test_9_memory(everywhere: Everywhere, model: str) -> None:
    peaks = attribute(everywhere.inferences(model), c.MEMORY_PEAK)
    report, kibana = everywhere.of(model)["inferences"], everywhere.model(model)
    assert report["memory_peak_bytes"] == kibana["peak"] == max(peaks)
    growth = max(attribute(everywhere.inferences(), c.MEMORY_GROWTH))
    assert everywhere.kibana("Peak memory of an inference") == {
        "peak": max(attribute(everywhere.inferences(), c.MEMORY_PEAK)), "growth": growth,
    }  # fmt: skip
    assert everywhere.of("total")["inferences"]["memory_growth_max_bytes"] == growth
    labels = {"gen_ai_request_model": model}
    assert everywhere.rule("model:bulk_inference_memory_peak_bytes:mean5m", **labels) == exactly(fmean(peaks))
    low, high = bucket(peaks, 0.95, c.M_INFERENCE_MEMORY_PEAK)
    assert low <= everywhere.rule("model:bulk_inference_memory_peak_bytes:p95_5m", **labels) <= high


@pytest.mark.parametrize(("model", "generated", "given", "cached"), [("small", 55, 30, 4), ("large", 131, 300, 60)])
def test_10_and_11_tokens(everywhere: Everywhere, model: str, generated: int, given: int, cached: int) -> None:
    report, kibana = everywhere.of(model)["inferences"], everywhere.model(model)
    assert (report["output_tokens"], report["input_tokens"], report["cached_tokens"]) == (generated, given, cached)
    assert (kibana["output"], kibana["input"]) == (generated, given)
    assert everywhere.kibana("Tokens") == {"output": 55 + 131, "input": 30 + 300}
    labels = {"gen_ai_request_model": model}
    assert everywhere.rule("300 * model:gen_ai_output_tokens:rate5m", **labels) == exactly(generated)
    assert everywhere.rule("300 * model:gen_ai_input_tokens:rate5m", **labels) == exactly(given)


# By hand: tokens that decode yields, n - 1 of each inference of two or more, over the seconds that were said.
@pytest.mark.parametrize(
    ("model", "generated", "decoded", "decoding"),
    [("small", 55, 19 + 29 + 4, 0.015 + 0.02 + 0.004), ("large", 131, 49 + 79, 0.03 + 0.035)],
)
def test_12_tokens_per_second(
    everywhere: Everywhere, model: str, generated: int, decoded: int, decoding: float
) -> None:
    good = [span for span in everywhere.inferences(model) if c.GEN_AI_OUTPUT_TOKENS in span["attributes"]]
    rate = generated / math.fsum(seconds(good))
    report, kibana = everywhere.of(model)["inferences"], everywhere.model(model)
    assert report["tokens_per_s"] == exactly(rate)
    assert kibana["rate"] == pytest.approx(rate, **BITS)
    assert report["decode_tokens_per_s"] == exactly(decoded / decoding)
    assert kibana["decode_rate"] == pytest.approx(decoded / decoding, **BITS)
    rule = "model:gen_ai_output_tokens_per_second:ratio_rate5m"
    assert everywhere.rule(rule, gen_ai_request_model=model) == pytest.approx(rate, rel=1e-4)
    low, high = bucket(attribute(good, c.TOKENS_PER_SECOND), 0.5, c.M_TOKENS_PER_SECOND)
    assert low <= everywhere.rule("model:bulk_inference_tokens_per_second:p50_5m", gen_ai_request_model=model) <= high


def test_13_wait_ratio(everywhere: Everywhere) -> None:
    attempts = everywhere.kind(CONSUMER)
    waits, delays = attribute(attempts, c.TIME_IN_QUEUE), attribute(attempts, c.JOB_DELAY)
    every = zip(waits, delays, seconds(attempts), strict=True)
    ratio = fmean(wait / (wait + delay + work) for wait, delay, work in every)
    assert everywhere.of("total")["jobs"]["wait_ratio"]["mean"] == exactly(ratio)
    assert everywhere.kibana("Wait ratio")["ratio"] == pytest.approx(ratio, **BITS)
    assert everywhere.kibana("Wait ratio", "bulkscope-overview")["ratio"] == pytest.approx(ratio, **BITS)
    assert everywhere.rule("queue:bulk_job_wait_ratio:mean5m") == exactly(ratio)
