"""Which command lines are Celery's with a pool of greenlets. Real workers: ``tests/compatibility/test_queues.py``."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from bulkscope import _green


@pytest.mark.parametrize(
    ("line", "asked"),
    [
        ("/usr/bin/python3 /usr/bin/celery -A shop worker -P gevent -c 100", True),
        ("python -m celery -A shop worker --pool=eventlet", True),
        ("python /venv/bin/celery -A shop worker --pool eventlet", True),
        ("python /venv/bin/celery -A shop worker -P prefork", False),
        ("python /venv/bin/celery -A shop worker", False),
        ("python serve.py -P gevent", False),
        ("python -m flower --pool=gevent celery", False),
        ("", False),
    ],
)
def test_celery_patches_where_it_is_going_to(line: str, asked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[list[str]] = []
    monkeypatch.setitem(sys.modules, "celery", SimpleNamespace(maybe_patch_concurrency=calls.append))
    _green.patch_early(line.split())
    assert calls == ([line.split()] if asked else [])


def test_what_celery_raises_is_said_and_nothing_more(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(words: list[str]) -> None:
        raise ImportError("no gevent")

    monkeypatch.setitem(sys.modules, "celery", SimpleNamespace(maybe_patch_concurrency=fails))
    _green.patch_early(["python", "celery", "-P", "gevent"])
    assert "no gevent" in capsys.readouterr().err
