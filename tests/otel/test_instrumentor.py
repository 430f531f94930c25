"""What every instrumentation has in common: it waits, it checks the version, it never breaks the application."""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from bulkscope import _defaults, _instrumentor, _safe
from bulkscope._instrumentor import Instrumentor


class Example(Instrumentor):
    module = "an_example"

    def patch(self, module: ModuleType) -> None:
        self.wrap(module.Thing, "own", self._louder)
        self.wrap(module.Thing, "inherited", self._louder)
        self.replace(module, "value", 2)

    def _louder(self, wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
        return wrapped(*args, **kwargs) + "!"


LIBRARY = """
value = 1
class Base:
    def inherited(self): return "inherited"
class Thing(Base):
    def own(self): return "own"
"""


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "an_example.py").write_text(LIBRARY)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("an_example", None)


@pytest.fixture
def example(library: None) -> Iterator[Example]:
    instrumentor = Example()
    yield instrumentor
    if instrumentor._is_instrumented_by_opentelemetry:
        instrumentor.uninstrument()
    Example.requires = ()


@pytest.mark.parametrize("before", [True, False])
def test_patched_whenever_it_is_imported_and_back_again(example: Example, before: bool) -> None:
    if before:
        importlib.import_module("an_example")
    example.instrument()
    module = importlib.import_module("an_example")
    thing = module.Thing()
    assert (thing.own(), thing.inherited(), module.value) == ("own!", "inherited!", 2)
    assert module.Base().inherited() == "inherited"
    example.uninstrument()
    assert (thing.own(), thing.inherited(), module.value) == ("own", "inherited", 1)
    assert "inherited" not in vars(module.Thing)


def test_instrumented_twice_before_the_import_is_patched_once(example: Example) -> None:
    example.instrument()
    example.uninstrument()
    example.instrument()
    assert importlib.import_module("an_example").Thing().own() == "own!"


def test_a_library_that_is_never_imported_costs_nothing(example: Example) -> None:
    example.instrument()
    assert "an_example" not in sys.modules


@pytest.mark.parametrize("requires", ["pytest >= 999", "no-such-distribution >= 1"])
def test_outside_of_its_range_one_line_says_why(
    example: Example, requires: str, caplog: pytest.LogCaptureFixture
) -> None:
    Example.requires = (requires,)
    example.instrument()
    assert importlib.import_module("an_example").Thing().own() == "own"
    (line,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert line.startswith("an_example is not instrumented by Bulkscope: ")
    assert requires.partition(" ")[0] in line


def test_a_patch_that_fails_is_reported(
    example: Example, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(Example, "patch", lambda self, module: module.no_such_thing)
    example.instrument()
    assert importlib.import_module("an_example").Thing().own() == "own"
    assert "patching an_example" in caplog.text


@pytest.mark.parametrize("name", ["get_dependency_conflicts", "_defaults"])
def test_nothing_of_ours_is_raised_by_the_applications_import(
    example: Example, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    monkeypatch.setattr(_instrumentor, name, None)
    monkeypatch.setattr(_safe, "_reported", set())
    example.instrument()
    assert importlib.import_module("an_example").Thing().own() == "own"
    assert "patching an_example" in caplog.text


def test_left_to_others(example: Example, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BULKSCOPE_AN_EXAMPLE", "contrib")
    example.instrument()
    assert importlib.import_module("an_example").Thing().own() == "own"


def test_contribs_instrumentor_is_superseded_unless_it_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _defaults.superseded()["opentelemetry.instrumentation.fastapi"] == "fastapi"
    assert {"fastapi", "celery", "openai", "taskiq"} <= _defaults.superseded_names()
    assert "httpx" not in _defaults.superseded_names(), "contrib's spans of plain requests are no second ones"
    monkeypatch.setenv("BULKSCOPE_FASTAPI", "contrib")
    assert "opentelemetry.instrumentation.fastapi" not in _defaults.superseded()
    assert "fastapi" not in _defaults.superseded_names()


def test_every_instrumentation_is_registered() -> None:
    from importlib.metadata import entry_points

    folder = Path(__file__).parents[2] / "instrumentation" / "bulkscope_instrumentation"
    points = {
        point.name: point
        for point in entry_points(group="opentelemetry_instrumentor")
        if point.name.startswith("bulkscope_")
    }
    # By the name of the library; a module has an underscore where that has a dash.
    modules = {f"bulkscope_{path.stem}" for path in folder.glob("[a-z]*.py")}
    assert modules == {name.replace("-", "_") for name in points}
    assert all(issubclass(point.load(), Instrumentor) for point in points.values())
