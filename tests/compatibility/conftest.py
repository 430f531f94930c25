"""Writes ``docs/compatibility.md`` when a run has seen every library in every version."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.compatibility import matrix


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    from tests.compatibility import test_engines

    try:
        from tests.compatibility import test_queues
    except pytest.skip.Exception:
        return
    libraries = Counter(each.name for each in (*test_queues.LIBRARIES, *test_engines.LIBRARIES))
    expected = [*libraries.items(), ("fastapi", 2), ("starlette", 1), ("xllamacpp", 1)]
    if exitstatus == 0 and matrix.complete(expected):
        matrix.DOCUMENT.write_text(matrix.markdown())
