"""Sorts what a job failed with: its name, and whose trouble it is.

``input`` the prompt; ``model`` the engine or its output; ``resource`` memory, disk, descriptors; ``infra``
broker, network, a lost worker; ``timeout`` a limit on time; ``code`` anything else.

An exception whose class or instance says so by itself, ``bulk_failure_domain = "input"``, is believed. Else
by the names of the exception's classes, base classes included, because the libraries that define them
are not ours to import. The first match from the most derived class on holds; the exception that caused it
is asked when its own classes say nothing.
"""

from __future__ import annotations

import errno
import re

from bulkscope import conventions as c

_ERRNO = {
    errno.ENOMEM: "resource", errno.ENOSPC: "resource", errno.EDQUOT: "resource", errno.EMFILE: "resource",
    errno.ENFILE: "resource", errno.ECONNREFUSED: "infra", errno.ECONNRESET: "infra",
    errno.EHOSTUNREACH: "infra", errno.ENETUNREACH: "infra", errno.EPIPE: "infra", errno.ETIMEDOUT: "timeout",
}  # fmt: skip

# In this order: "MemoryError" before "Error", "ConnectTimeout" is a time-out before it is a connection's.
_PATTERNS = tuple(
    (domain, re.compile(pattern))
    for domain, pattern in (
        ("timeout", r"Time-?out|Time(out)?LimitExceeded|DeadlineExceeded"),
        ("resource", r"OutOfMemory|MemoryError|^OOM|NoSpace|DiskFull|QuotaExceeded"),
        ("input", r"ContextLength|ContextWindow|ContextSize|TooLong|TooManyTokens|Prompt\w*(Error|Invalid)|"
                  r"ValidationError|BadRequest|InvalidRequest|UnprocessableEntity|^UnicodeError$"),
        ("infra", r"Connect|Network|Broker|WorkerLost|^Terminated|OperationalError|BusyLoading|gaierror|^SSL|"
                  r"RateLimit|ServiceUnavailable|ReadOnlyError|ClusterDown|ProtocolError"),
        ("model", r"Engine|Inference|^Model|Generation|Llama|InternalServerError|APIStatusError"),
    )
)  # fmt: skip
_MODEL_MODULES = ("torch", "transformers", "llama_cpp", "xllamacpp", "vllm", "onnxruntime", "ctransformers")


def error_type(error: BaseException) -> str:
    """Return the value of ``error.type`` for an exception: its class with the module, builtins bare."""
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _names(error: BaseException) -> str:
    return " ".join(kind.__name__ for kind in type(error).__mro__)


def is_overload(error: BaseException) -> bool:
    """Tell whether a failed enqueue means a full or slow broker rather than a broken one."""
    chain: BaseException | None = error
    seen: set[int] = set()
    while chain is not None and id(chain) not in seen:
        seen.add(id(chain))
        names = _names(chain)
        if "Timeout" in names or "LimitExceeded" in names or "OutOfMemory" in names or "Full" in names.split():
            return True
        chain = chain.__cause__
    return False


def failure_domain(error: BaseException) -> str:
    """Return the domain of ``error``: one of ``conventions.FAILURE_DOMAINS``."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        domain = _own_domain(current)
        if domain is not None:
            return domain
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)
    return "code"


def _own_domain(error: BaseException) -> str | None:
    said = getattr(error, "bulk_failure_domain", None)
    if isinstance(said, str) and said in c.FAILURE_DOMAINS:
        return said
    if isinstance(error, OSError) and error.errno in _ERRNO:
        return _ERRNO[error.errno]
    for kind in type(error).__mro__:
        if kind in (Exception, BaseException, object):
            break
        for domain, pattern in _PATTERNS:
            if pattern.search(kind.__name__):
                return domain
        if kind.__module__.partition(".")[0] in _MODEL_MODULES:
            return "model"
    return None
