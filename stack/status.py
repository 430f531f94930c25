"""Asks every service from this machine how it is, and says in words what is wrong and what to do."""

from __future__ import annotations

import base64
import http.client
import json
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stack.services import elasticsearch_version, port

SECONDS = 5.0
# The one-shots, and the server that each sets up.
SETUPS = {"setup": "Elasticsearch", "setup-kibana": "Kibana"}


@dataclass(frozen=True, slots=True)
class State:
    """How a service is: in ``words``, and in ``todo`` what helps (empty when nothing is wrong).

    ``expected`` is False for a service that need not run: its absence is no failure.
    """

    service: str
    ok: bool
    words: str
    todo: str = ""
    expected: bool = True


@dataclass(frozen=True, slots=True)
class Reply:
    """An HTTP answer, or (``code`` 0) why there is none: refused, timeout, or what else went wrong."""

    code: int
    body: bytes = b""
    why: str = ""

    def at(self, *names: str) -> Any:
        """What the body, as JSON, holds under the names, one in the other; None where it does not hold it."""
        try:
            found = json.loads(self.body)
        except (ValueError, RecursionError):
            return None
        for name in names:
            found = found.get(name) if isinstance(found, dict) else None
        return found


def get(number: int, path: str, password: str = "", seconds: float | None = None) -> Reply:
    """GET ``path`` from a port of 127.0.0.1, as the user ``elastic`` where a password is given; never by a proxy."""
    headers = {"Accept": "application/json"}
    if password:
        headers["Authorization"] = "Basic " + base64.b64encode(f"elastic:{password}".encode()).decode()
    connection = http.client.HTTPConnection("127.0.0.1", number, timeout=seconds or SECONDS)
    try:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        return Reply(answer.status, answer.read(2**20))
    except ConnectionRefusedError:
        return Reply(0, why="refused")
    except TimeoutError:
        return Reply(0, why="timeout")
    except (OSError, http.client.HTTPException) as error:
        return Reply(0, why=f"{type(error).__name__}: {error}".rstrip(": "))
    finally:
        connection.close()


def all_states(
    environ: Mapping[str, str],
    password: str,
    containers: list[dict[str, Any]],
    said: Mapping[str, Sequence[str]],
) -> Iterator[State]:
    """Yield the state of every service.

    ``password`` is that of the user elastic, ``containers`` what Compose says, ``said`` what each set-up has written;
    all may be empty.
    """
    yield elasticsearch(port("ELASTICSEARCH_PORT", environ), password)
    yield kibana(port("KIBANA_PORT", environ))
    yield prometheus(port("PROMETHEUS_PORT", environ))
    for service in SETUPS:
        yield from setup(service, containers, said.get(service, ()))
    yield collector(port("COLLECTOR_HEALTH_PORT", environ))
    yield node_exporter(port("NODE_EXPORTER_PORT", environ))
    yield api(port("API_PORT", environ))


def elasticsearch(number: int, password: str) -> State:
    """Reachable, the right password, a version that takes OTLP, and not red."""
    name = "elasticsearch"
    if not password:
        return State(
            name, False, "its password is not known", "'./run stack init' writes one; without it nothing starts"
        )
    reply = get(number, "/", password)
    if reply.code == 401:
        return State(
            name, False, f"answers on port {number}, but refuses the password (401)",
            "put the folder of passwords back with which the stack was first started; where it is lost, './run stack "
            "down --volumes' starts anew without the data. Or another Elasticsearch has the port: set "
            "ELASTICSEARCH_PORT in .env",
        )  # fmt: skip
    if reply.code != 200:
        return _broken(name, number, reply)
    version = reply.at("version", "number")
    if not isinstance(version, str) or not version:
        return State(
            name, False, f"what answers on port {number} is not Elasticsearch",
            "end it, or set ELASTICSEARCH_PORT to another port in .env and run './run stack up'",
        )  # fmt: skip
    wanted = elasticsearch_version()
    if _numbers(version) < _numbers(wanted)[:2]:
        return State(
            name, False, f"is version {version}, and traces and logs by OTLP need {wanted.rpartition('.')[0]} or newer",
            "another Elasticsearch may have the port: set ELASTICSEARCH_PORT in .env; else pull the pinned image with "
            "'docker compose pull' and run './run stack up'",
        )  # fmt: skip
    health = get(number, "/_cluster/health", password)
    status = health.at("status") if health.code == 200 else None
    if status == "red":
        return State(
            name, False, f"version {version}, but its state is red: data is missing",
            "is the disk full ('df -h', 'docker system df')? './run stack logs elasticsearch' has the reason",
        )  # fmt: skip
    if status not in ("green", "yellow"):
        return State(name, False, f"version {version}, but does not tell its state", _logs(name))
    return State(name, True, f"version {version}, {status}")


def kibana(number: int) -> State:
    """Reachable and available."""
    reply = get(number, "/api/status")
    if reply.code == 503:
        return State(
            "kibana", False, "is starting, or cannot reach Elasticsearch (503)",
            "wait two minutes; then './run stack logs kibana setup' (setup gives it its password)",
        )  # fmt: skip
    if reply.code != 200:
        return _broken("kibana", number, reply)
    level = reply.at("status", "overall", "level")
    if level is None:
        return State(
            "kibana", False, f"what answers on port {number} is not Kibana",
            "end it, or set KIBANA_PORT to another port in .env and run './run stack up'",
        )  # fmt: skip
    if level != "available":
        return State("kibana", False, f"its state is {level}", _logs("kibana"))
    return State("kibana", True, f"available: http://localhost:{number}")


def prometheus(number: int) -> State:
    """Ready, and its targets answer."""
    reply = get(number, "/-/ready")
    if reply.code == 503:
        return State(
            "prometheus", False, "is not ready (503): it reads back its log of the last hours",
            "wait; a minute is usual, './run stack logs prometheus' shows the progress",
        )  # fmt: skip
    if reply.code != 200:
        return _broken("prometheus", number, reply)
    targets = _targets(number)
    if targets is None:
        return State(
            "prometheus", False, f"what answers on port {number} is not Prometheus",
            "end it, or set PROMETHEUS_PORT to another port in .env and run './run stack up'",
        )  # fmt: skip
    if not targets or any(target.health != "up" for target in targets):
        # What has started since the last scrape is not down: the next one tells. Of its own targets Prometheus learns
        # in the first five seconds.
        targets = _after_the_next_scrape(number, targets)
    down = sorted(target.name for target in targets if target.health == "down")
    if down:
        return State(
            "prometheus", False, f"ready, but cannot scrape {', '.join(down)}",
            f"http://localhost:{number}/targets has the reason of each",
        )  # fmt: skip
    coming = sorted(target.name for target in targets if target.health != "up")
    if coming:
        return State("prometheus", True, f"ready: http://localhost:{number}; not yet scraped: {', '.join(coming)}")
    return State("prometheus", True, f"ready: http://localhost:{number}")


@dataclass(frozen=True, slots=True)
class Target:
    """What Prometheus scrapes, ``every`` so many seconds, last at ``scraped``; ``health`` is up, down or unknown."""

    name: str
    health: str
    scraped: str
    every: float


def _targets(number: int) -> list[Target] | None:
    """Return the targets of the Prometheus at a port; None where that is none."""
    reply = get(number, "/api/v1/targets?state=active")
    found = reply.at("data", "activeTargets") if reply.code == 200 else None
    if not isinstance(found, list):
        return None
    targets = []
    for entry in found:
        labels = entry.get("labels") if isinstance(entry, dict) else None
        if not isinstance(labels, dict):
            return None
        targets.append(
            Target(
                f"{labels.get('job', '?')} ({labels.get('instance', '?')})",
                str(entry.get("health", "unknown")),
                str(entry.get("lastScrape", "")),
                _seconds(str(entry.get("scrapeInterval", ""))),
            )
        )
    return targets


def _after_the_next_scrape(number: int, targets: list[Target]) -> list[Target]:
    """Return the targets once each that was not up has been scraped anew, or after an interval and some seconds."""
    began = time.monotonic()
    first: dict[str, str] = {}
    while True:
        for target in targets:
            first.setdefault(target.name, target.scraped)
        coming = [target for target in targets if target.health != "up" and target.scraped == first[target.name]]
        most = min(60.0, max((target.every for target in coming), default=0.0)) + 2 * SECONDS
        if (targets and not coming) or time.monotonic() - began > most:
            return targets
        time.sleep(0.5)
        targets = _targets(number) or targets


def _seconds(duration: str) -> float:
    """Return the seconds of a duration as Prometheus writes one, such as 1m30s; 0 of anything else."""
    units = {"ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0, "y": 31536000.0}
    return sum(int(amount) * units[unit] for amount, unit in re.findall(r"(\d+)(ms|[smhdwy])", duration))


def setup(service: str, containers: list[dict[str, Any]], said: Sequence[str] = ()) -> Iterator[State]:
    """A one-shot of ``SETUPS`` ended with 0; nothing is said where Docker knows nothing of it."""
    for container in containers:
        if container.get("Service") != service:
            continue
        state, code = container.get("State"), container.get("ExitCode")
        if state == "created":
            yield State(service, False, "was not started", f"what it waits for failed first; then {AGAIN[service]}")
        elif state != "exited":
            yield State(service, False, f"has not ended yet (it is {state})", f"wait; {_logs(service)}")
        elif code:
            why = failure(said)
            yield State(
                service, False, f"failed with code {code}{f': {why}' if why else ''}",
                f"{_logs(service)}, then {AGAIN[service]}",
            )  # fmt: skip
        else:
            left = list(to_look_at(said, SETUPS[service]))
            words = f"done; left as it was, for you to decide: {'; '.join(left)}" if left else "done"
            yield State(service, True, words, _logs(service) if left else "")


# What to do once the cause is gone.
AGAIN = {
    "setup": "'./run stack up'",
    "setup-kibana": "'./run stack up' (telemetry does not wait for it: only data views and dashboards are missing)",
}


def failure(said: Sequence[str]) -> str:
    """Return why the last run of a set-up failed, in its own words; empty where it has said none."""
    last = next((line for line in reversed(said) if line.startswith("bulkscope setup: ")), "")
    return last.removeprefix("bulkscope setup: ").rstrip()


def to_look_at(said: Sequence[str], server: str) -> Iterator[str]:
    """Yield what a set-up has left to a person in its last run: a mapping of other types, a shorter retention."""
    begins = [number for number, line in enumerate(said) if re.match(rf"ok +{server} ", line)]
    for line in said[begins[-1] if begins else 0 :]:
        if found := re.match(r"look at +(.+)", line):
            yield found[1].rstrip()


def collector(number: int) -> State:
    """Its health check extension says yes."""
    reply = get(number, "/")
    if reply.code == 200:
        return State("collector", True, "takes telemetry")
    if reply.code == 503:
        return State("collector", False, "runs, but is not healthy (503)", _logs("collector"))
    if reply.code:
        return _broken("collector", number, reply)
    reason = {"refused": "cannot be reached (connection refused)", "timeout": f"does not answer within {SECONDS:.0f} s"}
    return State(
        "collector", False, reason.get(reply.why, f"cannot be reached ({reply.why})"),
        "services' telemetry is not taken: it starts only after 'setup' has ended with 0. See "
        "'./run stack logs setup collector', then './run stack up'",
    )  # fmt: skip


def node_exporter(number: int) -> State:
    """Answers."""
    reply = get(number, "/")
    return State("node-exporter", True, "answers") if reply.code == 200 else _broken("node-exporter", number, reply)


def api(number: int) -> State:
    """The demo's API, which need not run."""
    reply = get(number, "/healthz")
    if reply.why == "refused":
        return State("api", False, "the demo is not running", "'./run stack up --demo' starts it", expected=False)
    if reply.code == 503:
        return State("api", False, "its broker does not answer (503)", _logs("valkey"))
    if reply.code != 200:
        return _broken("api", number, reply)
    return State("api", True, f"answers: http://localhost:{number}/docs")


def _broken(service: str, number: int, reply: Reply) -> State:
    if reply.why == "refused":
        return State(
            service, False, f"nothing listens on port {number} (connection refused)",
            f"'./run stack up' starts it; if it ended, './run stack logs {service}' has the reason",
        )  # fmt: skip
    if reply.why == "timeout":
        return State(service, False, f"does not answer on port {number} within {SECONDS:.0f} s", _logs(service))
    if not reply.code:
        return State(
            service, False, f"what listens on port {number} does not speak HTTP ({reply.why})",
            "is it another program? End it, or give the service another port in .env",
        )  # fmt: skip
    if reply.code in (502, 503, 504):
        return State(service, False, f"is not ready ({reply.code})", f"wait a minute, then {_logs(service)}")
    return State(service, False, f"answers {reply.code} where 200 was expected", _logs(service))


def _logs(service: str) -> str:
    return f"see './run stack logs {service}'"


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) if part.isascii() and part.isdigit() else 0 for part in version.partition("-")[0].split("."))
