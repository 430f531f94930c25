"""Who may do what in the stack's containers, what of its secrets can be seen from outside, and where it listens."""

from __future__ import annotations

import json
import re
import socket
import subprocess
from pathlib import Path

import pytest

from stack.passwords import MEANINGS
from stack.services import PORTS
from tests.containers import engine, images
from tests.containers.stack import Stack

pytestmark = pytest.mark.timeout(1800)

# By the compose file: what it may override, one capability to read a key that is another user's.
DAC_OVERRIDE = 1 << 1


def running(stack: Stack) -> dict[str, dict]:
    return {name: one for name, one in stack.containers().items() if one["State"]["Running"]}


def processes(container: dict) -> list[Path]:
    """Return the folders of /proc of all processes of a container."""
    if not container["State"]["Running"]:
        return []
    said = engine.docker("top", container["Id"], "-eo", "pid").split()
    return [Path("/proc", word) for word in said[1:]]


def test_no_process_has_a_capability_but_the_collectors_one(stack: Stack) -> None:
    for name, container in running(stack).items():
        for place in processes(container):
            status = dict(
                line.partition(":")[::2] for line in (place / "status").read_text().splitlines() if ":" in line
            )
            allowed = DAC_OVERRIDE if name == "collector" else 0
            assert int(status["CapBnd"], 16) == allowed, name
            assert int(status["CapEff"], 16) & ~allowed == 0, name
            assert status["NoNewPrivs"].strip() == "1", name
            assert status["Seccomp"].strip() == "2", name
            assert status["Uid"].split()[0] != "0" or name == "collector", name


def test_all_that_need_not_write_have_a_root_that_cannot_be_written(stack: Stack) -> None:
    writable = {name for name, one in running(stack).items() if not one["HostConfig"]["ReadonlyRootfs"]}
    assert writable == {"elasticsearch", "collector"}
    assert not any(one["HostConfig"]["Privileged"] for one in running(stack).values())


def listening() -> set[tuple[str, int]]:
    """Return (address, port) of each listener of this machine."""
    found = set()
    for path, family in (("/proc/net/tcp", socket.AF_INET), ("/proc/net/tcp6", socket.AF_INET6)):
        for line in Path(path).read_text().splitlines()[1:]:
            local, state = line.split()[1], line.split()[3]
            if state == "0A":
                address, port = local.split(":")
                raw = b"".join(bytes.fromhex(address[at : at + 8])[::-1] for at in range(0, len(address), 8))
                found.add((socket.inet_ntop(family, raw), int(port, 16)))
    return found


def test_what_is_published_is_so_on_the_loopback_address_alone(stack: Stack) -> None:
    ours = {stack.port(port.variable) for port in PORTS}
    found = {(address, port) for address, port in listening() if port in ours}
    assert found == {("127.0.0.1", port) for port in ours}
    published = {
        (name, binding["HostIp"])
        for name, one in running(stack).items()
        for bindings in one["NetworkSettings"]["Ports"].values()
        for binding in bindings or ()
    }
    assert {address for _, address in published} == {"127.0.0.1"}
    assert {name for name, _ in published} == {port.service for port in PORTS}


def key(stack: Stack) -> str:
    """Return the Collector's key, as it lies in its volume."""
    place = engine.docker("volume", "inspect", "bulkscope_keys", "--format", "{{.Mountpoint}}")
    file = Path(place) / "elasticsearch-api-key"
    assert file.stat().st_mode & 0o077 == 0
    return file.read_text()


def secrets(stack: Stack) -> list[str]:
    """Return all that nobody may see who cannot read the files of the one who started the stack."""
    found = [key(stack), *(stack.secret(name) for name in MEANINGS)]
    assert all(len(one) >= 30 for one in found)
    return found


def test_no_secret_is_in_what_docker_shows_or_on_a_command_line_or_in_a_log(stack: Stack) -> None:
    hidden = secrets(stack)
    for name, container in stack.containers().items():
        said = subprocess.run(
            ["docker", "logs", container["Id"]], env=engine.environment(), stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, errors="replace",
        ).stdout  # fmt: skip
        lines = [(place / "cmdline").read_text(errors="replace") for place in processes(container)]
        for what, text in (("inspect", json.dumps(container)), ("log", said), ("command line", " ".join(lines))):
            assert not any(one in text for one in hidden), (name, what)


@pytest.mark.parametrize("name", ["bulkscope", "bulkscope-demo"])
def test_no_layer_of_an_image_holds_a_secret(stack: Stack, tmp_path: Path, name: str) -> None:
    hidden, tag = secrets(stack), images.pinned()[name]
    history = engine.docker("history", "--no-trunc", "--format", "{{.CreatedBy}}", tag)
    assert not any(one in history + engine.docker("image", "inspect", tag) for one in hidden)
    archive = tmp_path / "image.tar"
    engine.docker("save", "--output", str(archive), tag)  # layers in it are not compressed
    kept = b""
    with archive.open("rb") as file:
        while block := file.read(2**24):
            text = kept + block
            assert not any(one.encode() in text for one in hidden)
            kept = text[-100:]
    archive.unlink()


def test_services_reach_the_collector_and_nothing_behind_it(stack: Stack) -> None:
    tried = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 5)"
    worker = stack.containers()["worker"]["Id"]
    engine.docker("exec", worker, "python", "-c", tried, "collector", "4318")
    for name, port in (("elasticsearch", 9200), ("kibana", 5601), ("prometheus", 9090), ("node-exporter", 9100)):
        networks = stack.containers()[name]["NetworkSettings"]["Networks"].values()
        for host in (name, *(network["IPAddress"] for network in networks)):
            with pytest.raises(engine.EngineError, match=r"error|Error"):
                engine.docker("exec", worker, "python", "-c", tried, host, str(port))


def test_a_key_may_do_what_its_role_says_and_nothing_else(stack: Stack) -> None:
    header = f"ApiKey {key(stack)}"
    for method, path in (("GET", "/_security/api_key?name=x"), ("POST", "/traces-*/_search"), ("GET", "/_license")):
        with pytest.raises(ValueError, match="403"):
            stack.elasticsearch(method, path, {} if method == "POST" else None, header)
    with pytest.raises(ValueError, match="401"):
        stack.elasticsearch("GET", "/_license", None, "ApiKey " + "bm86c3VjaA==")


def test_the_collector_sees_no_file_of_the_host_but_what_it_measures(stack: Stack) -> None:
    name = stack.containers()["collector"]["Id"]
    found = engine.docker("exec", name, "bash", "-c", "echo /hostfs/*").split()
    assert found == ["/hostfs/proc", "/hostfs/sys"]
    tried = engine.docker("exec", name, "bash", "-c", "head -c1 /hostfs/proc/1/environ 2>&1 || true")
    assert re.search("denied|cannot open", tried), tried
