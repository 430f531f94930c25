"""What a resource says of its process."""

from __future__ import annotations

import os
import socket

import pytest

from bulkscope._host import resource


def test_host_and_process_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OTEL_RESOURCE_ATTRIBUTES", raising=False)
    found = resource.attributes()
    assert (found["host.name"], found["process.pid"]) == (socket.gethostname(), os.getpid())
    assert resource.attributes()["service.instance.id"] != found["service.instance.id"]


def test_a_host_that_the_user_names_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "service.version=1, host.name=rack-7")
    found = resource.attributes()
    assert "host.name" not in found
    assert "process.pid" in found
