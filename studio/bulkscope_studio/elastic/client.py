"""HTTP to Elasticsearch or Kibana: short time-outs, bounded retries, and one clear sentence when it fails."""

from __future__ import annotations

import base64
import ipaddress
import json
import ssl
import time
import urllib.parse
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

import httpx

from bulkscope_studio.elastic import shape

T = TypeVar("T")

TIMEOUT_S = 10.0  # of one read or write on the connection
ANSWER_S = 30.0  # of a whole answer: one that drips would never reach the time-out above
MOST_BYTES = 64 * 2**20
ATTEMPTS = 4
PASSING = frozenset({429, 502, 503, 504})


class Trouble(Exception):
    """What went wrong and what to do about it, in one sentence."""


class NotReady(Trouble):
    """No answer yet, or one that says so: worth another try."""


class Again(Trouble):
    """It is not known whether it was done, or somebody else did something meanwhile: to look again tells."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """``header`` is sent as ``Authorization`` and never shown; ``name`` says whose it is."""

    header: str = field(repr=False)
    name: str
    is_key: bool = False


def basic(user: str, password: str, source: str) -> Credentials:
    token = base64.b64encode(f"{user}:{password}".encode()).decode()
    return Credentials(f"Basic {token}", f"user {user} ({source})")


def api_key(encoded: str, source: str) -> Credentials:
    return Credentials(f"ApiKey {encoded}", f"the API key ({source})", is_key=True)


@dataclass(frozen=True, slots=True)
class Answer:
    """``body`` is the parsed JSON, None where the answer is empty; ``text`` what came, ``source`` who answered what."""

    status: int
    body: Any
    text: str
    source: str = ""

    def reason(self) -> str:
        """Return what the answer says is wrong."""
        return _reason(self.body, self.text)

    def like(self, form: Any) -> Any:
        """Return ``body``, which is of ``form`` (see ``shape``); raises ``Trouble`` where it is not."""
        wrong = shape.unlike(self.body, form)
        if wrong:
            raise Trouble(
                f"the answer of {self.source} does not have the form that is documented ({wrong}): another server, or "
                "a version that this command does not know"
            )
        return self.body


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@dataclass(slots=True)
class Client:
    """One server. ``name`` is Elasticsearch or Kibana, ``variable`` the setting that holds its address."""

    name: str
    url: str
    credentials: Credentials | None = None
    variable: str = ""
    tls: ssl.SSLContext | None = None
    timeout: float = TIMEOUT_S
    sleep: Callable[[float], None] = time.sleep
    _http: httpx.Client = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Raise ``Trouble`` for a proxy of the environment that cannot be used."""
        self.url = self.url.rstrip("/")
        parts = urllib.parse.urlsplit(self.url)
        tls = self.tls
        if tls is None and parts.scheme == "https":
            tls = ssl.create_default_context()  # the authorities of this machine, not those that httpx brings
        try:
            self._http = httpx.Client(
                timeout=self.timeout,
                verify=False if tls is None else tls,
                trust_env=not _loopback(parts.hostname or ""),  # what is on this machine is asked by no proxy
                # It would carry the password to wherever it points.
                follow_redirects=False,
                # One that the server has closed meanwhile looks like a request that may have been done.
                limits=httpx.Limits(max_keepalive_connections=0),
            )
        except (ImportError, ValueError) as error:
            raise Trouble(
                f"the proxy that the environment names cannot be used for {self.name} ({error}); name {parts.hostname} "
                "in NO_PROXY, or another proxy"
            ) from error

    def get(self, path: str, **options: Any) -> Answer:
        return self.request("GET", path, **options)

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        allowed: Collection[int] = (),
        attempts: int = ATTEMPTS,
        once: bool = False,
        credentials: Credentials | None = None,
    ) -> Answer:
        """Send and return the answer: one of 2xx, or a status in ``allowed``; else raises ``Trouble``.

        ``once`` marks what must not happen twice: it is sent again only after an answer that says it was not done;
        else raises ``Again``.
        """
        for attempt in range(attempts):
            try:
                return self._send(method, path, body, allowed, credentials or self.credentials)
            except NotReady as trouble:
                if once and not isinstance(trouble, _Declined):
                    raise Again(str(trouble)) from trouble
                if attempt + 1 == attempts:
                    raise
                self.sleep(0.25 * 2**attempt)
        raise AssertionError("attempts is at least 1")

    def _send(
        self, method: str, path: str, body: Any, allowed: Collection[int], credentials: Credentials | None
    ) -> Answer:
        data = None if body is None else json.dumps(body).encode()
        headers = {"Accept": "application/json, application/x-ndjson"}
        if data is not None:
            headers["Content-Type"] = "application/json"
        if self.name == "Kibana":
            headers["kbn-xsrf"] = "bulkscope"
        if credentials is not None:
            headers["Authorization"] = credentials.header
        what = f"{method} {path.partition('?')[0]}"
        try:
            with self._http.stream(method, self.url + path, content=data, headers=headers) as answer:
                status, text = answer.status_code, _read(answer.iter_bytes())
        except (httpx.HTTPError, httpx.InvalidURL, _Unreadable) as error:
            raise self._unreachable(what, error) from error
        parsed = _parse(text)
        if status in PASSING and status not in allowed:
            raise _Declined(f"{self.name} at {self.url} answered {status} to {what}: {_reason(parsed, text)}")
        if 200 <= status < 300 or status in allowed:
            # Plain text is what Kibana's 503 is while it starts, and lines of JSON are what its export is.
            if parsed is None and text.strip() and status != 503 and not path.endswith("/_export"):
                raise Trouble(self._stranger(what, text))
            return Answer(status, parsed, text, f"{self.name} at {self.url} to {what}")
        kind = Again if status == 409 else Trouble
        raise kind(self._refusal(status, what, parsed, text, credentials))

    def _unreachable(self, what: str, error: Exception) -> Trouble:
        cause = _cause(error)
        if isinstance(cause, ssl.SSLCertVerificationError):
            return Trouble(
                f"the certificate of {self.name} at {self.url} cannot be verified ({cause.verify_message}); "
                "name the authority's certificate with --ca"
            )
        if isinstance(cause, ssl.SSLError):
            return Trouble(
                f"{self.name} at {self.url} does not speak TLS as expected ({cause}); is it http, not https?"
            )
        return NotReady(
            f"{self.name} cannot be reached at {self.url} ({what}: {str(error) or type(error).__name__}); "
            f"is it running, and is {self.variable or 'the address'} right?"
        )

    def _stranger(self, what: str, text: str) -> str:
        kind = "a web page" if text.lstrip()[:1] == "<" else "something that is not JSON"
        return (
            f"{what} at {self.url} was answered with {kind}: that is not {self.name}, or a proxy stands in between; "
            f"check {self.variable or 'the address'}"
        )

    def _refusal(self, status: int, what: str, parsed: Any, text: str, credentials: Credentials | None) -> str:
        who = credentials.name if credentials else "a request without credentials"
        reason = _reason(parsed, text)
        if status == 401:
            return f"{self.name} at {self.url} does not accept {who}: wrong password or key (401)"
        if status == 403:
            return f"{who} may not {what} at {self.name} (403): {reason}; use a user with the rights, such as elastic"
        if status == 409:
            return f"{what} at {self.name} met a change by somebody else (409): {reason}; run it again"
        if 300 <= status < 400:
            return (
                f"{self.name} at {self.url} redirects {what} elsewhere ({status}); set {self.variable} to that address"
            )
        if parsed is None and text.lstrip()[:1] == "<":
            return f"{self._stranger(what, text)} ({status})"
        return f"{self.name} answered {status} to {what}: {reason}"


class _Declined(NotReady):
    """The server has answered that it did not do it (429, 502, 503, 504)."""


class _Unreadable(Exception):
    """An answer that is not read to its end."""


def _read(chunks: Iterator[bytes]) -> str:
    deadline = time.monotonic() + ANSWER_S
    parts: list[bytes] = []
    size = 0
    for part in chunks:
        parts.append(part)
        size += len(part)
        if size > MOST_BYTES:
            raise _Unreadable(f"the answer is larger than {MOST_BYTES} bytes")
        if time.monotonic() > deadline:
            raise _Unreadable(f"the answer took longer than {ANSWER_S:.0f} s")
    return b"".join(parts).decode("utf-8", "replace")


def _cause(error: BaseException) -> BaseException:
    """Return what is at the bottom of an error of httpx, such as one of TLS."""
    while (below := error.__cause__ or error.__context__) is not None:  # httpcore takes the cause away
        error = below
    return error


def _parse(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


def _reason(parsed: Any, text: str) -> str:
    """The words of an error: ``error.reason`` of Elasticsearch with its last cause, ``message`` of Kibana."""
    found: list[str] = []
    if isinstance(parsed, dict):
        error = parsed.get("error")
        while isinstance(error, dict):
            found.append(str(error.get("reason") or error.get("type") or ""))
            error = error.get("caused_by")
        if isinstance(parsed.get("message"), str):
            found.append(parsed["message"])
        elif isinstance(error, str):
            found.append(error)
    words = ": ".join(dict.fromkeys(part for part in found if part))
    return (words or " ".join(text.split()) or "without a word")[:400]


def wait(
    probe: Callable[[], T],
    seconds: float,
    what: str,
    say: Callable[[str], None],
    *,
    pause: float = 1.0,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> T:
    """Return what ``probe`` returns once it raises ``NotReady`` no more; raises ``Trouble`` after ``seconds``."""
    deadline = clock() + seconds
    said = False
    while True:
        try:
            return probe()
        except NotReady as trouble:
            if clock() >= deadline:
                raise Trouble(f"{what} was not ready within {seconds:g} s: {trouble}") from trouble
            if not said:
                say(f"waiting for {what}, at most {seconds:g} s ({trouble})")
                said = True
        sleep(pause)
