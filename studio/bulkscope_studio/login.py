"""The login of a studio that other machines may reach: one password, asked for by the browser itself (Basic).

A browser sends the password with each request, but not every one with the request for a socket. The first answer
therefore sets a cookie, which stands for the password until the studio ends. Commands on the studio's machine have a
token of their own, from the note beside the store that its user alone can read (``runtime``).
"""

from __future__ import annotations

import base64
import binascii
import hmac
import ipaddress
import secrets
from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any

from bulkscope_studio import loopback
from bulkscope_studio.setup import environment

VARIABLE = "BULKSCOPE_STUDIO_PASSWORD"
# Whoever can reach the studio may try as fast as it answers.
SHORTEST = 12

SAID = f"The studio asks for a password: any user, and the value of {VARIABLE} with which it was started.\n"


class NoLogin(ValueError):
    """The studio may not be started so; the message says what to set."""


class Login:
    """What lets a request in: the password, the cookie of this process, or the token of commands."""

    def __init__(self, password: str) -> None:
        self._password = password.encode()
        self._session = secrets.token_urlsafe(32)
        self.token = secrets.token_urlsafe(32)

    def lets_in(self, headers: list[tuple[bytes, bytes]]) -> bool:
        """Say whether a request with these headers has the password or the token."""
        (kind, _, value), *more = [
            *(value.partition(b" ") for name, value in headers if name.lower() == b"authorization"), (b"", b"", b""),
        ]  # fmt: skip
        if len(more) > 1:
            return False
        if kind.lower() == b"bearer":
            return hmac.compare_digest(value.strip(), self.token.encode())
        if kind.lower() == b"basic":
            try:
                _, colon, password = base64.b64decode(value.strip(), validate=True).partition(b":")
            except (binascii.Error, ValueError):
                return False
            return bool(colon) and hmac.compare_digest(password, self._password)
        return False

    def knows(self, headers: list[tuple[bytes, bytes]], cookie: bytes) -> bool:
        """Say whether a request has the cookie."""
        return any(hmac.compare_digest(value, self._session.encode()) for value in _cookies(headers, cookie))

    def cookie(self, name: bytes, scheme: str) -> tuple[bytes, bytes]:
        """Return the header that sets the cookie: for this server's pages alone, and not for their scripts."""
        secure = b"; Secure" if scheme in ("https", "wss") else b""
        return b"set-cookie", name + b"=" + self._session.encode() + b"; Path=/; HttpOnly; SameSite=Strict" + secure


def _cookies(headers: list[tuple[bytes, bytes]], cookie: bytes) -> Iterator[bytes]:
    for name, line in headers:
        if name.lower() == b"cookie":
            for pair in line.split(b";"):
                key, _, value = pair.strip().partition(b"=")
                if key == cookie:
                    yield value


class Asked:
    """Answers 401 to requests, those for sockets too, that nothing lets in."""

    def __init__(self, app: loopback.App, login: Login) -> None:
        self._app, self._login = app, login

    async def __call__(self, scope: loopback.Scope, receive: loopback.Receive, send: loopback.Send) -> None:
        """Pass on what may come in."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        # Browsers send a host's cookies to each of its ports: one studio must not overwrite another's.
        _, port = scope.get("server") or ("", 0)
        name = f"bulkscope-{port}".encode()
        if self._login.knows(scope["headers"], name):
            await self._app(scope, receive, send)
        elif self._login.lets_in(scope["headers"]):

            async def with_cookie(message: MutableMapping[str, Any]) -> None:
                if message["type"] in ("http.response.start", "websocket.accept"):
                    cookie = self._login.cookie(name, scope.get("scheme", ""))
                    message = {**message, "headers": [*message.get("headers", []), cookie]}
                await send(message)

            await self._app(scope, receive, with_cookie)
        else:
            asks = (b"www-authenticate", b'Basic realm="Bulkscope", charset="UTF-8"')
            await loopback.answer(scope, send, 401, SAID, asks)


def of(host: str, variables: Mapping[str, str]) -> Login | None:
    """Return the login of a studio at the address ``host``; None where none is set and none is needed.

    Raises ``NoLogin`` for what is no address, or one that other machines reach and no password is set.
    """
    try:
        address = ipaddress.ip_address(host)
    except ValueError as error:
        raise NoLogin(f"--host {host} is no address: write one of this machine, or 0.0.0.0 for all") from error
    try:
        password = environment.secret(variables, VARIABLE)
    except environment.BadEnvironment as error:
        raise NoLogin(str(error)) from error
    if password is None:
        if address.is_loopback:
            return None
        raise NoLogin(
            f"--host {host} can be reached from elsewhere, so a password is needed: set {VARIABLE}, or name a file "
            "that holds it with _FILE behind that name"
        )
    if len(password) < SHORTEST:
        raise NoLogin(f"{VARIABLE} has fewer than {SHORTEST} characters: anybody who reaches the studio may guess")
    return Login(password)
