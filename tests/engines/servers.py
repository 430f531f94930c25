"""Real servers on free ports of 127.0.0.1, each ended with its test. What they log is in a file that failures show."""

from __future__ import annotations

import base64
import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.engines.binaries import binary, cache
from tests.parts import demand
from tests.processes import PATIENCE_S, free_port

ROOT = Path(__file__).resolve().parents[2]


def http(method: str, url: str, body: Any = None, kind: str = "application/json", timeout: float = 60.0) -> bytes:
    """Return what a server answers; raises ``urllib.error.HTTPError`` with the answer's text in its reason."""
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": kind} if data is not None else {}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            return bytes(answer.read())
    except urllib.error.HTTPError as error:
        text = error.read().decode(errors="replace")
        raise urllib.error.HTTPError(url, error.code, f"{error.reason}: {text[:2000]}", error.headers, None) from None


def ask(method: str, url: str, body: Any = None) -> Any:
    """Return a JSON answer."""
    return json.loads(http(method, url, body))


def eventually(what: Callable[[], Any], seconds: float = PATIENCE_S) -> Any:
    """Return the first true value of ``what``; an error while it is asked counts as not yet."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            value = what()
            if value:
                return value
            failure: object = f"still {value!r}"
        except (OSError, KeyError, ValueError) as error:
            failure = error
        if time.monotonic() > deadline:
            raise AssertionError(f"not after {seconds:.0f} s: {failure}")
        time.sleep(0.1)


@dataclass
class Server:
    """A process that can be ended and started again with what it has on disk."""

    command: list[str]
    environment: dict[str, str]
    log: Path
    ready: Callable[[], Any]
    url: str = ""
    ports: dict[str, int] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self.command, env=self.environment, stdout=log, stderr=subprocess.STDOUT)
        try:
            eventually(self._is_ready)
        except AssertionError as error:
            self.kill()
            raise AssertionError(f"{self.command[0]}: {error}\n{self.log.read_text()[-5000:]}") from None

    def _is_ready(self) -> Any:
        assert self.process is not None
        if self.process.poll() is not None:
            raise AssertionError(f"ended with {self.process.returncode}")
        return self.ready()

    def kill(self) -> None:
        """End it by SIGKILL."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def stop(self) -> None:
        """End it as an operator would."""
        if self.process is not None:
            self.process.terminate()
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.kill()


@contextmanager
def _running(server: Server) -> Iterator[Server]:
    server.start()
    try:
        yield server
    finally:
        server.stop()


def _environment(**extra: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "BULKSCOPE_"))}
    return kept | extra


@contextmanager
def collector(
    folder: Path, backends: Mapping[str, str], config: Path = ROOT / "collector-config.yaml"
) -> Iterator[Server]:
    """Run the Collector with the project's own configuration; ``backends`` are its environment variables."""
    names = ("GRPC", "HTTP", "HEALTH", "METRICS")
    ports = {name: free_port() for name in names}
    health = f"http://127.0.0.1:{ports['HEALTH']}/"
    folder.mkdir(parents=True, exist_ok=True)
    server = Server(
        [str(binary("otelcol")), "--config", str(config)],
        _environment(
            COLLECTOR_STORAGE=str(folder / "storage"),
            **{f"COLLECTOR_{name}_PORT": str(port) for name, port in ports.items()},
            **{"COLLECTOR_HOST_INTERVAL": "1s", **backends},
        ),
        folder / "collector.log",
        lambda: http("GET", health),
        f"http://127.0.0.1:{ports['HTTP']}",
        ports,
    )
    with _running(server):
        yield server


@contextmanager
def prometheus(folder: Path, config: str, *options: str) -> Iterator[Server]:
    """Run Prometheus with a configuration's text; OTLP is received."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "prometheus.yml").write_text(config)
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    server = Server(
        [
            str(binary("prometheus")), f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={folder / 'data'}", f"--web.listen-address=127.0.0.1:{port}",
            "--web.enable-otlp-receiver", *options,
        ],
        _environment(), folder / "prometheus.log", lambda: http("GET", f"{url}/-/ready"), url,
    )  # fmt: skip
    with _running(server):
        yield server


@contextmanager
def elasticsearch(folder: Path) -> Iterator[Server]:
    """Run an empty Elasticsearch with ES|QL."""
    demand("engines")
    engine = cache() / "elasticsearch"
    if not (engine / "classes").exists() or shutil.which("java") is None:
        pytest.skip("Elasticsearch is not built; ./run engines builds it (needs Java 17 and Maven)")
    folder.mkdir(parents=True, exist_ok=True)
    port, transport = free_port(), free_port()
    url = f"http://127.0.0.1:{port}"
    server = Server(
        [
            "java", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xms256m", "-Xmx1g",
            "-cp", f"{engine / 'classes'}:{engine / 'lib'}/*", "org.elasticsearch.node.TestEngine",
            str(folder / "home"), f"http.port={port}", f"transport.port={transport}",
        ],
        _environment(), folder / "elasticsearch.log", lambda: ask("GET", f"{url}/")["version"], url,
    )  # fmt: skip
    with _running(server):
        yield server


def listens(port: int) -> bool:
    """Tell whether somebody takes connections at a port of 127.0.0.1."""
    with socket.create_connection(("127.0.0.1", port), timeout=5):
        return True


@contextmanager
def rabbitmq(folder: Path) -> Iterator[Server]:
    """Run an empty RabbitMQ; its ``url`` is that of the user guest, who may do all from here."""
    demand("engines")
    root = cache() / "rabbitmq" / "usr" / "lib"
    scripts = sorted(root.glob("rabbitmq/lib/rabbitmq_server-*/sbin"))
    if not scripts:
        pytest.skip("RabbitMQ is not unpacked; ./run engines rabbitmq does it (on Debian)")
    folder.mkdir(parents=True, exist_ok=True)
    port, between, mapper = free_port(), free_port(), free_port()
    environment = _environment(
        PATH=f"{root / 'erlang' / 'bin'}{os.pathsep}{os.environ['PATH']}", HOME=str(folder),
        ERL_EPMD_PORT=str(mapper), ERL_EPMD_ADDRESS="127.0.0.1",
        RABBITMQ_NODENAME="bulkscope@localhost", RABBITMQ_NODE_IP_ADDRESS="127.0.0.1", RABBITMQ_NODE_PORT=str(port),
        RABBITMQ_DIST_PORT=str(between), RABBITMQ_MNESIA_BASE=str(folder / "mnesia"),
        RABBITMQ_LOG_BASE=str(folder / "log"), RABBITMQ_LOGS="-", RABBITMQ_PID_FILE=str(folder / "pid"),
        RABBITMQ_CONFIG_FILE=str(folder / "rabbitmq"), RABBITMQ_CONF_ENV_FILE="/dev/null",
        RABBITMQ_ENABLED_PLUGINS_FILE=str(folder / "plugins"),
        # The shell's process becomes the server, which takes our signals.
        RABBITMQ_ALLOW_INPUT="true",
        RABBITMQ_SERVER_START_ARGS="-noinput -kernel inet_dist_use_interface {127,0,0,1}",
    )  # fmt: skip
    # Erlang's port mapper would go on in the background; one that runs already is used.
    epmd = Server(
        [str(root / "erlang" / "bin" / "epmd"), "-port", str(mapper), "-address", "127.0.0.1"],
        environment, folder / "epmd.log", lambda: listens(mapper),
    )  # fmt: skip
    server = Server(
        ["bash", str(scripts[-1] / "rabbitmq-server")], environment, folder / "rabbitmq.log", lambda: listens(port),
        f"amqp://guest:guest@127.0.0.1:{port}/",
    )  # fmt: skip
    with _running(epmd), _running(server):
        yield server


_KAFKA = """
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
log.dirs={data}
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
group.initial.rebalance.delay.ms=0
num.partitions=1
"""


@contextmanager
def kafka(folder: Path) -> Iterator[Server]:
    """Run an empty Kafka of one node, which makes topics as they are asked for; its ``url`` is host and port."""
    demand("engines")
    jars = cache() / "kafka" / "lib"
    if not jars.exists() or shutil.which("java") is None:
        pytest.skip("Kafka is not there; ./run engines kafka fetches it (needs Java 17 and Maven)")
    folder.mkdir(parents=True, exist_ok=True)
    port, controller = free_port(), free_port()
    settings = folder / "server.properties"
    settings.write_text(_KAFKA.format(port=port, controller=controller, data=folder / "data"))
    java = ["java", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmx512m", "-cp", f"{jars}/*"]
    cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
    done = subprocess.run(
        [*java, "kafka.tools.StorageTool", "format", "-t", cluster, "-c", str(settings)],
        env=_environment(), capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    server = Server(
        [*java, "kafka.Kafka", str(settings)], _environment(), folder / "kafka.log", lambda: listens(port),
        f"127.0.0.1:{port}",
    )  # fmt: skip
    with _running(server):
        yield server


def postgres_programs() -> Path:
    """Return the folder of PostgreSQL's programs: Debian has one for each version, and none of them on the path."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[4]))
    on_path = shutil.which("postgres")
    if not found and not on_path:
        pytest.skip("PostgreSQL is missing; on Debian the package postgresql has it")
    return (found[-1] if found else Path(str(on_path)).resolve()).parent


@contextmanager
def postgres(folder: Path) -> Iterator[Server]:
    """Run an empty PostgreSQL; its ``url`` is that of the user postgres, who may do all without a password."""
    programs, port = postgres_programs(), free_port()
    # It refuses to run as root, and then nobody has to be able to reach its data.
    as_nobody: list[str] = []
    base = None
    if os.getuid() == 0:
        nobody = pwd.getpwnam("nobody")  # its group is nogroup on Debian, nobody elsewhere
        as_nobody = ["setpriv", f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}", "--clear-groups"]
        base = "/tmp"  # root's TMPDIR may be one that nobody else enters
    with tempfile.TemporaryDirectory(prefix="bulkscope-postgres-", dir=base) as home:
        if as_nobody:
            os.chown(home, nobody.pw_uid, nobody.pw_gid)
        data, environment = f"{home}/data", _environment(HOME=home)
        options = ["-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"]
        made = subprocess.run(
            [*as_nobody, str(programs / "initdb"), "-D", data, *options], cwd=home, env=environment, capture_output=True
        )
        assert made.returncode == 0, (made.stdout + made.stderr).decode()
        settings = {"listen_addresses": "127.0.0.1", "unix_socket_directories": home, "fsync": "off"}
        words = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        asked = [str(programs / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(port)]
        folder.mkdir(parents=True, exist_ok=True)
        server = Server(
            [*as_nobody, str(programs / "postgres"), "-D", data, "-p", str(port), *words], environment,
            folder / "postgres.log", lambda: subprocess.run(asked).returncode == 0,
            f"postgresql://postgres@127.0.0.1:{port}/postgres",
        )  # fmt: skip
        with _running(server):
            try:
                yield server
            finally:
                # It ends at once, whoever has a connection.
                assert server.process is not None
                server.process.send_signal(signal.SIGINT)


@contextmanager
def elasticmq(folder: Path) -> Iterator[Server]:
    """Run an empty ElasticMQ; its ``url`` is SQS's end point."""
    demand("engines")
    jars = cache() / "elasticmq" / "lib"
    if not jars.exists() or shutil.which("java") is None:
        pytest.skip("ElasticMQ is not there; ./run engines elasticmq fetches it (needs Java and Maven)")
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    options = {
        "rest-sqs.bind-hostname": "127.0.0.1", "rest-sqs.bind-port": port, "rest-stats.enabled": "false",
        "node-address.host": "127.0.0.1", "node-address.port": port,
    }  # fmt: skip
    words = [f"-D{name}={value}" for name, value in options.items()]
    java = ["java", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmx256m", *words, "-cp", f"{jars}/*"]
    server = Server(
        [*java, "org.elasticmq.server.Main"], _environment(), folder / "elasticmq.log", lambda: listens(port),
        f"http://127.0.0.1:{port}",
    )  # fmt: skip
    with _running(server):
        yield server
