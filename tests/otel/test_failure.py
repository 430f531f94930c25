"""Whose trouble a failure is, by the exceptions that the libraries in use really raise."""

from __future__ import annotations

import errno
import json
import socket
import subprocess

import pytest

from bulkscope._jobs.failures import failure_domain
from bulkscope.conventions import FAILURE_DOMAINS


def named(name: str, base: type[Exception] = Exception, module: str = "app") -> Exception:
    """An exception of a library that is not installed here."""
    return type(name, (base,), {"__module__": module})("said")


@pytest.mark.parametrize(
    ("error", "domain"),
    [
        (ValueError("bad"), "code"),
        (KeyError("bad"), "code"),
        (json.JSONDecodeError("bad", "", 0), "code"),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"), "input"),
        (MemoryError(), "resource"),
        (OSError(errno.ENOSPC, "disk full"), "resource"),
        (OSError(errno.EMFILE, "too many open files"), "resource"),
        (OSError(errno.ENOENT, "no such file"), "code"),
        (ConnectionResetError(), "infra"),
        (BrokenPipeError(), "infra"),
        (OSError(errno.ENETUNREACH, "unreachable"), "infra"),
        (socket.gaierror(-2, "no such host"), "infra"),
        (TimeoutError(), "timeout"),
        (subprocess.TimeoutExpired("cmd", 1), "timeout"),
        (named("ReadTimeout", module="httpx"), "timeout"),
        (named("ConnectTimeout", module="httpx"), "timeout"),
        (named("ConnectError", module="httpx"), "infra"),
        (named("RateLimitError", module="openai"), "infra"),
        (named("BadRequestError", module="openai"), "input"),
        (named("InternalServerError", module="openai"), "model"),
        (named("OutOfMemoryError", RuntimeError, "torch"), "resource"),
        (named("SomethingNew", RuntimeError, "llama_cpp.llama"), "model"),
        (named("PromptTooLong"), "input"),
        (named("ContextLengthExceeded"), "input"),
        (named("EngineDeadError", module="vllm.engine"), "model"),
    ],
)
def test_domain(error: Exception, domain: str) -> None:
    assert domain in FAILURE_DOMAINS
    assert failure_domain(error) == domain


def test_real_errors_of_the_queues_libraries() -> None:
    celery = pytest.importorskip("celery.exceptions")
    billiard = pytest.importorskip("billiard.exceptions")
    redis = pytest.importorskip("redis.exceptions")
    assert failure_domain(celery.SoftTimeLimitExceeded()) == "timeout"
    assert failure_domain(billiard.WorkerLostError()) == "infra"
    assert failure_domain(billiard.Terminated()) == "infra"
    assert failure_domain(redis.ConnectionError()) == "infra"
    assert failure_domain(redis.TimeoutError()) == "timeout"
    assert failure_domain(redis.BusyLoadingError()) == "infra"
    assert failure_domain(redis.OutOfMemoryError()) == "resource"


def chained(error: BaseException, cause: BaseException | None) -> BaseException:
    error.__cause__ = cause
    return error


def test_the_cause_is_asked_when_the_error_says_nothing() -> None:
    assert failure_domain(chained(RuntimeError("job failed"), chained(ValueError(), MemoryError()))) == "resource"
    assert failure_domain(chained(TimeoutError(), MemoryError())) == "timeout", "what it says itself goes first"
    circle = RuntimeError("a")
    assert failure_domain(chained(circle, chained(ValueError(), circle))) == "code"


def raised_while_handling(*, hidden: bool) -> BaseException:
    try:
        raise ConnectionError
    except ConnectionError:
        error = ValueError("the user's own")
        with pytest.raises(ValueError) as caught:  # noqa: PT012
            if hidden:
                raise error from None
            raise error  # noqa: B904
    return caught.value


def test_a_context_that_was_hidden_is_not_the_cause() -> None:
    assert failure_domain(raised_while_handling(hidden=True)) == "code"
    assert failure_domain(raised_while_handling(hidden=False)) == "infra"


class _Said(ValueError):
    bulk_failure_domain = "input"


class _SaidTimeout(TimeoutError):
    bulk_failure_domain = "nonsense"


def test_an_exception_may_say_whose_trouble_it_is() -> None:
    assert failure_domain(_Said("prompt")) == "input"
    assert failure_domain(_SaidTimeout()) == "timeout"
    error = ValueError("prompt")
    error.bulk_failure_domain = "model"  # type: ignore[attr-defined]
    assert failure_domain(error) == "model"
