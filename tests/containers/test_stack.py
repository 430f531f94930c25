"""``./run stack`` in real containers: it comes up by README's commands, and the demo's numbers are in both backends."""

from __future__ import annotations

import stat
import subprocess
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from stack import envfile
from stack.passwords import MEANINGS
from tests.containers import bulks, images
from tests.containers.bulks import MODELS, PROMPTS, eventually
from tests.containers.stack import HOST, Stack, call, readme_commands
from tests.processes import BIN, free_port, wait_for_listener

pytestmark = pytest.mark.timeout(1800)

ONE_SHOTS = {"setup", "setup-kibana"}


def test_init_writes_the_passwords_once_and_for_their_owner_alone(stack: Stack) -> None:
    assert stack.said["init"].code == 0
    folder = envfile.secrets_folder(stack.env_file)
    assert stat.S_IMODE(stack.env_file.stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    before = {name: stack.secret(name) for name in MEANINGS}, stack.env_file.read_text()
    assert len(set(before[0].values())) == len(MEANINGS)
    assert stack.run("init").code == 0
    assert ({name: stack.secret(name) for name in MEANINGS}, stack.env_file.read_text()) == before


def test_every_service_is_healthy(stack: Stack) -> None:
    found = stack.containers()
    assert set(found) == set(stack.compose()["services"])
    for name, container in found.items():
        state = container["State"]
        if name in ONE_SHOTS:
            assert (state["Status"], state["ExitCode"]) == ("exited", 0), name
        else:
            assert state["Status"] == "running", name
            assert state.get("Health", {}).get("Status", "healthy") == "healthy", name
            assert container["RestartCount"] == 0, name


def test_the_images_are_those_that_are_pinned(stack: Stack) -> None:
    used = {container["Config"]["Image"] for container in stack.containers().values()}
    assert used == set(images.pinned().values())


def test_status_says_that_all_is_well(stack: Stack) -> None:
    said = stack.run(*readme_commands()[2][2:])
    assert said.code == 0, said.text
    assert "!!" not in said.text
    assert sum(line.startswith("ok") for line in said.text.splitlines()) >= 7


def test_a_second_up_changes_nothing(stack: Stack) -> None:
    def running() -> dict[str, tuple[str, str]]:
        found = stack.containers().items()
        return {name: (one["Id"], one["State"]["StartedAt"]) for name, one in found if name not in ONE_SHOTS}

    before = running()
    said = stack.run("up", "--demo", name="second up")
    assert said.code == 0, said.text
    assert running() == before


def test_readmes_three_commands_are_what_is_run_here(stack: Stack, tmp_path: Path) -> None:
    up, service, status = readme_commands()
    assert up == ["./run", "stack", "up"]
    assert status == ["./run", "stack", "status"]
    assert stack.said["up"].code == 0  # by its words, with the demo's option
    (tmp_path / "app.py").write_text("import fastapi\napp = fastapi.FastAPI()\napp.get('/mine')(lambda: 1)\n")
    port = free_port()
    # Its own port, and the stack's port for OTLP, which are free ones here.
    environment = stack.environment(
        OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{stack.port('OTLP_HTTP_PORT')}",
        OTEL_RESOURCE_ATTRIBUTES=f"host.name={HOST}",
    )
    environment["PATH"] = f"{BIN}:{environment['PATH']}"
    process = subprocess.Popen([*service, "--port", str(port)], cwd=tmp_path, env=environment)
    try:
        wait_for_listener(port)
        assert urllib.request.urlopen(f"http://127.0.0.1:{port}/mine", timeout=60).status == 200
    finally:
        process.terminate()
        process.wait(60)
    query = {"query": {"term": {"attributes.http.route": "/mine"}}}
    eventually(lambda: stack.elasticsearch("POST", "/traces-*/_search", query)["hits"]["hits"])


@pytest.fixture(scope="module")
def sent(stack: Stack) -> dict[str, dict[str, Any]]:
    """The report from Elasticsearch of a bulk for each model, when all of it is there."""
    for model in MODELS:
        bulks.send(stack, f"bulk-{model}", model)
    for model in MODELS:
        assert bulks.done(stack, f"bulk-{model}")["done"] == len(PROMPTS)

    def whole(model: str) -> Any:
        found = stack.report(f"bulk-{model}")
        return found["complete"] and found["total"]["inferences"]["count"] == len(PROMPTS) and found

    return {model: eventually(lambda model=model: whole(model)) for model in MODELS}


def documents(stack: Stack, signal: str, bulk: str) -> list[dict[str, Any]]:
    """Return what Elasticsearch has of a bulk's spans or log records."""
    query = {"size": 1000, "query": {"term": {"attributes.bulk.id": bulk}}}
    found = stack.elasticsearch("POST", f"/{signal}-*/_search", query)["hits"]["hits"]
    return [hit["_source"] for hit in found]


# Where a report says each of the thirteen numbers.
IN_THE_REPORT = {
    1: "requests.count",
    2: "requests.outcomes.ok",
    3: "requests.latency_s",
    4: "total.jobs.done",
    5: "total.jobs.failed",
    6: "total.jobs.wait_s",
    7: "total.inferences.duration_s",
    8: "total.inferences.cpu_s",
    9: "total.inferences.memory_peak_bytes",
    10: "total.inferences.output_tokens",
    11: "total.inferences.input_tokens",
    12: "total.inferences.tokens_per_s",
    13: "total.jobs.wait_ratio",
}


@pytest.mark.parametrize("model", MODELS)
def test_all_thirteen_numbers_are_in_elasticsearch(sent: dict[str, dict[str, Any]], model: str) -> None:
    for number, path in IN_THE_REPORT.items():
        found: Any = sent[model]
        for name in path.split("."):
            found = found[name]
        assert found is not None, (number, path)
    assert sent[model]["lost"] == []
    assert [group["name"] for group in sent[model]["models"]] == [model]


# The metric of each of the thirteen numbers, with what must be equal there: of one model, where the metric knows it.
IN_PROMETHEUS = {
    1: 'sum(http_server_request_duration_seconds_count{http_route="/bulks"})',
    2: 'sum(http_server_request_duration_seconds_count{http_route="/bulks",bulk_outcome="ok"})',
    3: "sum(messaging_client_operation_duration_seconds_count)",
    4: "sum(messaging_client_sent_messages_total)",
    5: "sum(messaging_process_duration_seconds_count)",
    6: "sum(bulk_job_queue_wait_seconds_count)",
    7: 'sum(gen_ai_client_operation_duration_seconds_count{gen_ai_request_model="MODEL"})',
    8: 'sum(bulk_inference_cpu_time_seconds_sum{gen_ai_request_model="MODEL"})',
    9: 'sum(bulk_inference_memory_peak_bytes_count{gen_ai_request_model="MODEL"})',
    10: 'sum(gen_ai_client_token_usage_sum{gen_ai_request_model="MODEL",gen_ai_token_type="output"})',
    11: 'sum(gen_ai_client_token_usage_sum{gen_ai_request_model="MODEL",gen_ai_token_type="input"})',
    # Prometheus puts the unit behind the name, which has it already.
    12: 'sum(bulk_inference_tokens_per_second_per_second_count{gen_ai_request_model="MODEL"})',
    13: "sum(bulk_job_wait_ratio_count)",
}


@pytest.mark.parametrize("model", MODELS)
def test_all_thirteen_numbers_are_in_prometheus_and_say_the_same(
    stack: Stack, sent: dict[str, dict[str, Any]], model: str
) -> None:
    each = sent[model]["total"]["inferences"]
    both, one = float(len(MODELS) * len(PROMPTS)), float(len(PROMPTS))
    wanted = {
        1: float(len(MODELS)), 2: float(len(MODELS)), 3: both, 4: both, 5: both, 6: both, 13: both,
        7: one, 8: pytest.approx(each["cpu_s"], rel=1e-6), 9: one,
        10: each["output_tokens"], 11: each["input_tokens"], 12: one,
    }  # fmt: skip
    for number, query in IN_PROMETHEUS.items():
        query = query.replace("MODEL", model)

        def same(query: str = query, number: int = number) -> bool:
            found = stack.value(query)
            assert found == wanted[number], (number, query, found, wanted[number])
            return True

        eventually(same)


@pytest.mark.parametrize("model", MODELS)
def test_cpu_and_peak_memory_are_exact_and_the_limit_is_the_containers(
    stack: Stack, sent: dict[str, dict[str, Any]], model: str
) -> None:
    found = sent[model]["total"]["inferences"]
    assert found["cpu_exact_share"] == 1.0
    assert found["memory_exact_share"] == 1.0
    limit = int(stack.compose()["services"]["worker"]["mem_limit"])
    assert found["memory_limit_bytes"] == limit == stack.containers()["worker"]["HostConfig"]["Memory"]
    assert 0 < found["memory_peak_bytes"] < limit
    assert found["cpu_s"] > 0


def test_what_was_measured_is_the_unprivileged_container(stack: Stack, sent: dict[str, dict[str, Any]]) -> None:
    worker = stack.containers()["worker"]
    spans = documents(stack, "traces", f"bulk-{MODELS[0]}")
    works = [span for span in spans if span["resource"]["attributes"]["service.name"] == "demo-worker"]
    assert works
    assert {span["resource"]["attributes"]["container.id"] for span in works} == {worker["Id"]}
    assert worker["HostConfig"]["ReadonlyRootfs"] is True
    status = Path(f"/proc/{worker['State']['Pid']}/status").read_text()
    assert words(status, "Uid") == ["10001"] * 4
    assert words(status, "CapBnd") == ["0" * 16]
    assert words(status, "NoNewPrivs") == ["1"]


def words(status: str, name: str) -> list[str]:
    """Return what a file of /proc/PID/status says under a name."""
    return next(line for line in status.splitlines() if line.startswith(f"{name}:")).split()[1:]


def test_one_host_name_is_on_spans_logs_host_metrics_and_what_prometheus_has(
    stack: Stack, sent: dict[str, dict[str, Any]]
) -> None:
    def hosts(signal: str) -> set[str]:
        body = {"size": 0, "aggs": {"hosts": {"terms": {"field": "resource.attributes.host.name", "size": 10}}}}
        body["query"] = {"bool": {"must_not": {"term": {"resource.attributes.service.name": "unknown"}}}}
        found = stack.elasticsearch("POST", f"/{signal}/_search", body)
        return {bucket["key"] for bucket in found["aggregations"]["hosts"]["buckets"]}

    for signal in ("logs-*", "metrics-hostmetricsreceiver*"):
        assert eventually(lambda signal=signal: hosts(signal)) == {HOST}, signal
    for model in MODELS:
        spans = documents(stack, "traces", f"bulk-{model}")
        assert {span["resource"]["attributes"]["host.name"] for span in spans} == {HOST}
    query = 'count by (host_name) ({__name__=~"system_.+|bulk_.+|gen_ai_.+"})'
    found = eventually(lambda: stack.prometheus(query))
    assert [series["metric"] for series in found] == [{"host_name": HOST}]


def test_every_rule_is_evaluated_without_an_error(stack: Stack, sent: dict[str, dict[str, Any]]) -> None:
    groups = call(f"http://127.0.0.1:{stack.port('PROMETHEUS_PORT')}/api/v1/rules")["data"]["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert len(rules) > 50
    assert {rule["name"]: rule.get("lastError") for rule in rules if rule.get("lastError")} == {}
    # The rates of the first minutes are left out by the rules themselves; these are made from the beginning.
    eventually(
        lambda: stack.prometheus("bulkscope:rules:alive") and stack.prometheus("service:bulkscope_processes:count")
    )
