"""What every module of ``bulkscope_instrumentation`` has in common.

A subclass names its library and patches it; this class waits for the library's import (a process
that never imports Celery pays nothing for Celery), checks the version and keeps faults of ours away
from the application.
"""

from __future__ import annotations

import logging
import sys
from abc import abstractmethod
from collections.abc import Callable, Collection
from types import ModuleType
from typing import Any, ClassVar

import wrapt
from opentelemetry.instrumentation.dependencies import get_dependency_conflicts
from opentelemetry.instrumentation.instrumentor import BaseInstrumentor

from bulkscope import _defaults
from bulkscope._safe import log, report

# In place of an original that the class does not define itself.
_INHERITED = object()


class Instrumentor(BaseInstrumentor):  # type: ignore[misc]
    """Base of an instrumentor: ``module`` is the import to wait for, ``requires`` the supported versions.

    ``other_modules`` are patched in the same way. ``name`` is what ``BULKSCOPE_<NAME>=contrib`` calls it.
    """

    module: ClassVar[str]
    other_modules: ClassVar[tuple[str, ...]] = ()
    name: ClassVar[str] = ""
    requires: ClassVar[tuple[str, ...]] = ()

    def __init__(self) -> None:
        super().__init__()
        # An instrumentor is made once a process; calling its class again runs this again on the same object.
        self._awaited: set[str] = getattr(self, "_awaited", set())

    def instrumentation_dependencies(self) -> Collection[str]:
        """Return nothing: the versions are checked when the library is imported, see ``requires``."""
        return ()

    def _instrument(self, **kwargs: Any) -> None:
        self._wrapped: list[tuple[Any, str, Any]] = []
        self._active = True
        for name in (self.module, *self.other_modules):
            if name in sys.modules:
                self._imported(sys.modules[name])
            elif name not in self._awaited:
                # A hook cannot be taken back: a second one would patch the library twice.
                self._awaited.add(name)
                wrapt.register_post_import_hook(self._imported, name)

    def _uninstrument(self, **kwargs: Any) -> None:
        self._active = False
        for parent, attribute, original in reversed(self._wrapped):
            if original is _INHERITED:
                delattr(parent, attribute)
            else:
                setattr(parent, attribute, original)
        self._wrapped = []

    def _imported(self, module: ModuleType) -> None:
        # All of it: what is raised here would be raised by the application's import.
        try:
            self._patch_if_wanted(module)
        except Exception:
            report(f"patching {self.module}")

    def _patch_if_wanted(self, module: ModuleType) -> None:
        self._awaited.discard(module.__name__)
        if not self._active or _defaults.left_to_others(self.name or self.module):
            return
        conflict = get_dependency_conflicts(self.requires)
        if conflict:
            log(logging.WARNING, "%s is not instrumented by Bulkscope: %s", self.module, conflict)
        else:
            self.patch(module)

    @abstractmethod
    def patch(self, module: ModuleType) -> None:
        """Patch the imported ``module``; called once, errors are reported and swallowed."""

    def wrap(self, parent: Any, attribute: str, wrapper: Callable[..., Any]) -> None:
        """Replace ``parent.attribute`` by a ``wrapt`` wrapper ``(wrapped, instance, args, kwargs)``."""
        original = parent.__dict__.get(attribute, getattr(parent, attribute))
        self.replace(parent, attribute, wrapt.FunctionWrapper(original, wrapper))

    def replace(self, parent: Any, attribute: str, value: Any) -> None:
        """Set ``parent.attribute``; undone by ``uninstrument()``."""
        self._wrapped.append((parent, attribute, parent.__dict__.get(attribute, _INHERITED)))
        setattr(parent, attribute, value)
