from __future__ import annotations

import os
from pathlib import Path

import pytest

from bulkscope import _cli, _defaults, _launcher


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("uvicorn shop.api:app", "shop-api"),
        ("gunicorn -w 2 -k uvicorn_worker.UvicornWorker app:create()", "app"),
        ("celery -A shop.tasks worker", "shop-tasks"),
        ("celery --app=shop.tasks:queue worker", "shop-tasks-queue"),
        ("python -m shop", "shop"),
        ("python3 jobs/serve.py --port 80", "serve"),
        ("./serve.py", "serve"),
        ("/usr/bin/---", "bulkscope"),
    ],
)
def test_service_name(command: str, name: str) -> None:
    assert _defaults.service_name(command.split()) == name


def test_defaults_give_way_to_what_is_set() -> None:
    environ = {"OTEL_METRIC_EXPORT_INTERVAL": "7", "OTEL_LOGS_EXPORTER": ""}
    _defaults.apply(environ)
    assert environ["OTEL_METRIC_EXPORT_INTERVAL"] == "7"
    assert environ["OTEL_LOGS_EXPORTER"] == ""
    assert environ["OTEL_EXPORTER_OTLP_ENDPOINT"] == "http://127.0.0.1:4318"
    assert environ["OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"] == "false"


@pytest.mark.parametrize(
    ("environ", "endpoint"),
    [
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "http://127.0.0.1:4317"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}, "http://collector:4318"),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://traces:1"}, None),
    ],
)
def test_endpoint(environ: dict[str, str], endpoint: str | None) -> None:
    _defaults.apply(environ)
    assert environ.get("OTEL_EXPORTER_OTLP_ENDPOINT") == endpoint


def test_environment_of_the_launched_command(monkeypatch: pytest.MonkeyPatch) -> None:
    environ = {"PYTHONPATH": "/mine", "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "redis"}
    _launcher.environment(["uvicorn", "app:app"], environ)
    assert environ["OTEL_SERVICE_NAME"] == "app"
    assert environ["PYTHONPATH"].split(os.pathsep)[1:] == [os.getcwd(), "/mine"]
    disabled = environ["OTEL_PYTHON_DISABLED_INSTRUMENTATIONS"].split(",")
    assert disabled[0] == "redis", "the user's own"
    assert {"celery", "fastapi", "logging", "taskiq"} <= set(disabled)
    monkeypatch.setenv("BULKSCOPE_FASTAPI", "contrib")
    environ = {}
    _launcher.environment(["uvicorn", "app:app"], environ)
    disabled = environ["OTEL_PYTHON_DISABLED_INSTRUMENTATIONS"].split(",")
    assert "celery" in disabled
    assert "fastapi" not in disabled


def test_service_name_in_the_resource_attributes_wins() -> None:
    environ = {"OTEL_RESOURCE_ATTRIBUTES": "service.name=mine"}
    _launcher.environment(["uvicorn", "app:app"], environ)
    assert "OTEL_SERVICE_NAME" not in environ


def test_unknown_command(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert _launcher.command([str(tmp_path / "none")]) == 127
    assert "command not found" in capsys.readouterr().err
    assert _launcher.command([]) == 2
    assert _cli.main(["nonsense"]) == 2
    assert "there is no command 'nonsense'" in capsys.readouterr().err
    assert _cli.main([]) == 2
    assert _cli.main(["--version"]) == 0


@pytest.mark.parametrize(
    ("environ", "exporters"),
    [
        ({}, ("bulkscope", "bulkscope", "bulkscope")),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, ("otlp", "bulkscope", "bulkscope")),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, ("otlp", "otlp", "otlp")),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": ""}, ("bulkscope", "bulkscope", "bulkscope")),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "HTTP/Protobuf "}, ("bulkscope", "bulkscope", "bulkscope")),
        ({"OTEL_EXPORTER_OTLP_METRICS_PROTOCOL": "grpc"}, ("bulkscope", "otlp", "bulkscope")),
        ({"HTTPS_PROXY": "http://proxy:3128"}, ("otlp", "otlp", "otlp")),
        ({"OTEL_PYTHON_EXPORTER_OTLP_HTTP_CREDENTIAL_PROVIDER": "mine"}, ("otlp", "otlp", "otlp")),
    ],
)
def test_our_exporter_unless_only_the_official_one_can(environ: dict[str, str], exporters: tuple[str, ...]) -> None:
    _defaults.apply(environ)
    assert tuple(environ[f"OTEL_{signal}_EXPORTER"] for signal in ("TRACES", "METRICS", "LOGS")) == exporters
