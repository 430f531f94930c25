"""Which web pages the stack's servers answer: a browser on this machine reaches what is on 127.0.0.1 alone, too."""

from __future__ import annotations

import http.client
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.engines import servers

STRANGE = ("https://evil.example", "null", "http://localhost.evil.example", "http://127.0.0.1.evil.example:9090")
OWN = ("http://localhost:3000", "http://127.0.0.1:9090", "https://[::1]")
READS, WRITES = "/api/v1/label/__name__/values", "/api/v1/otlp/v1/metrics"


def allowed(url: str, method: str, path: str, origin: str, kind: str = "") -> tuple[int, str | None]:
    """Return status and ``Access-Control-Allow-Origin`` of the answer to a page of ``origin``."""
    headers = {"Origin": origin} | ({"Content-Type": kind} if kind else {})
    if method == "OPTIONS":
        headers |= {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}
    connection = http.client.HTTPConnection(urllib.parse.urlsplit(url).netloc, timeout=30)
    try:
        connection.request(method, path, b"{}" if method == "POST" else None, headers)
        answer = connection.getresponse()
        answer.read()
        return answer.status, answer.getheader("Access-Control-Allow-Origin")
    finally:
        connection.close()


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    command = yaml.safe_load((servers.ROOT / "docker-compose.yml").read_text())["services"]["prometheus"]["command"]
    options = [word for word in command if word.startswith("--web.cors")]
    with servers.prometheus(tmp_path_factory.mktemp("prometheus"), "global: {}", *options) as server:
        yield server.url


@pytest.mark.parametrize("origin", STRANGE)
@pytest.mark.parametrize(("method", "path"), [("GET", READS), ("OPTIONS", READS), ("OPTIONS", WRITES)])
def test_prometheus_does_not_answer_a_strange_page(prometheus: str, method: str, path: str, origin: str) -> None:
    assert allowed(prometheus, method, path, origin)[1] is None


@pytest.mark.parametrize("origin", OWN)
def test_prometheus_answers_a_page_of_this_machine(prometheus: str, origin: str) -> None:
    assert allowed(prometheus, "GET", READS, origin) == (200, origin)


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
def test_what_a_page_may_post_unasked_is_refused(prometheus: str, kind: str) -> None:
    # A browser asks nobody before it sends one of these types.
    assert allowed(prometheus, "POST", WRITES, STRANGE[0], kind)[0] >= 400


def test_the_collector_answers_no_page(tmp_path: Path) -> None:
    nowhere = {"ELASTICSEARCH_ENDPOINT": "http://127.0.0.1:1", "PROMETHEUS_ENDPOINT": "http://127.0.0.1:1"}
    with servers.collector(tmp_path, nowhere) as server:
        for origin in (*STRANGE, *OWN):
            assert allowed(server.url, "OPTIONS", "/v1/traces", origin)[1] is None
            assert allowed(server.url, "POST", "/v1/traces", origin, "application/json") == (200, None)
            assert allowed(server.url, "POST", "/v1/traces", origin, "text/plain") == (415, None)
