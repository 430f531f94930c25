"""``bulkscope doctor`` against the real Collector, whose gRPC and TLS are Go's and not those that Python speaks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trustme

from bulkscope._doctor import endpoint
from bulkscope._doctor.findings import OK
from tests.engines.binaries import binary
from tests.processes import free_port, groups, wait_for_listener

_CONFIG = """
receivers:
  otlp:
    protocols:
      grpc: {{endpoint: "127.0.0.1:{grpc}"}}
      http: {{endpoint: "127.0.0.1:{http}"}}
  otlp/tls:
    protocols:
      grpc: {{endpoint: "127.0.0.1:{grpcs}", tls: {{cert_file: chain.pem, key_file: key.pem}}}}
      http: {{endpoint: "127.0.0.1:{https}", tls: {{cert_file: chain.pem, key_file: key.pem}}}}
exporters:
  debug: {{verbosity: detailed}}
service:
  telemetry: {{metrics: {{level: none}}}}
  pipelines:
    traces: {{receivers: [otlp, otlp/tls], exporters: [debug]}}
    metrics: {{receivers: [otlp, otlp/tls], exporters: [debug]}}
    logs: {{receivers: [otlp, otlp/tls], exporters: [debug]}}
"""


@contextmanager
def collector(folder: Path) -> Iterator[dict[str, int]]:
    """Run a Collector that takes OTLP by both protocols, with TLS and without; yields the ports by name."""
    ports = {name: free_port() for name in ("grpc", "http", "grpcs", "https")}
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    certificate = authority.issue_cert("127.0.0.1")
    certificate.private_key_pem.write_to_path(str(folder / "key.pem"))
    certificate.cert_chain_pems[0].write_to_path(str(folder / "chain.pem"))
    (folder / "config.yaml").write_text(_CONFIG.format(**ports))
    with groups(folder) as start, (folder / "log").open("w") as log:
        process = start(str(binary("otelcol")), "--config", "config.yaml", env={})
        assert process.stdout is not None
        for port in ports.values():
            wait_for_listener(port)
        yield ports
        process.terminate()
        log.write(process.stdout.read())


@pytest.mark.parametrize(
    ("port", "scheme", "protocol", "said"),
    [
        ("http", "http", "http/protobuf", "speaks OTLP over HTTP, accepted a test span"),
        ("grpc", "http", "grpc", "speaks OTLP over gRPC, accepted a test span"),
        ("https", "https", "http/protobuf", "speaks OTLP over HTTP, accepted a test span"),
        ("grpcs", "https", "grpc", "speaks OTLP over gRPC, accepted a test span"),
        ("grpc", "http", "http/protobuf", "a gRPC port (HTTP/2 only), to which OTLP over HTTP is sent"),
        ("http", "http", "grpc", "a port for HTTP/1.1, to which OTLP over gRPC is sent"),
        ("https", "http", "http/protobuf", "it speaks TLS, and is asked without"),
        ("grpcs", "http", "grpc", "it speaks TLS, and is asked without"),
        ("http", "https", "http/protobuf", "it does not speak TLS as it is asked"),
    ],
)
def test_each_way_to_ask_a_collector(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, port: str, scheme: str, protocol: str, said: str
) -> None:
    with collector(tmp_path) as ports:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"{scheme}://127.0.0.1:{ports[port]}")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", str(tmp_path / "ca.pem"))
        for signal in ("TRACES", "METRICS", "LOGS"):
            monkeypatch.setenv(f"OTEL_{signal}_EXPORTER", "otlp" if protocol == "grpc" else "bulkscope")
        found = endpoint.findings()
    taken = "accepted" in said
    assert said in found[0].what, found
    assert all(finding.state == OK for finding in found) is taken, found
    # The debug exporter writes each span that it gets.
    assert ("bulkscope doctor: a test" in (tmp_path / "log").read_text()) is taken
