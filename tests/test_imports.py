"""The tables of what may import what in ARCHITECTURE.md, read off the syntax trees."""

from __future__ import annotations

import ast
import graphlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
OURS = {"bulkscope", "bulkscope_instrumentation", "bulkscope_studio", "demo", "bench", "tests"}
# What each folder may import of its neighbours, downwards only; its own modules, and `text` in the studio, besides.
NONE: set[str] = set()
STUDIO = {
    "cli": {"sweep", "server.process", "sources", "rendering", "setup"},
    "sweep": {"sources", "rendering"},
    "notebook": {"sources"},
    "server": {"services", "rendering", "ingest", "storage"},
    "sources": {"services", "storage", "elastic"},
    "services": {"analysis", "storage"},
    "setup": {"elastic"},
    "ingest": {"storage"},
    **dict.fromkeys(("rendering", "analysis", "elastic", "storage", "text"), NONE),
}
ANALYSIS = {
    **{one: {"timeline", "statistics", "thresholds", "plain"} for one in ("report", "capacity", "compare", "ending")},
    "whatif": {"replay", "timeline", "statistics", "thresholds", "plain"},
    "explain": {"replay", "timeline", "statistics", "thresholds", "plain"},
    "replay": {"timeline", "statistics", "thresholds"},
    "timeline": {"statistics", "thresholds"},
    "thresholds": {"statistics"},
    **dict.fromkeys(("statistics", "plain"), NONE),
}
CARRIER = {
    "_doctor": {"_launcher", "_jobs", "_export", "_host"},
    "_jobs": {"_export", "_host"},
    "_export": {"_lifecycle"},
    "_host": NONE,
}
# What all of a service's parts stand on; the other modules beside the folders put them together.
GROUND = {"_safe", "_instruments", "_instrumentor", "_defaults", "conventions", "__version__"}


def imports(path: Path, *, lazy: bool) -> Iterator[str]:
    """The modules that a file imports, relative ones left out; ``lazy`` includes those inside functions."""
    pending: list[ast.AST] = [ast.parse(path.read_text())]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield from (f"{node.module}.{name.name}" for name in node.names)
        elif isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            pending.extend(node.orelse)
        elif lazy or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            pending.extend(ast.iter_child_nodes(node))


def files(folder: str) -> list[Path]:
    found = sorted((ROOT / folder).rglob("*.py"))
    assert found, f"{folder} holds no module"
    return found


def offences(folder: str, allowed: set[str], *, lazy: bool = True) -> list[str]:
    """Imports outside the standard library whose first parts are not among ``allowed``."""
    return [
        f"{path.relative_to(ROOT)}: {name}"
        for path in files(folder)
        for name in imports(path, lazy=lazy)
        if name.partition(".")[0] not in sys.stdlib_module_names
        and not any(name == prefix or name.startswith(prefix + ".") for prefix in allowed)
    ]


def test_the_demo_knows_nothing_of_telemetry() -> None:
    for path in files("demo"):
        for name in imports(path, lazy=True):
            assert name.partition(".")[0] not in {"opentelemetry"} | (OURS - {"demo"}), f"{path}: {name}"


def test_what_runs_before_anything_is_installed_needs_the_standard_library_alone() -> None:
    assert offences("stack", {"stack"}) == []
    assert offences("deploy/kubernetes", {"packaging", "yaml"}) == []
    assert offences("deploy/kubernetes/instrumentation/hook", {"packaging"}) == []
    assert [name for name in imports(ROOT / "tests" / "engines" / "build.py", lazy=True) if "tests" in name] == []


def test_what_a_service_carries_imports_little() -> None:
    assert offences("otel/bulkscope", {"bulkscope", "opentelemetry", "prometheus_client", "psutil", "wrapt"}) == []


def test_an_instrumentation_imports_its_library_only_when_it_is_used() -> None:
    allowed = {"bulkscope", "bulkscope_instrumentation", "opentelemetry", "psutil", "wrapt"}
    assert offences("instrumentation/bulkscope_instrumentation", allowed, lazy=False) == []


def test_the_studio_shares_only_the_names() -> None:
    wrong = [
        f"{path}: {name}"
        for path in files("studio")
        for name in imports(path, lazy=True)
        if name.partition(".")[0] in OURS - {"bulkscope_studio"} and not name.startswith("bulkscope.conventions")
    ]
    assert wrong == []


def neighbours(package: str, path: Path) -> Iterator[str]:
    """Yield what a module imports of ``package``, as ``folder.module.name``."""
    for name in imports(path, lazy=True):
        if name.startswith(package + "."):
            yield name.removeprefix(package + ".")


def upwards(root: Path, package: str, allowed: dict[str, set[str]], free: set[str]) -> list[str]:
    """Return the imports between the folders of ``package`` that ``allowed`` does not name."""
    found = []
    for path in sorted(root.rglob("*.py")):
        folder = path.relative_to(root).parts[0].removesuffix(".py")
        for name in neighbours(package, path):
            top = name.partition(".")[0]
            fits = any(name == one or name.startswith(one + ".") for one in allowed.get(folder, NONE) | free)
            if folder != "__init__" and top != folder and not fits:
                found.append(f"{path.relative_to(root)}: {name}")
    return found


def folders(root: Path) -> set[str]:
    return {path.relative_to(root).parts[0].removesuffix(".py") for path in root.rglob("*.py")} - {"__init__"}


def test_the_folders_of_the_studio_import_downwards() -> None:
    root = ROOT / "studio" / "bulkscope_studio"
    assert folders(root) == STUDIO.keys()
    assert upwards(root, "bulkscope_studio", STUDIO, {"text"}) == []


def test_the_kinds_of_analysis_do_not_know_each_other() -> None:
    root = ROOT / "studio" / "bulkscope_studio" / "analysis"
    assert folders(root) == ANALYSIS.keys()
    assert upwards(root, "bulkscope_studio.analysis", ANALYSIS, NONE) == []


def test_analysis_is_numpy_and_arrow() -> None:
    allowed = {"numpy", "pyarrow", "bulkscope.conventions", "bulkscope_studio.analysis", "bulkscope_studio.text"}
    assert offences("studio/bulkscope_studio/analysis", allowed) == []


def test_what_a_service_carries_is_made_of_parts() -> None:
    root = ROOT / "otel" / "bulkscope"
    assert {path.name for path in root.iterdir() if (path / "__init__.py").exists()} == CARRIER.keys()
    found = upwards(root, "bulkscope", CARRIER, GROUND)
    assert [line for line in found if line.partition("/")[0] in CARRIER] == []


@pytest.mark.parametrize("folder", ["otel", "instrumentation", "studio"])
def test_modules_import_each_other_in_no_circle(folder: str) -> None:
    root = ROOT / folder
    paths = {".".join(path.relative_to(root).with_suffix("").parts): path for path in files(folder)}
    known = {
        module: paths.keys() & {part for name in imports(path, lazy=True) for part in (name, name.rpartition(".")[0])}
        for module, path in paths.items()
    }
    assert known
    assert list(graphlib.TopologicalSorter(known).static_order())  # raises CycleError, which names the circle


def test_no_module_imports_a_test_module() -> None:
    """What two of them need stands in a module of its own: a test, and its fixtures, belong to one module."""
    modules = [path for folder in ("tests", "bench") for path in files(folder)]
    assert [
        f"{path.relative_to(ROOT)}: {name}"
        for path in modules
        for name in imports(path, lazy=True)
        if name.startswith("tests.") and any(part.startswith("test_") for part in name.split("."))
    ] == []


def test_our_tests_are_imported_by_their_full_names() -> None:
    """The rule above reads these only."""
    for path in [*files("tests"), *files("bench")]:
        relative = [
            node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom) and node.level
        ]
        assert not relative, path


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import opentelemetry.trace as t", ["opentelemetry.trace"]),
        ("def f():\n    from bulkscope import run", ["bulkscope.run"]),
        ("if True:\n    import wrapt", ["wrapt"]),
        ("from . import x", []),
    ],
)
def test_imports_are_found(tmp_path: Path, source: str, expected: list[str]) -> None:
    module = tmp_path / "module.py"
    module.write_text(source)
    assert list(imports(module, lazy=True)) == expected
