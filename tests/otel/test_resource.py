"""What a resource says of its process."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from bulkscope._host import resource
from tests.processes import BIN, environment
from tests.sink import Sink


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


# A fork, the fork's own fork, and a process that is started anew; each names itself in a log record.
FAMILY = """
import logging, multiprocessing, os

def name(which):
    logging.getLogger("family").warning(which)

def child():
    name("fork")
    run(name, "fork", "fork of a fork")

def run(function, method, *words):
    process = multiprocessing.get_context(method).Process(target=function, args=words)
    process.start()
    process.join()
    assert process.exitcode == 0

if __name__ == "__main__":
    name("first")
    run(child, "fork")
    run(name, "spawn", "spawned")
"""


@pytest.mark.parametrize("given", ["pod-7", ""])
def test_the_users_instance_id_wins(spawn: Callable[..., Any], sink: Sink, tmp_path: Any, given: str) -> None:
    (tmp_path / "family.py").write_text(FAMILY)
    variables = {"OTEL_RESOURCE_ATTRIBUTES": f"team=blue, service.instance.id={given.replace('-', '%2D')}"}
    process = spawn(
        str(BIN / "bulkscope"),
        "run",
        sys.executable,
        "family.py",
        env=environment(sink.url, **variables if given else {}),
    )
    output = process.communicate(timeout=60)[0]
    assert process.returncode == 0, output
    found = {log["body"]: log["resource"] for log in sink.logs if log["scope"] == "family"}
    assert found.keys() == {"first", "fork", "fork of a fork", "spawned"}
    ids = {body: said["service.instance.id"] for body, said in found.items()}
    assert len(set(ids.values())) == len(found), "each process is an instance"
    if given:
        rest = {body: f"pod-7-{said['process.pid']}" for body, said in found.items() if body != "first"}
        assert ids == {"first": "pod-7", **rest}


def test_a_slot_is_filled_by_the_process_that_is_started_and_by_none_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One that a job starts, by a fork or anew, is no worker of the pool."""
    script = (
        "import multiprocessing, subprocess, sys\n"
        "from bulkscope._host import resource\n"
        "say = lambda who: print(who, resource.process_attributes().get('bulk.worker.slot'), flush=True)\n"
        "say('child')\n"
        "say('child again')\n"
        "fork = multiprocessing.get_context('fork').Process(target=say, args=('fork',))\n"
        "fork.start(); fork.join()\n"
        'code = \'from bulkscope._host import resource as r; print("anew", "bulk.worker.slot" in r.attributes())\'\n'
        "subprocess.run([sys.executable, '-c', code], check=True)\n"
    )
    monkeypatch.delenv("BULKSCOPE_WORKER_SLOT", raising=False)
    with resource.filling_slot(2) as slot:
        assert "bulk.worker.slot" not in resource.process_attributes(), "the pool's own process fills none"
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [f"child {slot}", f"child again {slot}", "fork None", "anew False"]
    assert slot == f"{os.getpid()}#2"
    assert "BULKSCOPE_WORKER_SLOT" not in os.environ
