"""Who may ask a server that listens on the loopback address and has no password.

A web page from anywhere runs in a browser on this machine, and its requests reach 127.0.0.1 like any other. Two headers
tell them apart, and the browser sets both. ``Host`` is the name that the page has let point to 127.0.0.1 (DNS
rebinding: to the browser the studio is then the page's own server, whose answers it may read). ``Origin``, which comes
with every socket and every request that writes, is where the page is from.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Any, Any, Any], Awaitable[None]]

_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(:[0-9]{1,5})?")
# What a browser on this machine calls the studio, with any port: a tunnel may lead to it from another.
NAMES = frozenset({"127.0.0.1", "localhost", "[::1]"})

HOST_SAID = (
    "The studio answers to 127.0.0.1, localhost and [::1] only: open it under one of them. From another "
    "machine, make a tunnel: ssh -L 8080:127.0.0.1:<its port> <its machine>\n"
)
SENDER_SAID = (
    "The receiver answers to 127.0.0.1, localhost, addresses, names without a dot and names that end in .internal: "
    "send to one of them.\n"
)
ORIGIN_SAID = (
    "Only the studio's own pages may ask this of a browser: open it at the address that 'bulkscope studio' prints.\n"
)


def is_any_host(name: str) -> bool:
    """Say yes: a login keeps strangers out, and a page under a name of its own is sent no password and no cookie."""
    return True


def is_page_host(name: str) -> bool:
    """Say whether pages are served under ``name``."""
    return name in NAMES


def is_sender_host(name: str) -> bool:
    """Say whether telemetry is taken under ``name``.

    Services in containers come by a forwarded port and the name that it has there: ``host.docker.internal``, a
    service's name in Compose, an address. None of them is a name that somebody else's DNS could give out.
    """
    if name.startswith("["):
        return _is_address(name[1:-1])
    return "." not in name or name.endswith(".internal") or _is_address(name)


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


class Guard:
    """Answers requests that come from a page elsewhere: 400 by their host, 403 by origin."""

    def __init__(self, app: App, is_host: Callable[[str], bool] = is_page_host, said: str = HOST_SAID) -> None:
        self._app, self._is_host, self._said = app, is_host, said

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on what may come in."""
        refusal = self._refusal(scope["headers"]) if scope["type"] == "http" else None
        if refusal is None:
            await self._app(scope, receive, send)
        else:
            await answer(send, *refusal)

    def _refusal(self, headers: list[tuple[bytes, bytes]]) -> tuple[int, str] | None:
        hosts, origins = (
            [value.decode("latin-1").strip().lower() for name, value in headers if name.lower() == wanted]
            for wanted in (b"host", b"origin")
        )
        parts = _HOST.fullmatch(hosts[0]) if len(hosts) == 1 else None
        if parts is None or not self._is_host(parts[1]):
            return 400, self._said
        # A page of the studio has its host, port and all: another port is another server's page.
        if any(origin not in (f"http://{hosts[0]}", f"https://{hosts[0]}") for origin in origins):
            return 403, ORIGIN_SAID
        return None


async def answer(send: Send, status: int, text: str, *more: tuple[bytes, bytes]) -> None:
    """Send a plain text, with ``more`` headers, as the whole answer to a request."""
    body = text.encode()
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(body)).encode()), *more]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
