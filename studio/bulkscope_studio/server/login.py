"""The login of a studio that other machines may reach: one password, asked for by the browser itself (Basic).

Checking the password takes a moment for whoever guesses, and a page asks for much at once. The first answer therefore
sets a cookie, which stands for the password until the studio ends. Commands on the studio's machine have a
token of their own, from the note beside the store that its user alone can read (``runtime``).
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
import ipaddress
import secrets
from collections import Counter
from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any

from bulkscope_studio.server import loopback
from bulkscope_studio.text.secrets import BadSecret, secret

VARIABLE = "BULKSCOPE_STUDIO_PASSWORD"
# Whoever can reach the studio may guess: eight times a second from one address, see below.
SHORTEST = 12
# A wrong password is answered after so many seconds, and of one address only so many wait at once.
WRONG_S, WRONG_AT_ONCE = 0.5, 4

SAID = f"The studio asks for a password: any user, and the value of {VARIABLE} with which it was started.\n"
TOO_MANY = "Too many wrong passwords from this address: try again in a second.\n"


class NoLogin(ValueError):
    """The studio may not be started so; the message says what to set."""


class Login:
    """What lets a request in: the password, the cookie of this process, or the token of commands."""

    def __init__(self, password: str) -> None:
        self._password = password.encode()
        self._session = secrets.token_urlsafe(32)
        self.token = secrets.token_urlsafe(32)

    def has_token(self, headers: list[tuple[bytes, bytes]]) -> bool:
        """Say whether a request with these headers has the token of commands."""
        kind, value = _authorization(headers)
        return kind == b"bearer" and hmac.compare_digest(value, self.token.encode())

    def has_password(self, headers: list[tuple[bytes, bytes]]) -> bool:
        """Say whether a request with these headers has the password."""
        kind, value = _authorization(headers)
        if kind != b"basic":
            return False
        try:
            _, colon, password = base64.b64decode(value, validate=True).partition(b":")
        except (binascii.Error, ValueError):
            return False
        return bool(colon) and hmac.compare_digest(password, self._password)

    def knows(self, headers: list[tuple[bytes, bytes]], cookie: bytes) -> bool:
        """Say whether a request has the cookie."""
        return any(hmac.compare_digest(value, self._session.encode()) for value in _cookies(headers, cookie))

    def cookie(self, name: bytes, scheme: str) -> tuple[bytes, bytes]:
        """Return the header that sets the cookie: for this server's pages alone, and not for their scripts."""
        secure = b"; Secure" if scheme == "https" else b""
        return b"set-cookie", name + b"=" + self._session.encode() + b"; Path=/; HttpOnly; SameSite=Strict" + secure


def _authorization(headers: list[tuple[bytes, bytes]]) -> tuple[bytes, bytes]:
    """Return the kind, in lower case, and the value; both empty where there is none, or more than one."""
    found = [value for name, value in headers if name.lower() == b"authorization"]
    kind, _, value = found[0].partition(b" ") if len(found) == 1 else (b"", b"", b"")
    return kind.lower(), value.strip()


def _cookies(headers: list[tuple[bytes, bytes]], cookie: bytes) -> Iterator[bytes]:
    for name, line in headers:
        if name.lower() == b"cookie":
            for pair in line.split(b";"):
                key, _, value = pair.strip().partition(b"=")
                if key == cookie:
                    yield value


class Asked:
    """Answers 401 to requests that nothing lets in; to many wrong passwords at once 429."""

    def __init__(self, app: loopback.App, login: Login) -> None:
        self._app, self._login = app, login
        self._wrong: Counter[str] = Counter()  # wrong passwords that wait for their answer, by address

    async def __call__(self, scope: loopback.Scope, receive: loopback.Receive, send: loopback.Send) -> None:
        """Pass on what may come in."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        # Browsers send a host's cookies to each of its ports: one studio must not overwrite another's.
        _, port = scope.get("server") or ("", 0)
        name, headers = f"bulkscope-{port}".encode(), scope["headers"]
        address, _ = scope.get("client") or ("", 0)
        if self._login.knows(headers, name):
            await self._app(scope, receive, send)
            return
        if not self._login.has_token(headers):
            tried, _ = _authorization(headers)
            if tried and self._wrong[address] >= WRONG_AT_ONCE:  # and the password is not looked at
                await loopback.answer(send, 429, TOO_MANY, (b"retry-after", b"1"))
                return
            if not self._login.has_password(headers):
                if tried:
                    await self._slow_down(address)
                asks = (b"www-authenticate", b'Basic realm="Bulkscope", charset="UTF-8"')
                await loopback.answer(send, 401, SAID, asks)
                return

        async def with_cookie(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                cookie = self._login.cookie(name, scope.get("scheme", ""))
                message = {**message, "headers": [*message.get("headers", []), cookie]}
            await send(message)

        await self._app(scope, receive, with_cookie)

    async def _slow_down(self, address: str) -> None:
        self._wrong[address] += 1
        try:
            await asyncio.sleep(WRONG_S)
        finally:
            self._wrong[address] -= 1
            if not self._wrong[address]:
                del self._wrong[address]


def of(host: str, variables: Mapping[str, str]) -> Login | None:
    """Return the login of a studio at the address ``host``; None where none is set and none is needed.

    Raises ``NoLogin`` for what is no address, or one that other machines reach and no password is set.
    """
    try:
        address = ipaddress.ip_address(host)
    except ValueError as error:
        raise NoLogin(f"--host {host} is no address: write one of this machine, or 0.0.0.0 for all") from error
    try:
        password = secret(variables, VARIABLE)
    except BadSecret as error:
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
