"""Elasticsearch and Kibana as their documentation describes them, as far as ``bulkscope setup`` talks to them.

Two real HTTP servers on the loopback address. They keep what they are given, give it back in the form in which
the real ones do (settings nested and as text, dates added, defaults filled in), refuse keys that are not
documented, and fail where a test says so. What a body may hold say Elastic's own documents (``elastic_api``,
``kibana_api``).
"""

from __future__ import annotations

import base64
import copy
import json
import re
import secrets
import ssl
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import ThreadingHTTPServer
from typing import Any

from tests import serving
from tests.production import elastic_api, kibana_api

Reply = tuple[int, Any]

# Of index settings; Elastic's specification leaves their names open.
SETTINGS = {
    "index.auto_expand_replicas",
    "index.lifecycle.prefer_ilm",
    "index.look_back_time",
    "index.mapping.total_fields.ignore_dynamic_beyond_limit",
    "index.mapping.total_fields.limit",
    "index.number_of_replicas",
    "index.refresh_interval",
}
DATA_VIEW_CREATE = {"id", "title", "name", "timeFieldName", "fieldFormats", "allowNoIndex"}
DATA_VIEW_UPDATE = {"title", "name", "timeFieldName", "fieldFormats"}


@dataclass
class Fault:
    """Applied ``times`` times to requests that match, after ``skip`` of them.

    ``kind``: status, html, garbage, cut, half, slow, lost, drip. "cut" is before the server does it, "lost" after.
    """

    server: str  # "elasticsearch", "kibana", or "" for both
    pattern: str  # of "METHOD /path"
    kind: str
    status: int = 500
    body: Any = None
    times: int = 1
    skip: int = 0


@dataclass
class Stack:
    """What both servers hold; tests read and change it."""

    version: str = "9.5.2"
    kibana_version: str = "9.5.2"
    flavor: str = "default"
    licence: str = "active"
    users: dict[str, str] = field(default_factory=lambda: {"elastic": "s3cret-elastic", "viewer": "s3cret-viewer"})
    index_templates: dict[str, Any] = field(default_factory=dict)
    component_templates: dict[str, Any] = field(default_factory=dict)
    roles: dict[str, Any] = field(default_factory=dict)
    keys: list[dict[str, Any]] = field(default_factory=list)
    streams: dict[str, dict[str, Any]] = field(default_factory=dict)
    mappings: dict[str, Any] = field(default_factory=dict)  # of backing indices
    views: dict[str, Any] = field(default_factory=dict)
    dashboards: dict[str, Any] = field(default_factory=dict)
    drops: set[str] = field(default_factory=set)  # types of panels that Kibana drops with a warning
    kibana_needs: str | None = None  # the password that Kibana was started with
    faults: list[Fault] = field(default_factory=list)
    requests: list[tuple[str, str, str, Any]] = field(default_factory=list)  # server, method, path, body
    urls: dict[str, str] = field(default_factory=dict)
    released: threading.Event = field(default_factory=threading.Event)
    lock: threading.RLock = field(default_factory=threading.RLock)

    def __post_init__(self) -> None:
        for signal in ("traces", "logs", "metrics"):
            self.index_templates[f"{signal}-otel@template"] = {
                "index_patterns": [f"{signal}-*.otel-*"],
                "composed_of": ["otel@mappings", f"{signal}-otel@custom"],
            }

    def writes(self) -> list[tuple[str, str]]:
        """Requests that changed something, as (method, path); authentication and exports do not."""
        return [
            (method, path) for _, method, path, _ in self.requests if method != "GET" and not path.endswith("/_export")
        ]

    def stream(self, name: str, signal: str, *, retention: str | None = None, mapping: Any = None) -> dict[str, Any]:
        """Make a data stream of one backing index, as the first document would."""
        index = f".ds-{name}-2026.11.01-000001"
        self.mappings[index] = {"mappings": mapping or {}}
        self.streams[name] = {
            "name": name,
            "template": f"{signal}-otel@template",
            "indices": [{"index_name": index}],
            "failure_store": {"enabled": True, "indices": []},
            "rollover_on_write": False,
        }
        if retention:
            self.streams[name]["lifecycle"] = {"enabled": True, "data_retention": retention}
        return self.streams[name]

    def snapshot(self) -> str:
        kept = (
            "users",
            "index_templates",
            "component_templates",
            "roles",
            "keys",
            "streams",
            "mappings",
            "views",
            "dashboards",
        )
        return json.dumps({name: getattr(self, name) for name in kept}, sort_keys=True)


def error(status: int, kind: str, reason: str, cause: str | None = None) -> Reply:
    body: dict[str, Any] = {"type": kind, "reason": reason, "root_cause": [{"type": kind, "reason": reason}]}
    if cause:
        body["caused_by"] = {"type": kind, "reason": cause}
    return status, {"error": body, "status": status}


def nested(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return settings as Elasticsearch gives them back: nested under ``index``, every value as text."""
    result: dict[str, Any] = {}

    def put(name: str, value: Any) -> None:
        parts = (name if name.startswith("index.") else f"index.{name}").split(".")
        at = result
        for part in parts[:-1]:
            at = at.setdefault(part, {})
        at[parts[-1]] = str(value).lower() if isinstance(value, bool) else str(value)

    def walk(found: dict[str, Any], before: str) -> None:
        for key, value in found.items():
            if isinstance(value, dict):
                walk(value, f"{before}{key}.")
            else:
                put(f"{before}{key}", value)

    walk(settings, prefix)
    return result


def names(settings: dict[str, Any], prefix: str = "") -> set[str]:
    found: set[str] = set()
    for key, value in settings.items():
        found |= names(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}"}
    return found


def undocumented(body: dict[str, Any]) -> list[str]:
    """Return the index settings of a template that Elasticsearch does not know."""
    return sorted(names(nested(body.get("template", {}).get("settings", {}))) - SETTINGS)


class Elasticsearch:
    def __init__(self, stack: Stack) -> None:
        self.stack = stack

    def who(self, header: str | None) -> tuple[str, bool] | None:
        """Return (user, is it a key) of an ``Authorization`` header, None where it is wrong."""
        kind, _, value = (header or "").partition(" ")
        try:
            name, _, secret = base64.b64decode(value).decode().partition(":")
        except ValueError:
            return None
        if kind == "Basic" and self.stack.users.get(name) == secret:
            return name, False
        if kind == "ApiKey":
            for key in self.stack.keys:
                if key["id"] == name and key["secret"] == secret and not key["invalidated"]:
                    return key["owner_role"], True
        return None

    def answer(self, method: str, path: str, query: dict[str, str], body: Any, header: str | None) -> Reply:
        user = self.who(header)
        if user is None:
            return error(401, "security_exception", "unable to authenticate user [elastic] for REST request")
        name, is_key = user
        if path == "/_security/_authenticate":
            return 200, {"username": name, "authentication_type": "api_key" if is_key else "realm"}
        if name not in ("elastic", "admin"):
            reason = f"action [cluster:admin] is unauthorized for user [{name}]"
            return error(403, "security_exception", reason)
        if wrong := elastic_api.refusal(method, path, body):
            return error(400, "x_content_parse_exception", wrong)
        for pattern, handler in self.routes():
            match = re.fullmatch(pattern, f"{method} {path}")
            if match:
                return handler(match, query, body, is_key)
        return error(400, "invalid_request", f"no handler found for uri [{path}] and method [{method}]")

    def routes(self) -> list[tuple[str, Callable[..., Reply]]]:
        return [
            (r"GET /", self.root),
            (r"GET /_license", self.license),
            (r"POST /_security/user/kibana_system/_password", self.password),
            (r"(GET|PUT) /_index_template/(.+)", self.index_template),
            (r"(GET|PUT) /_component_template/(.+)", self.component_template),
            (r"(GET|PUT) /_security/role/(.+)", self.role),
            (r"(GET|POST|DELETE) /_security/api_key", self.api_key),
            (r"PUT /_security/api_key/(.+)", self.update_key),
            (r"GET /_data_stream/([^/]+)", self.data_stream),
            (r"PUT /_data_stream/([^/]+)", self.make_stream),
            (r"PUT /_data_stream/([^/]+)/_lifecycle", self.lifecycle),
            (r"(GET|PUT) /_data_stream/([^/]+)/_options", self.options),
            (r"GET /([^/_][^/]*)/_mapping", self.mapping),
            (r"POST /([^/_][^/]*)/_rollover", self.rollover),
        ]

    def root(self, match: Any, query: Any, body: Any, is_key: bool) -> Reply:
        about = {"number": self.stack.version, "build_flavor": self.stack.flavor}
        return 200, {"name": "n", "cluster_name": "c", "version": about, "tagline": "You Know, for Search"}

    def license(self, match: Any, query: Any, body: Any, is_key: bool) -> Reply:
        return 200, {"license": {"status": self.stack.licence, "type": "basic"}}

    def password(self, match: Any, query: Any, body: Any, is_key: bool) -> Reply:
        if set(body) != {"password"} or len(body["password"]) < 6:
            return error(400, "action_request_validation_exception", "passwords must be at least [6] characters long")
        self.stack.users["kibana_system"] = body["password"]
        return 200, {}

    def index_template(self, match: Any, query: Any, body: Any, is_key: bool) -> Reply:
        method, name = match[1], match[2]
        if method == "PUT":
            stored = copy.deepcopy(body)
            if "settings" in stored.get("template", {}):
                stored["template"]["settings"] = nested(stored["template"]["settings"])
            self.stack.index_templates[name] = stored
            return 200, {"acknowledged": True}
        if name not in self.stack.index_templates:
            return error(404, "resource_not_found_exception", f"index template matching [{name}] not found")
        return 200, {"index_templates": [{"name": name, "index_template": self.stack.index_templates[name]}]}

    def component_template(self, match: Any, query: Any, body: Any, is_key: bool) -> Reply:
        method, name = match[1], match[2]
        if method == "GET":
            if name not in self.stack.component_templates:
                return error(404, "resource_not_found_exception", f"component template matching [{name}] not found")
            found = self.stack.component_templates[name]
            return 200, {"component_templates": [{"name": name, "component_template": found}]}
        unknown = undocumented(body)
        if unknown:
            return error(400, "illegal_argument_exception", f"unknown setting {unknown}")
        stored = copy.deepcopy(body)
        if "settings" in stored["template"]:
            stored["template"]["settings"] = nested(stored["template"]["settings"])
        stored["created_date_millis"] = stored["modified_date_millis"] = int(time.time() * 1000)
        self.stack.component_templates[name] = stored
        return 200, {"acknowledged": True}

    def role(self, match: Any, query: Any, body: Any, is_key: bool) -> Reply:
        method, name = match[1], match[2]
        if method == "GET":
            found = self.stack.roles.get(name)
            return (404, {}) if found is None else (200, {name: found})
        stored = copy.deepcopy(body)
        for entry in stored["indices"]:
            entry["allow_restricted_indices"] = False
        self.stack.roles[name] = stored | {"metadata": {}, "transient_metadata": {"enabled": True}}
        return 200, {"role": {"created": True}}

    def api_key(self, match: Any, query: Any, body: Any, is_key: bool) -> Reply:
        if match[1] == "GET":
            found = [key for key in self.stack.keys if key["name"] == query["name"]]
            return 200, {"api_keys": [{k: v for k, v in key.items() if k != "secret"} for key in found]}
        if match[1] == "DELETE":
            there = [key for key in self.stack.keys if key["id"] in body["ids"]]
            ended = [key["id"] for key in there if not key["invalidated"]]
            for key in there:
                key["invalidated"] = True
            before = [key["id"] for key in there if key["id"] not in ended]
            return 200, {"invalidated_api_keys": ended, "previously_invalidated_api_keys": before, "error_count": 0}
        if is_key:
            reason = "creating derived api keys requires an explicit role descriptor that is empty (has no privileges)"
            return error(400, "illegal_argument_exception", reason)
        key = {
            "id": secrets.token_urlsafe(15),
            "secret": secrets.token_urlsafe(16),
            "name": body["name"],
            "invalidated": False,
            "metadata": body.get("metadata", {}),
            "role_descriptors": body["role_descriptors"],
            "owner_role": next(iter(body["role_descriptors"])),
        }
        self.stack.keys.append(key)
        encoded = base64.b64encode(f"{key['id']}:{key['secret']}".encode()).decode()
        return 200, {"id": key["id"], "name": key["name"], "api_key": key["secret"], "encoded": encoded}

    def update_key(self, match: Any, query: Any, body: Any, is_key: bool) -> Reply:
        if is_key:
            return error(400, "illegal_argument_exception", "authentication via API key not supported")
        for key in self.stack.keys:
            if key["id"] == match[1]:
                if "expiration" in body:
                    assert body["expiration"] == "1d"
                    key["expiration"] = int((time.time() + 86400) * 1000)
                key["role_descriptors"] = body.get("role_descriptors", key["role_descriptors"])
                return 200, {"updated": True}
        return error(
            404, "resource_not_found_exception", f"no API key owned by requesting user found for ID [{match[1]}]"
        )

    def data_stream(self, match: Any, query: Any, body: Any, is_key: bool) -> Reply:
        patterns = [re.compile(re.escape(part).replace(r"\*", ".*")) for part in match[1].split(",")]
        found = [one for name, one in sorted(self.stack.streams.items()) if any(p.fullmatch(name) for p in patterns)]
        return 200, {"data_streams": found}

    def make_stream(self, match: Any, query: Any, body: Any, is_key: bool) -> Reply:
        name = match[1]
        if name in self.stack.streams:
            return error(400, "resource_already_exists_exception", f"data_stream [{name}] already exists")
        own = self.stack.index_templates.get(name)
        signal = name.partition("-")[0]
        if own is None:
            template = self.stack.component_templates[f"{signal}-otel@custom"]["template"]
        else:
            template = own["template"]
        self.stack.streams[name] = {
            "name": name,
            "template": name if own is not None else f"{signal}-otel@template",
            "lifecycle": copy.deepcopy(template["lifecycle"]),
            "failure_store": {"enabled": True},
        }
        typed = template.get("mappings", {}).get("dynamic_templates", [])
        self.stack.mappings[name] = {"mappings": {"dynamic_templates": typed}}
        return 200, {"acknowledged": True}

    def lifecycle(self, match: Any, query: Any, body: Any, is_key: bool) -> Reply:
        # What is not in the body is gone afterwards.
        self.stack.streams[match[1]]["lifecycle"] = {"enabled": True} | body
        return 200, {"acknowledged": True}

    def options(self, match: Any, query: Any, body: Any, is_key: bool) -> Reply:
        stream = self.stack.streams[match[2]]
        if match[1] == "GET":
            chosen = {"options": stream["options"]} if "options" in stream else {}
            return 200, {"data_streams": [{"name": match[2], **chosen}]}
        stream["options"] = body
        stream["failure_store"] = stream["failure_store"] | {"enabled": body["failure_store"]["enabled"]}
        return 200, {"acknowledged": True}

    def mapping(self, match: Any, query: Any, body: Any, is_key: bool) -> Reply:
        if match[1] not in self.stack.mappings:
            return error(404, "index_not_found_exception", f"no such index [{match[1]}]")
        return 200, {match[1]: self.stack.mappings[match[1]]}

    def rollover(self, match: Any, query: Any, body: Any, is_key: bool) -> Reply:
        assert query == {"lazy": "true"}
        self.stack.streams[match[1]]["rollover_on_write"] = True
        return 200, {"acknowledged": True, "lazy": True}


class Kibana:
    """Asks Elasticsearch who a user is, as the real one does."""

    def __init__(self, stack: Stack, elasticsearch: Elasticsearch) -> None:
        self.stack = stack
        self.elasticsearch = elasticsearch

    def answer(self, method: str, path: str, query: dict[str, str], body: Any, header: str | None) -> Reply:
        needs = self.stack.kibana_needs
        if needs is not None and self.stack.users.get("kibana_system") != needs:
            return 503, "Kibana server is not ready yet."
        user = self.elasticsearch.who(header)
        if path == "/api/status":
            overall = {"status": {"overall": {"level": "available", "summary": "All services are available"}}}
            return 200, overall | ({"version": {"number": self.stack.kibana_version}} if user else {})
        if user is None:
            return 401, {"statusCode": 401, "error": "Unauthorized", "message": "unable to authenticate"}
        if user[0] != "elastic":
            return 403, {"statusCode": 403, "error": "Forbidden", "message": f"unauthorized: {path}"}
        match = re.fullmatch(r"/api/data_views/data_view(?:/(.+))?", path)
        if match:
            return self.data_view(method, match[1], body)
        match = re.fullmatch(r"/api/dashboards/(.+)", path)
        if match:
            return self.dashboard(method, match[1], body)
        if path == "/api/saved_objects/_export":
            return self.export(body)
        return 404, {"statusCode": 404, "error": "Not Found", "message": "Not Found"}

    def data_view(self, method: str, identity: str | None, body: Any) -> Reply:
        views = self.stack.views
        if method == "GET":
            if identity not in views:
                return 404, {
                    "statusCode": 404,
                    "error": "Not Found",
                    "message": f"[index-pattern/{identity}] not found",
                }
            return 200, {"data_view": views[identity]}
        spec = body["data_view"]
        unknown = set(spec) - (DATA_VIEW_CREATE if identity is None else DATA_VIEW_UPDATE) | set(body) - {"data_view"}
        if unknown:
            return 400, {"statusCode": 400, "message": f"[request body]: definition for {sorted(unknown)} missing"}
        if identity is None:
            if any(view["name"] == spec["name"] for view in views.values()):
                return 400, {"statusCode": 400, "message": f"Duplicate data view: {spec['name']}"}
            if spec["id"] in views:
                return 400, {"statusCode": 400, "message": f"Saved object [index-pattern/{spec['id']}] conflict"}
            views[spec["id"]] = copy.deepcopy(spec) | {
                "version": "WzEsMV0=",
                "sourceFilters": [],
                "namespaces": ["default"],
            }
            return 200, {"data_view": views[spec["id"]]}
        views[identity] |= copy.deepcopy(spec)
        return 200, {"data_view": views[identity]}

    def dashboard(self, method: str, identity: str, body: Any) -> Reply:
        found = self.stack.dashboards
        if method == "PUT":
            if message := kibana_api.refusal(body):
                return 400, {"statusCode": 400, "error": "Bad Request", "message": message}
            stored = copy.deepcopy(body)
            stored["options"] = {"use_margins": True, "hide_panel_titles": False} | stored.get("options", {})
            kept = [panel for panel in stored.get("panels", []) if panel["type"] not in self.stack.drops]
            dropped = len(stored.get("panels", [])) - len(kept)
            stored["panels"] = [{"id": f"p{number}"} | panel for number, panel in enumerate(kept)]
            found[identity] = {"data": stored, "dropped": dropped}
            return 200, {"id": identity, "data": stored, "meta": {}}
        if identity not in found:
            return 404, {"statusCode": 404, "error": "Not Found", "message": f"dashboard {identity} was not found"}
        warnings = [{"type": "dropped_panel", "message": "Panel dropped: its type is not supported"}] * found[identity][
            "dropped"
        ]
        return 200, {"id": identity, "data": found[identity]["data"], "meta": {}} | (
            {"warnings": warnings} if warnings else {}
        )

    def export(self, body: Any) -> Reply:
        lines = []
        for one in body["objects"]:
            source = self.stack.views if one["type"] == "index-pattern" else self.stack.dashboards
            if one["id"] not in source:
                return 400, {"statusCode": 400, "message": "Error fetching objects to export"}
            held = source[one["id"]]
            attributes = {"title": held.get("title") or held["data"]["title"], "stored": json.dumps(held)}
            lines.append(one | {"attributes": attributes, "references": [], "version": secrets.token_hex(4)})
            lines[-1]["updated_at"] = str(time.time())
        return 200, "\n".join(json.dumps(line) for line in lines)


@contextmanager
def serve(stack: Stack, tls: ssl.SSLContext | None = None) -> Iterator[Stack]:
    """Serve both on free ports; ``stack.urls`` has their addresses."""
    # Read before anybody waits for an answer.
    elastic_api.described("GET", "/")
    kibana_api.refusal({})
    elasticsearch = Elasticsearch(stack)
    parts: dict[str, Any] = {"elasticsearch": elasticsearch, "kibana": Kibana(stack, elasticsearch)}
    servers = [_server(stack, name, part, tls) for name, part in parts.items()]
    try:
        yield stack
    finally:
        stack.released.set()
        for server in servers:
            server.shutdown()
            server.server_close()


def _server(stack: Stack, name: str, part: Any, tls: ssl.SSLContext | None) -> ThreadingHTTPServer:
    class Handler(serving.Handler):
        def handle_any(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            raw = self.rfile.read(length)
            body = json.loads(raw) if raw else None
            target = urllib.parse.urlsplit(self.path)
            path = urllib.parse.unquote(target.path)
            query = dict(urllib.parse.parse_qsl(target.query))
            with stack.lock:
                stack.requests.append((name, self.command, path, body))
                fault = self._fault(path)
                status, answer = self._answer(path, query, body, fault)
            if fault is not None and fault.kind == "slow":
                stack.released.wait(30)
            if fault is not None and fault.kind in ("cut", "lost"):
                self.close_connection = True
                return
            text = answer if isinstance(answer, str) else json.dumps(answer)
            data = text.encode()
            self.send_response(status)
            self.send_header("Content-Type", "text/html" if text[:1] == "<" else "application/json")
            self.send_header("Content-Length", str(len(data)))
            if 300 <= status < 400:
                self.send_header("Location", answer.get("location", "http://127.0.0.1:1/elsewhere"))
            self.end_headers()
            if fault is not None and fault.kind == "half":
                self.wfile.write(data[: len(data) // 2])
                self.close_connection = True
                return
            if fault is not None and fault.kind == "drip":
                for byte in data:
                    self.wfile.write(bytes((byte,)))
                    if stack.released.wait(0.05):
                        return
            self.wfile.write(data)

        def _fault(self, path: str) -> Fault | None:
            for fault in stack.faults:
                if fault.server not in ("", name) or not re.fullmatch(fault.pattern, f"{self.command} {path}"):
                    continue
                if fault.skip:
                    fault.skip -= 1
                elif fault.times:
                    fault.times -= 1
                    return fault
            return None

        def _answer(self, path: str, query: dict[str, str], body: Any, fault: Fault | None) -> Reply:
            if fault is not None:
                if fault.kind == "status":
                    return fault.status, fault.body if fault.body is not None else {"message": "no"}
                if fault.kind == "html":
                    return fault.status, "<html><body>Sign in to the proxy</body></html>"
                if fault.kind == "garbage":
                    return 200, "\x00\x01 not json {"
                if fault.kind == "cut":  # before it is done; "lost" and "half" are after
                    return 0, ""
            if name == "kibana" and self.command != "GET" and "kbn-xsrf" not in self.headers:
                return 400, {"statusCode": 400, "message": "Request must contain a kbn-xsrf header."}
            reply: Reply = part.answer(self.command, path, query, body, self.headers.get("Authorization"))
            return reply

        do_GET = do_PUT = do_POST = do_DELETE = handle_any

    server, stack.urls[name] = serving.start(Handler, tls)
    return server
