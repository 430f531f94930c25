"""docs/operations.md and docs/scale.md say what is there: commands, options, files, variables, alerts, ports, sums."""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
from functools import cache
from pathlib import Path

import opentelemetry.sdk.environment_variables as sdk
import pytest
import yaml

from bulkscope._cli import COMMANDS
from bulkscope_studio.setup import plan
from stack import retention, services
from stack.__main__ import _parser
from tests.engines.binaries import binary
from tests.processes import BIN

ROOT = Path(__file__).resolve().parents[2]
NAMES = ("operations.md", "scale.md")
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
# Not variables of ours: settings inside commands and words that look like one.
OTHERS = {"COUNT_DISTINCT"}


@cache
def text(name: str) -> str:
    return (ROOT / "docs" / name).read_text()


@cache
def code(name: str) -> tuple[str, ...]:
    """Return the pieces of code of a document: spans within a line, and lines of blocks."""
    whole = text(name)
    blocks = re.findall(r"^```.*?\n(.*?)^```", whole, re.DOTALL | re.MULTILINE)
    rest = re.sub(r"^```.*?^```", "", whole, flags=re.DOTALL | re.MULTILINE)
    lines = [line for block in blocks for line in re.sub(r"\\\n\s*", "", block).splitlines()]
    spans = [re.sub(r"\s*\n\s*", " ", span) for span in re.findall(r"`([^`]+)`", rest)]
    return tuple(line.strip() for line in (*lines, *spans) if line.strip())


def commands(name: str, first: str) -> list[list[str]]:
    """Return the words of each command that begins with ``first``, without comment and later commands."""
    found = []
    for piece in code(name):
        for one in re.split(r"&&|\|\||;", piece.replace("\\|", "|")):
            words = shlex.split(one, comments=True) if one.strip().startswith(first) else []
            if words:
                found.append(words)
    return found


@cache
def options(command: str) -> frozenset[str]:
    shown = subprocess.run([BIN / "bulkscope", command, "--help"], capture_output=True, text=True, check=True).stdout
    return frozenset(re.findall(r"--[a-z][a-z-]+", shown))


def ours(words: list[str]) -> None:
    """Check a ``bulkscope`` command."""
    assert words[0] == "bulkscope"
    assert words[1] in COMMANDS, words
    if words[1] != "run":
        given = {word.partition("=")[0] for word in words if word.startswith("--")}
        assert given <= options(words[1]), words


@pytest.mark.parametrize("name", NAMES)
def test_commands_of_run_are_there(name: str) -> None:
    known = set(re.findall(r"^(\w+)\)", (ROOT / "run").read_text(), re.MULTILINE))
    assert commands(name, "./run")
    for words in commands(name, "./run"):
        assert words[1] in known, words
        if words[1] == "stack":
            _parser().parse_args(words[2:])  # a wrong one ends with SystemExit
        elif words[1] == "bench" and len(words) > 2:
            assert (ROOT / "bench" / f"{words[2]}.py").exists(), words
    if name == "operations.md":
        first = re.search(r"^```sh\n(.*?)^```", text(name), re.DOTALL | re.MULTILINE)
        assert first is not None
        found = [shlex.split(line, comments=True) for line in first[1].splitlines()]
        assert [words[:3] for words in found] == [["./run", "stack", one] for one in ("init", "up", "status")]


@pytest.mark.parametrize("name", NAMES)
def test_commands_of_bulkscope_are_there(name: str) -> None:
    for words in commands(name, "bulkscope "):
        ours(words)


@pytest.mark.parametrize("name", NAMES)
def test_commands_of_compose_name_services_that_are_there(name: str) -> None:
    if name == "operations.md":
        assert len(commands(name, "docker compose")) >= 5
    for words in commands(name, "docker compose"):
        rest = iter(words[3:])
        for word in rest:
            if word == "-e":
                assert next(rest).partition("=")[0] in variables_of_the_configuration()
            elif not word.startswith("-"):
                assert word in COMPOSE["services"], words
                break
        after = list(rest)
        if words[2] == "run" and after:
            ours(after)
            # The one-shot's own words hold as well: where the key is kept.
            for place, one in enumerate(after):
                if one == "--collector-key-file":
                    assert after[place + 1] in COMPOSE["services"]["setup"]["command"]
        else:
            assert set(after) <= set(COMPOSE["services"]), words


@pytest.mark.parametrize("name", NAMES)
def test_options_that_are_named_alone_are_somewhere(name: str) -> None:
    written = (ROOT / "docker-compose.yml").read_text()
    for piece in code(name):
        if re.fullmatch(r"--[a-z.-]+", piece):
            known = piece in options("setup") or piece in written or piece in PROMETHEUS_OPTIONS or piece == "--config"
            assert known, piece


# Of Prometheus, off in the stack.
PROMETHEUS_OPTIONS = {"--web.enable-admin-api", "--web.enable-remote-write-receiver"}


@pytest.mark.parametrize("name", NAMES)
def test_links_lead_somewhere(name: str) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", text(name)):
        if not target.startswith("http"):
            assert (ROOT / "docs" / target).exists(), target


@pytest.mark.parametrize("name", NAMES)
def test_files_that_are_named_are_there(name: str) -> None:
    folders = "bench|collector|demo|docs|elasticsearch|kibana|otel|prometheus|stack|studio|tests"
    for piece in code(name):
        for path in re.findall(rf"(?<![\w/.])(?:{folders})/[\w@./-]+", piece):
            if re.match(r"prom/|elasticsearch/elasticsearch", path):
                continue
            assert (ROOT / path.rstrip(".")).exists(), path
        if re.fullmatch(r"[\w-]+\.(?:ya?ml|md|toml)", piece):
            assert list(ROOT.glob(piece)) or list((ROOT / "collector").glob(piece)), piece


VARIABLE = re.compile(r"\b[A-Z][A-Z0-9]*_[A-Z0-9_]+\b")


@cache
def variables_of_the_configuration() -> frozenset[str]:
    """Return what looks like an environment variable wherever one is read: configurations, and strings of our code."""
    places = (ROOT / "docker-compose.yml", ROOT / "collector-config.yaml", *(ROOT / "collector").glob("*.yaml"))
    found = {one for path in places for one in VARIABLE.findall(path.read_text())}
    for folder in ("otel", "instrumentation", "studio", "stack"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found |= set(VARIABLE.findall(node.value))
    # Names that are put together: of the retention of each signal, and of the SDK's exporters.
    found |= {f"{signal.upper()}_RETENTION" for signal in plan.SIGNALS}
    found |= {f"OTEL_{signal.upper()}_EXPORTER" for signal in plan.SIGNALS}
    return frozenset(found | {name for name in dir(sdk) if name.startswith("OTEL_")})


@pytest.mark.parametrize("name", NAMES)
def test_variables_that_are_named_are_read_somewhere(name: str) -> None:
    for piece in code(name):
        for variable in VARIABLE.findall(piece):
            assert variable in variables_of_the_configuration() | OTHERS, variable


def test_every_variable_of_the_collector_and_of_the_env_file_has_a_row() -> None:
    rows = "\n".join(line.split("|")[1] for line in text("operations.md").splitlines() if line.startswith("| `"))
    for path in (ROOT / "collector-config.yaml", *(ROOT / "collector").glob("*.yaml")):
        for variable in re.findall(r"\$\{env:(\w+)", path.read_text()):
            assert f"`{variable}`" in rows, (path.name, variable)
    rows = text("operations.md")
    for variable in re.findall(r"(?<!\$)\$\{(\w+)", (ROOT / "docker-compose.yml").read_text()):
        assert re.search(rf"^\|.*`{variable}`", rows, re.MULTILINE), variable


def test_every_port_has_a_row() -> None:
    rows = re.findall(r"^\| (\d+) \| `(\w+)` \| ([\w-]+) \|", text("operations.md"), re.MULTILINE)
    assert {(one.service, one.variable, one.default) for one in services.PORTS} == {
        (service, variable, int(port)) for port, variable, service in rows
    }


def test_every_alert_has_a_row_and_its_page() -> None:
    rules = yaml.safe_load((ROOT / "prometheus" / "rules" / "alerts.yml").read_text())
    wanted = {
        rule["alert"]: rule["labels"]["severity"]
        for group in rules["groups"]
        for rule in group["rules"]
        if "alert" in rule
    }
    rows = re.findall(r"^\| \[(\w+)\]\(runbooks/(\w+)\.md\) \| .+ \| (\w+) \|$", text("operations.md"), re.MULTILINE)
    assert all(name == page for name, page, _ in rows)
    assert {name: severity for name, _, severity in rows} == wanted
    for name in NAMES:
        assert set(re.findall(r"\bBulkscope[A-Z]\w+", text(name))) <= set(wanted)


def test_sizes_and_times_are_those_of_the_configuration() -> None:
    operations = text("operations.md")
    collector = (ROOT / "collector-config.yaml").read_text()
    agent = (ROOT / "collector" / "agent.yaml").read_text()
    for file, wanted in ((collector, 500_000), (agent, 100_000)):
        assert set(map(int, re.findall(r"COLLECTOR_QUEUE_ITEMS:-(\d+)", file))) == {wanted}
    assert "500000, of an agent 100000" in operations
    assert "max_interval: 30s" in collector
    assert "every 30 s at the latest" in operations
    assert set(re.findall(r"max_size: (\d+)", collector + agent)) == {"4000000"}
    assert operations.count("4 MB") >= 3
    for signal, days in (("traces", 14), ("logs", 14), ("metrics", 30)):
        template = (ROOT / "elasticsearch" / "component-templates" / f"{signal}-otel@custom.json").read_text()
        assert f'"data_retention": "{days}d"' in template
    assert "| traces, logs | 14 days |" in operations
    assert "in Elasticsearch | 30 days |" in operations
    compose = (ROOT / "docker-compose.yml").read_text()
    kept = {setting.variable: setting.default for setting in retention.SETTINGS}
    assert kept["PROMETHEUS_RETENTION_TIME"] == "15d"
    assert kept["PROMETHEUS_RETENTION_SIZE"] == "4GB"
    assert "| metrics in Prometheus | 15 days, or 4 GB" in operations
    for level, size in (("low", "3 GB free"), ("high", "below 2 GB"), ("flood_stage", "1 GB;")):
        assert re.search(rf"watermark\.{level}: {re.findall(r'[0-9]', size)[0]}gb", compose)
        assert size in " ".join(operations.split())
    window = re.search(r"out_of_order_time_window: (\w+)", (ROOT / "prometheus" / "prometheus.yml").read_text())
    assert window is not None
    assert window[1] == "3d"
    assert "three days old" in operations
    image = re.search(r"prom/prometheus:v[\d.]+", compose)
    assert image is not None
    assert image[0] in operations
    gib = {name: f"{mib / 1024:.1f} GiB" for name, mib in services.MEMORY_MIB.items()}
    assert gib[""] in operations
    assert gib["demo"] in operations


SUM = re.compile(r"(?<![\w.,])([\d.,]+(?: [^\d\s=×/+−]\S*)*(?: [×/+−] [\d.,]+(?: [^\d\s=×/+−]\S*)*)+) = ([\d.,]+)")


def sums(document: str) -> list[tuple[str, float, float]]:
    """Return each sum of a document: as written, its value, and what is written to be its value."""
    found = []
    for left, right in SUM.findall(document):
        terms = re.findall(r"(^|[×/+−] )([\d.,]+)", left)
        value, product = 0.0, 0.0
        for sign, digits in terms:
            number = float(digits.replace(",", "").rstrip("."))
            match sign.strip():
                case "×":
                    product *= number
                case "/":
                    product /= number
                case "":
                    product = number
                case _:
                    value, product = value + product, number if sign.strip() == "+" else -number
        found.append((f"{left} = {right}", value + product, float(right.replace(",", "").rstrip("."))))
    return found


def test_sums_are_read_as_they_are_written() -> None:
    assert sums("so 2 jobs × 3 bytes + 4 = 10, and 9 / 2 = 4.5.") == [
        ("2 jobs × 3 bytes + 4 = 10,", 10.0, 10.0), ("9 / 2 = 4.5.", 4.5, 4.5),
    ]  # fmt: skip


def test_every_sum_of_the_page_on_scale_is_right() -> None:
    found = sums(text("scale.md"))
    assert len(found) >= 10
    for written, value, claimed in found:
        assert claimed == pytest.approx(value, rel=0.03), written


def test_the_page_on_scale_has_the_bench_and_where_its_numbers_come_from() -> None:
    page = text("scale.md")
    assert "./run bench stored" in page
    for head in ("| what | a job | of it spans | of it log records | each further second of a job |",
                 "| metrics of | series | every, s | samples a day | MiB a day |",
                 "| waiting in the Collector's queue | items | bytes of its file | bytes an item |"):  # fmt: skip
        assert head in page
        assert head.strip("| ").split(" | ")[0] in (ROOT / "bench" / "stored.py").read_text()


@pytest.mark.engines
def test_prometheus_takes_the_snippet_for_remote_write(tmp_path: Path) -> None:
    found = re.findall(r"^```yaml\n(.*?)^```", text("scale.md"), re.DOTALL | re.MULTILINE)
    assert len(found) == 1
    config = yaml.safe_load((ROOT / "prometheus" / "prometheus.yml").read_text()) | yaml.safe_load(found[0])
    config |= {"rule_files": []}
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(config))
    done = subprocess.run(
        [binary("promtool"), "check", "config", "--syntax-only", tmp_path / "prometheus.yml"],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
