"""``./run test`` and ``./run test --all``: each test is run once, and none that needs more is run unasked."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.__main__ import passes
from tests.compatibility import libraries, matrix
from tests.parts import ALONE, LEFT_OUT, demand

ROOT = Path(__file__).resolve().parents[1]
# A test of each kind, in a project with this one's markers and hooks; what a test needs is asked for as ours is.
TESTS = """
import pytest
from tests.parts import demand

def test_plain(): pass

@pytest.mark.alone
def test_alone(): pass

@pytest.mark.slow
def test_slow(): pass

@pytest.mark.slow
@pytest.mark.alone
def test_slow_alone(): pass

@pytest.mark.browser
def test_browser(): demand("browser")

@pytest.mark.containers
def test_containers(): pass

def test_forgotten(): demand("browser")

@pytest.fixture(scope="module", params=["a", "b"])
def server(request): return request.param

def test_of_a_server(server): pass

def test_of_a_server_again(server): pass
"""


# What takes most of the time in which pytest starts, and is not used here.
OTHERS = " ".join(f"-p no:{name}" for name in ("hypothesispytest", "asyncio", "anyio", "valkey"))


def pytest_in(folder: Path, *words: str) -> list[str]:
    """Return the lines of a run on ``TESTS``."""
    markers = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]["markers"]
    settings = ["[pytest]", f"pythonpath = {ROOT}", f"addopts = -rA --strict-markers {OTHERS}", "markers ="]
    (folder / "pytest.ini").write_text("\n".join([*settings, *(f"  {marker}" for marker in markers)]))
    (folder / "conftest.py").write_text('pytest_plugins = ["tests.conftest"]')
    (folder / "test_kinds.py").write_text(TESTS)
    command = [sys.executable, "-m", "pytest", *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False).stdout.splitlines()


def ran(lines: list[str]) -> list[str]:
    """The names of a run's tests that were said to have passed or failed, each as often as it was."""
    said = [line.split() for line in lines if line.startswith(("PASSED", "FAILED"))]
    return sorted(words[1].partition("::")[2] for words in said)


SERVERS = [f"test_of_a_server{again}[{value}]" for value in "ab" for again in ("", "_again")]


def test_all_is_everything_once_with_the_default_first_and_what_measures_itself_alone(tmp_path: Path) -> None:
    default, everything = passes([], False, ROOT), passes([], True, ROOT)
    assert everything[: len(default)] == default
    found = [ran(pytest_in(tmp_path, *arguments)) for _, arguments in everything]
    assert found == [
        sorted(["test_plain", "test_forgotten", *SERVERS]), ["test_alone"],
        ["test_browser", "test_containers", "test_slow"], ["test_slow_alone"],
    ]  # fmt: skip
    assert sorted(name for each in found for name in each) == ran(pytest_in(tmp_path))


@pytest.mark.parametrize(
    "words",
    [
        ["tests/engines"], ["tests/test_parts.py::test_x"], ["-k", "report"], ["-kreport"], ["-m", "browser"],
        ["--lf"], ["-x", "tests"], ["--deselect=tests/test_docs.py"], ["--version"],
    ],
)  # fmt: skip
def test_words_that_choose_are_taken_as_they_are(words: list[str]) -> None:
    ((_, arguments),) = passes(words, False, ROOT)
    assert arguments[-len(words) :] == words
    assert arguments[: -len(words)] == ["--dist", "loadgroup", "-n", "0"]


@pytest.mark.parametrize("words", [["-x"], ["--durations", "20"], ["-n", "1"], ["--maxfail=1", "-v"], ["README.md"]])
def test_other_words_go_to_every_run(words: list[str]) -> None:
    found = [arguments for _, arguments in passes(words, True, ROOT)]
    assert [arguments[-len(words) :] for arguments in found] == [words] * 4
    assert all("-m" in arguments for arguments in found)


def test_a_need_that_was_not_said_fails(tmp_path: Path) -> None:
    lines = pytest_in(tmp_path, "-k", "browser or forgotten")
    assert ran(lines) == ["test_browser", "test_forgotten"]
    assert [line for line in lines if line.startswith("FAILED") and "test_forgotten" in line]
    assert "@pytest.mark.browser must say so" in "\n".join(lines)


def test_without_a_running_test_nothing_is_demanded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.parts._running", [])
    demand("browser")


def processes(lines: list[str]) -> dict[str, str]:
    """The process in which each test of a run ran."""
    said = [line.split() for line in lines if line.startswith("[gw")]
    return {words[-1].partition("::")[2]: words[0] for words in said}


def test_a_browser_is_never_open_beside_networks_of_containers(tmp_path: Path) -> None:
    lines = pytest_in(tmp_path, "-n", "2", "--dist", "loadgroup", "-v", "-k", "test_browser or test_containers")
    process = processes(lines)
    assert sorted(process) == ["test_browser", "test_containers"]
    assert process["test_browser"] == process["test_containers"]


def test_what_is_set_up_once_for_several_tests_is_set_up_in_one_process(tmp_path: Path) -> None:
    lines = pytest_in(tmp_path, "-n", "2", "--dist", "loadgroup", "-v", "-s", "-k", "server or plain")
    process = processes(lines)
    assert sorted(process) == sorted(["test_plain", *SERVERS])
    assert process["test_of_a_server[a]"] == process["test_of_a_server_again[a]"]
    assert process["test_of_a_server[b]"] == process["test_of_a_server_again[b]"]
    assert process["test_of_a_server[a]"] != process["test_of_a_server[b]"], "each value has a server of its own"


def test_what_is_compiled_is_kept_whatever_the_image_of_python_says(tmp_path: Path) -> None:
    test = "import sys\n\ndef test_kept(): assert sys.dont_write_bytecode is False\n"
    (tmp_path / "test_kept.py").write_text(test)
    (tmp_path / "pytest.ini").write_text(f"[pytest]\naddopts = {OTHERS}\n")
    done = subprocess.run(
        [sys.executable, "-m", "tests", "-c", str(tmp_path / "pytest.ini"), "-k", "kept", str(tmp_path)],
        cwd=ROOT, env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "1 passed" in done.stdout, done.stdout


def test_the_markers_are_explained() -> None:
    markers = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]["markers"]
    assert [line.partition(":")[0] for line in markers] == [*LEFT_OUT, ALONE, "chance"]


def test_the_compatibility_page_is_written_when_every_version_was_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes, page = tmp_path / "notes", tmp_path / "page.md"
    monkeypatch.setattr(matrix, "DOCUMENT", page)
    matrix.note("rq", "0", "3")  # a run that nobody has asked for notes
    monkeypatch.setenv(matrix.NOTES_IN, str(notes))
    each = [(each.name, each.age) for each in libraries.ROWS]
    each += [("fastapi", "oldest"), ("fastapi", "newest"), ("starlette", "newest")]
    for name, age in each:
        matrix.note(name, "1.10" if age == "oldest" else "2.0", "1", "3")
    matrix.write(notes)
    assert not page.exists()
    matrix.note("xllamacpp", "2.0", "7")
    matrix.note("xllamacpp", "2.0", "10")
    matrix.write(notes)
    rows = [line for line in page.read_text().splitlines() if line.startswith(("| rq |", "| xllamacpp |"))]
    assert rows == [
        "| rq | 1.10 | ✔ | – | – | – | – |",
        "| rq | 2.0 | ✔ | – | – | – | – |",
        "| xllamacpp | 2.0 | ✔ | – | – | ✔ | – | – |",
    ]
