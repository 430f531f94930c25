"""The rules and alerts of ``prometheus/``: by promtool on written samples, in a real Prometheus on real telemetry."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import yaml

from bulkscope import conventions
from prometheus import build
from tests.engines.binaries import binary
from tests.processes import BIN, environment, free_port
from tests.production.prometheus import server
from tests.production.prometheus.server import FOLDER, Prometheus

ROOT = FOLDER.parent
HERE = Path(__file__).parent / "prometheus"
RUNBOOKS = ROOT / "docs" / "runbooks"
GROUPS = [group for path in sorted(FOLDER.glob("rules/*.yml")) for group in yaml.safe_load(path.read_text())["groups"]]
RULES: list[dict[str, Any]] = [rule for group in GROUPS for rule in group["rules"]]
RECORDED = {rule["record"]: rule["expr"] for rule in RULES if "record" in rule}
ALERTS = {rule["alert"]: rule for rule in RULES if "alert" in rule}
UNIT_TESTS = sorted(HERE.glob("*.yml"))

# What Prometheus makes of the names of our instruments; test_names_of_our_metrics holds it against the real one.
UNITS = {"s": "_seconds", "By": "_bytes", "{token}/s": "_per_second"}


def prometheus_name(metric: conventions.Metric) -> str:
    """Return the metric's name in Prometheus, without a histogram's ``_bucket``, ``_sum`` or ``_count``."""
    name = metric.name.replace(".", "_") + UNITS.get(metric.unit, "")
    if metric.kind == "counter":
        return name + "_total"
    return name + "_ratio" if metric.kind != "histogram" and metric.unit == "1" else name


def metrics_of(number: int) -> set[str]:
    return {prometheus_name(m) for m in conventions.METRICS if str(number) in m.number.split(",")}


def sources(expression: str) -> set[str]:
    """Return the names that an expression rests on, through recorded ones down to what was sent."""
    found: set[str] = set()
    pending = [expression]
    while pending:
        for name in re.findall(r"[a-zA-Z_][\w:]*", re.sub(r'"[^"]*"', "", pending.pop())):
            if name not in found:
                found.add(name)
                pending += [RECORDED[name]] if name in RECORDED else []
    return {re.sub(r"_(bucket|sum|count)$", "", name) for name in found}


def test_the_built_rules_are_what_the_source_says() -> None:
    assert build.BUILT.read_text() == build.built(), "run python -m prometheus.build"


def test_how_a_rate_is_made_stands_once() -> None:
    """A counter whose series may be new has its rate by ``build.Levels.rate``; no other rule has it by hand."""
    by_hand = [rule["expr"] for rule in yaml.safe_load(build.SOURCE.read_text())["rules"] if "expr" in rule]
    assert len(by_hand) > 10
    assert not [expr for expr in by_hand if "rate(" in expr]
    assert sum("unless on (job, instance) job_instance:telemetry:resumed" in expr for expr in RECORDED.values()) > 30


SOURCE = "about: x\ngroup: g\nlevels: {queue: [environment, destination]}\nrules:\n"


@pytest.mark.parametrize(
    ("rule", "says"),
    [
        ("{record: a}", "one of rate, histogram, expr"),
        ("{rate: a_total, record: a, per: queue}", "per is not known; there are about, by"),
        ("{rate: a_total, record: a}", "a: lacks 'by'"),
        ("{histogram: a, level: queue}", "a: lacks 'quantiles'"),
        ("{", "cannot be read as YAML"),
    ],
)
def test_a_wrong_source_says_where(tmp_path: Path, rule: str, says: str) -> None:
    path = tmp_path / "numbers.yaml"
    path.write_text(f"{SOURCE}  - {rule}\n")
    with pytest.raises(build.BadSource) as raised:
        build.built(path)
    assert says in str(raised.value)
    assert "numbers.yaml" in str(raised.value)


def test_a_rate_stands_in_any_expression(tmp_path: Path) -> None:
    path = tmp_path / "numbers.yaml"
    rule = '  - record: r\n    expr: |\n      2 * (\n        {rate: a_total{x="1"}, by: queue, kind}\n      ) > 0\n'
    path.write_text(SOURCE + rule)
    (made,) = yaml.safe_load(build.built(path))["groups"][0]["rules"]
    assert made["record"] == "r"
    assert re.sub(r"\s+", " ", made["expr"]).strip() == (
        '2 * ( sum by (environment, destination, kind) ( ( (a_total{x="1"} unless a_total{x="1"} offset 5m) / 300 or '
        'rate(a_total{x="1"}[5m]) ) unless on (job, instance) job_instance:telemetry:resumed ) ) > 0'
    )


def test_every_rule_is_there_once() -> None:
    assert len(RULES) == len(RECORDED) + len(ALERTS)


@pytest.mark.engines
@pytest.mark.parametrize("command", [["config", "prometheus.yml"], ["rules", "--lint=all", "--lint-fatal"]])
def test_promtool_accepts(command: list[str]) -> None:
    files = [] if command[0] == "config" else [str(path) for path in sorted(FOLDER.glob("rules/*.yml"))]
    done = subprocess.run([binary("promtool"), "check", *command, *files], cwd=FOLDER, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.engines
@pytest.mark.parametrize("path", UNIT_TESTS, ids=lambda path: path.stem)
def test_unit_tests_of_the_rules(path: Path) -> None:
    done = subprocess.run([binary("promtool"), "test", "rules", path], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_is_seen_firing_in_a_unit_test() -> None:
    expected = {
        name
        for path in UNIT_TESTS
        for case in yaml.safe_load(path.read_text())["tests"]
        for check in case["promql_expr_test"]
        for sample in check.get("exp_samples") or ()
        for name in re.findall(r'alertname="(\w+)"', sample["labels"])
    }
    assert expected == ALERTS.keys()


def test_every_alert_has_a_page_and_every_page_an_alert() -> None:
    assert {path.stem for path in RUNBOOKS.iterdir()} == ALERTS.keys()
    for name, rule in ALERTS.items():
        assert rule["annotations"]["runbook_url"] == f"docs/runbooks/{name}.md"
        page = (ROOT / rule["annotations"]["runbook_url"]).read_text()
        assert page.startswith(f"# {name}\n")
        headings = re.findall(r"^## (.+)", page, re.MULTILINE)
        assert headings == ["What it means", "How to see it", "First three things", "When it is a false alarm"], name
        assert re.findall(r"^(\d)\. ", page, re.MULTILINE) == ["1", "2", "3"], name
        assert f"Severity: {rule['labels']['severity']}." in page, name


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_says_how_bad_how_long_and_how_much(name: str) -> None:
    rule = ALERTS[name]
    assert rule["labels"]["severity"] in ("warning", "critical")
    assert rule["for"]
    assert "$labels." in rule["annotations"]["summary"]
    assert "$value" in rule["annotations"]["summary"] + rule["annotations"]["description"]


@pytest.mark.parametrize("number", range(1, 14))
def test_every_number_is_recorded(number: int) -> None:
    wanted = metrics_of(number)
    assert wanted
    missing = wanted - {name for expression in RECORDED.values() for name in sources(expression)}
    assert not missing, f"number {number}: no recording rule uses {missing}"


def test_rules_rest_on_what_is_sent() -> None:
    """A misspelt name gives no sample and no error: every name of ours must be one of our instruments'."""
    known = {prometheus_name(metric) for metric in conventions.METRICS}
    used = {name for rule in RULES for name in sources(rule["expr"])}
    ours = re.compile(r"(http_server|messaging|gen_ai|bulk|process)_\w+_(seconds|bytes|total|ratio|usage|depth|busy)$")
    strange = {name for name in used if ours.match(name)} - known
    assert not strange


def test_pages_ask_for_what_is_recorded() -> None:
    for path in RUNBOOKS.glob("*.md"):
        named = re.findall(r"\b[a-z_]+:[a-z_]+:[a-z0-9_]+\b", path.read_text())
        assert set(named) <= RECORDED.keys(), path.name


# --- in a real Prometheus ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """One that has received seven requests of an API and twelve jobs of two processes of a worker."""
    folder = tmp_path_factory.mktemp("prometheus")
    with server.serve(folder, {}) as running:
        jobs = folder / "jobs"
        _run(running, "api", "api", str(jobs))
        _run(running, "worker", "work", str(jobs), "0", "7")
        _run(running, "worker", "work", str(jobs), "8", "11")
        running.wait("queue:bulk_queue_depth:max")
        running.wait("service_signal_reason:bulk_telemetry_dropped:rate5m")
        running.wait("300 * queue:messaging_process:rate5m", lambda found: [round(v, 6) for _, v in found] == [12])
        running.at = time.time()
        yield running


def _run(running: Prometheus, service: str, *arguments: str) -> None:
    variables = environment(
        "http://127.0.0.1:1",
        OTEL_EXPORTER_OTLP_METRICS_ENDPOINT=running.otlp,
        OTEL_TRACES_EXPORTER="none",
        OTEL_LOGS_EXPORTER="none",
        OTEL_SERVICE_NAME=service,
        OTEL_RESOURCE_ATTRIBUTES="deployment.environment.name=test",
        PYTHONPATH=str(ROOT),
    )
    command = [BIN / "bulkscope", "run", BIN / "python", HERE / "service.py", *arguments]
    subprocess.run(command, env=variables, check=True, timeout=120)


def test_names_of_our_metrics(prometheus: Prometheus) -> None:
    stored = {re.sub(r"_(bucket|sum|count)$", "", name) for name in prometheus.get("label/__name__/values")}
    limited = {conventions.M_WORKER_MEMORY_UTILIZATION, conventions.M_WORKER_CPU_THROTTLED}  # by a cgroup, if at all
    assert {prometheus_name(metric) for metric in conventions.METRICS if metric.name not in limited} <= stored
    ((labels, _),) = prometheus.query('http_server_request_duration_seconds_count{bulk_outcome="overload"}')
    assert labels.items() >= {"job": "api", "service_name": "api", "deployment_environment_name": "test"}.items()
    assert labels["instance"] == labels["service_instance_id"]
    assert labels["host_name"]


def test_all_rules_are_evaluated_without_an_error(prometheus: Prometheus) -> None:
    prometheus.wait("count(ALERTS)")
    groups = prometheus.get("rules")["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert {rule["name"] for rule in rules} == RECORDED.keys() | ALERTS.keys()
    assert [(rule["name"], rule.get("lastError")) for rule in rules if rule["health"] == "err"] == []


@pytest.mark.parametrize("name", [*RECORDED, *ALERTS])
def test_an_expression_is_answered(prometheus: Prometheus, name: str) -> None:
    prometheus.query(RECORDED[name] if name in RECORDED else ALERTS[name]["expr"])


API, QUEUE = 'service_name="api"', 'messaging_destination_name="prompts"'
SMALL, LARGE = 'gen_ai_request_model="small"', 'gen_ai_request_model="large"'
IN_5_MINUTES = 1 / 300


@dataclass(frozen=True)
class Known:
    """A rule's one sample: its value, or a query of what was sent that must give the same."""

    query: str
    value: float | str


def _quantile(q: float, metric: str, labels: str) -> str:
    return f"histogram_quantile({q}, sum by (le) ({metric}_bucket{{{labels}}}))"


def _mean(metric: str, labels: str) -> str:
    return f"sum({metric}_sum{{{labels}}}) / sum({metric}_count{{{labels}}})"


HTTP, WAIT, WORK = (
    "http_server_request_duration_seconds", "bulk_job_queue_wait_seconds", "messaging_process_duration_seconds",
)  # fmt: skip
INFERENCE, CPU, PEAK = (
    "gen_ai_client_operation_duration_seconds", "bulk_inference_cpu_time_seconds", "bulk_inference_memory_peak_bytes",
)  # fmt: skip
RATE, RATIO = "bulk_inference_tokens_per_second_per_second", "bulk_job_wait_ratio"

# The service's numbers: 7 requests, of which 1 overload and 1 internal error; 12 jobs in 2 processes, 2 failed,
# 1 more was not sent and 2 were cancelled; 8 inferences of the small model with 10 and 20 tokens, 4 of the large one
# with 100 and 50.
NUMBERS: dict[int, list[Known]] = {
    1: [
        Known(f"service:http_server_requests:rate5m{{{API}}}", 7 * IN_5_MINUTES),
        Known(f'service_route:http_server_requests:rate5m{{{API},http_route="/bulks/{{number}}"}}', 7 * IN_5_MINUTES),
    ],
    2: [
        Known(f'service_outcome:http_server_requests:ratio_rate5m{{{API},bulk_outcome="ok"}}', 4 / 7),
        Known(f'service_outcome:http_server_requests:ratio_rate5m{{{API},bulk_outcome="client_error"}}', 1 / 7),
        Known(f"service:http_server_requests_overload:ratio_rate5m{{{API}}}", 1 / 7),
        Known(f"service:http_server_requests_internal_error:ratio_rate5m{{{API}}}", 1 / 7),
    ],
    3: [
        Known(f"service_route:{HTTP}:p50_5m{{{API}}}", _quantile(0.5, HTTP, API)),
        Known(f"service_route:{HTTP}:p95_5m{{{API}}}", _quantile(0.95, HTTP, API)),
        Known(
            f"queue:messaging_client_operation_duration_seconds:p95_5m{{{QUEUE}}}",
            _quantile(0.95, "messaging_client_operation_duration_seconds", QUEUE),
        ),
    ],
    4: [
        Known(f"queue:messaging_client_sent_messages:rate5m{{{QUEUE}}}", 12 * IN_5_MINUTES),
        Known(f'queue_outcome:messaging_client_sent_messages:rate5m{{{QUEUE},bulk_outcome="not_sent"}}', IN_5_MINUTES),
        Known(f'queue_reason:bulk_job_cancelled:rate5m{{{QUEUE},error_type="expired"}}', 2 * IN_5_MINUTES),
        Known(f"queue:messaging_client_consumed_messages:rate5m{{{QUEUE}}}", 12 * IN_5_MINUTES),
        Known(f"queue:messaging_process:rate5m{{{QUEUE}}}", 12 * IN_5_MINUTES),
    ],
    5: [
        Known('queue_domain:messaging_process_failures:ratio_rate5m{bulk_failure_domain="resource"}', 1 / 12),
        Known('queue_domain:messaging_process_failures:ratio_rate5m{bulk_failure_domain="code"}', 1 / 12),
        Known(f"queue:messaging_process_failures:ratio_rate5m{{{QUEUE}}}", 2 / 12),
    ],
    6: [
        Known(f"queue:{WAIT}:mean5m{{{QUEUE}}}", _mean(WAIT, QUEUE)),
        Known(f"queue:{WAIT}:p95_5m{{{QUEUE}}}", _quantile(0.95, WAIT, QUEUE)),
        Known(f"queue:{WORK}:mean5m{{{QUEUE}}}", _mean(WORK, QUEUE)),
        Known(f"queue:{WORK}:p50_5m{{{QUEUE}}}", _quantile(0.5, WORK, QUEUE)),
    ],
    7: [
        Known(f"model:{INFERENCE}:mean5m{{{SMALL}}}", _mean(INFERENCE, SMALL)),
        Known(f"model:{INFERENCE}:p95_5m{{{LARGE}}}", _quantile(0.95, INFERENCE, LARGE)),
    ],
    8: [
        Known(f"model:{CPU}:mean5m{{{SMALL}}}", _mean(CPU, SMALL)),
        Known(
            f"model:bulk_inference_cpu_cores:ratio_rate5m{{{SMALL}}}",
            f"sum({CPU}_sum{{{SMALL}}}) / sum({INFERENCE}_sum{{{SMALL}}})",
        ),
        Known(
            'service:process_cpu_utilization:max{service_name="worker"}',
            'max(process_cpu_utilization_ratio{service_name="worker"})',
        ),
    ],
    9: [
        Known(f"model:{PEAK}:mean5m{{{LARGE}}}", _mean(PEAK, LARGE)),
        Known(
            'service:process_memory_usage_bytes:max{service_name="worker"}',
            'max(process_memory_usage_bytes{service_name="worker"})',
        ),
    ],
    10: [
        Known(f"model:gen_ai_output_tokens:rate5m{{{SMALL}}}", 8 * 20 * IN_5_MINUTES),
        Known(f"model:gen_ai_output_tokens:rate5m{{{LARGE}}}", 4 * 50 * IN_5_MINUTES),
        Known(f'model_type:gen_ai_client_token_usage:mean5m{{{LARGE},gen_ai_token_type="output"}}', 50),
    ],
    11: [
        Known(f"model:gen_ai_input_tokens:rate5m{{{SMALL}}}", 8 * 10 * IN_5_MINUTES),
        Known(f"model:gen_ai_input_tokens:rate5m{{{LARGE}}}", 4 * 100 * IN_5_MINUTES),
        Known(f"model:gen_ai_seconds_per_token:ratio_rate5m{{{LARGE}}}", f"sum({INFERENCE}_sum{{{LARGE}}}) / 600"),
    ],
    12: [
        # Inferences of jobs that fail afterwards have no error of their own.
        Known(
            f"model:gen_ai_output_tokens_per_second:ratio_rate5m{{{SMALL}}}",
            f"160 / sum({INFERENCE}_sum{{{SMALL}}})",
        ),
        Known(f"model:bulk_inference_tokens_per_second:p50_5m{{{SMALL}}}", _quantile(0.5, RATE, SMALL)),
    ],
    13: [
        Known(f"queue:bulk_job_wait_ratio:mean5m{{{QUEUE}}}", _mean(RATIO, QUEUE)),
        Known(f"queue:bulk_job_wait_ratio:p50_5m{{{QUEUE}}}", _quantile(0.5, RATIO, QUEUE)),
    ],
}  # fmt: skip


@pytest.mark.parametrize("number", range(1, 14))
def test_a_number_has_the_value_that_was_sent(prometheus: Prometheus, number: int) -> None:
    for known in NUMBERS[number]:
        samples = prometheus.query(known.query)
        assert len(samples) == 1, (known.query, samples)
        expected = known.value
        if isinstance(expected, str):
            ((_, expected),) = prometheus.query(expected)
        assert samples[0][1] == pytest.approx(expected, rel=1e-9), known.query
        assert samples[0][1] > 0, known.query


def test_what_an_inference_took_is_what_it_did(prometheus: Prometheus) -> None:
    """Each burns 20 ms of CPU and then sleeps for 20: at least as much must be recorded."""
    for model in (SMALL, LARGE):
        ((_, seconds),) = prometheus.query(f"model:{INFERENCE}:mean5m{{{model}}}")
        ((_, cpu),) = prometheus.query(f"model:{CPU}:mean5m{{{model}}}")
        assert seconds > 0.04
        assert cpu > 0.019
        assert cpu < seconds


def test_queue_and_losses(prometheus: Prometheus) -> None:
    assert [value for _, value in prometheus.query(f"queue:bulk_queue_depth:max{{{QUEUE}}}")] == [7]
    oldest = prometheus.query(f"queue:bulk_queue_oldest_age_seconds:max{{{QUEUE}}}")
    assert [value for _, value in oldest] == [3.5]
    assert [v for _, v in prometheus.query(f"queue:bulk_worker_busy:sum{{{QUEUE}}}")] == [0]
    lost = prometheus.query("service_signal_reason:bulk_telemetry_dropped:rate5m * 300")
    assert [(labels["signal"], labels["error_type"], round(v, 6)) for labels, v in lost] == [
        ("traces", "queue_full", 5)
    ]


def test_a_loss_is_told_at_once(prometheus: Prometheus) -> None:
    """The first sample of the counter is the loss: no step from 0 has ever been seen."""
    told = prometheus.wait('ALERTS{alertname="BulkscopeTelemetryDropped"}')
    assert [labels["service_name"] for labels, _ in told] == ["api"]


# --- with the real Collector, and with services that are scraped ---------------------------------------------------


@pytest.fixture
def metrics_page() -> Iterator[str]:
    """Address of a service with a ``/metrics`` page."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = b'http_server_request_duration_seconds_count{http_route="/x"} 3\n'
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: Any) -> None:
            pass

    page = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=page.serve_forever, args=(0.02,), daemon=True).start()
    yield f"127.0.0.1:{page.server_port}"
    page.shutdown()
    page.server_close()


@pytest.mark.engines
def test_scraped_services_are_told_apart(tmp_path: Path, metrics_page: str) -> None:
    with server.serve(tmp_path, {}) as running:
        named = [{"targets": [metrics_page.replace("127.0.0.1", "localhost")], "labels": {"service_name": "shop"}}]
        (tmp_path / "targets" / "shop.json").write_text(json.dumps(named))
        (tmp_path / "targets" / "other.json").write_text(json.dumps([{"targets": [metrics_page]}]))
        found = running.wait("service:http_server_requests:rate5m", lambda samples: len(samples) == 2)
        assert {labels["service_name"] for labels, _ in found} == {"shop", metrics_page}
        running.wait('up{job="prometheus"} == 1')  # its own first scrape may come later


def _collector(folder: Path, prometheus: str, port: int) -> Path:
    """Write a Collector that sends host metrics to Prometheus, and in vain to nowhere; its own are at ``port``."""
    cpu = {"system.cpu.utilization": {"enabled": True}, "system.cpu.logical.count": {"enabled": True}}
    memory = {"system.memory.utilization": {"enabled": True}}
    scrapers = {"cpu": {"metrics": cpu}, "memory": {"metrics": memory}, "load": {}}
    reader = {"pull": {"exporter": {"prometheus": {"host": "127.0.0.1", "port": port}}}}
    config = {
        "receivers": {"hostmetrics": {"collection_interval": "1s", "scrapers": scrapers}},
        "processors": {"resourcedetection": {"detectors": ["system"]}},
        "exporters": {
            "otlphttp/prometheus": {"endpoint": f"{prometheus}/api/v1/otlp"},
            "otlphttp/nowhere": {"endpoint": "http://127.0.0.1:1", "retry_on_failure": {"enabled": False}},
        },
        "service": {
            "telemetry": {"metrics": {"readers": [reader]}},
            "pipelines": {
                "metrics": {
                    "receivers": ["hostmetrics"],
                    "processors": ["resourcedetection"],
                    "exporters": ["otlphttp/prometheus", "otlphttp/nowhere"],
                }
            },
        },
    }
    path = folder / "collector.yml"
    path.write_text(yaml.safe_dump(config))
    return path


@pytest.mark.engines
def test_rules_of_hosts_and_of_the_collector(tmp_path: Path) -> None:
    port = free_port()
    otelcol = binary("otelcol")
    with server.serve(tmp_path, {"otel-collector": f"127.0.0.1:{port}"}) as running:
        path = _collector(tmp_path, running.url, port)
        with (
            (tmp_path / "collector.log").open("w") as log,
            subprocess.Popen([otelcol, f"--config={path}"], stdout=log, stderr=log) as process,
        ):
            try:
                for rule in ("host:memory_used:ratio", "host:cpu_utilization:ratio"):
                    ((labels, share),) = running.wait(rule)
                    assert 0 <= share <= 1
                    assert labels.keys() == {"host_name"}
                ((_, cores),) = running.query("system_cpu_logical_count")
                assert cores == os.cpu_count()
                assert running.wait("host:load_per_core:ratio")
                assert running.wait("host:telemetry:present")
                filled = running.wait("collector_exporter:otelcol_exporter_queue:ratio", lambda found: len(found) >= 2)
                assert {labels["exporter"] for labels, _ in filled} == {"otlphttp/prometheus", "otlphttp/nowhere"}
                losing = running.wait(ALERTS["BulkscopeCollectorLosing"]["expr"])
                assert [labels["exporter"] for labels, _ in losing] == ["otlphttp/nowhere"]
            finally:
                process.terminate()
