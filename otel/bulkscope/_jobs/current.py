"""Making a context the current one, and taking it back, around what is the application's: neither raises."""

from __future__ import annotations

from contextvars import Token

from opentelemetry import context as otel_context
from opentelemetry.context import Context

from bulkscope._safe import guarded


@guarded
def enter(context: Context) -> Token[Context]:
    """Make ``context`` the current one; what is returned, None if that failed, goes to ``leave``."""
    return otel_context.attach(context)


@guarded
def leave(token: Token[Context] | None) -> None:
    """Make current again what was before ``enter``."""
    if token is not None:
        otel_context.detach(token)
