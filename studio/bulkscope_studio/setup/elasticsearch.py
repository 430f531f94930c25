"""The steps on Elasticsearch. Each can be run by itself: it compares, changes what differs, and says so."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Iterator
from typing import Any

from bulkscope_studio.elastic.client import Trouble, wait
from bulkscope_studio.setup import keys, merge, plan
from bulkscope_studio.setup.apply import Outcome, Session, Step

OTLP_METRICS, OTLP_ALL = (9, 2), (9, 5)
OVERLAY = "collector/elasticsearch-bulk.yaml"


def version(number: str) -> tuple[int, int]:
    """Return major and minor of ``9.5.0-SNAPSHOT``; raises ``Trouble``."""
    parts = number.split(".")
    if len(parts) < 2 or not (parts[0].isdigit() and parts[1].isdigit()):
        raise Trouble(f"{number!r} is no version that this command knows")
    return int(parts[0]), int(parts[1])


def check_version(number: str, exporter: str) -> None:
    """Raise ``Trouble``, which says what to do, when this version cannot take what the Collector sends."""
    found = version(number)
    if exporter == "bulk":
        if found < (8, 19) or found == (9, 0):
            raise Trouble(
                f"Elasticsearch {number} has no failure store in templates; Bulkscope needs 8.19, or 9.1 and later"
            )
        return
    if found >= OTLP_ALL:
        return
    takes = "metrics over /_otlp, but not traces and logs" if found >= OTLP_METRICS else "nothing over /_otlp"
    raise Trouble(
        f"Elasticsearch {number} takes {takes}: upgrade to 9.5 or later, or let the Collector use {OVERLAY} "
        "and run setup with --exporter bulk"
    )


def reach(session: Session) -> Iterator[Outcome]:
    """Wait until Elasticsearch answers, and check that it is one, of a version that will do."""
    client = session.elasticsearch
    answer = wait(
        lambda: client.get("/", attempts=1),
        session.wait_s,
        f"Elasticsearch at {client.url}",
        session.say,
        pause=session.pause_s,
        sleep=client.sleep,
    ).body
    about = answer.get("version") if isinstance(answer, dict) else None
    number = about.get("number") if isinstance(about, dict) else None
    if not isinstance(about, dict) or not isinstance(number, str) or "distribution" in about:
        name = about.get("distribution", "another server") if isinstance(about, dict) else "another server"
        raise Trouble(f"{client.url} is not Elasticsearch but {name}; check ELASTICSEARCH_URL")
    if about.get("build_flavor") == "serverless":
        raise Trouble(
            f"{client.url} is serverless, which keeps its own templates, retention and users; use its own pages"
        )
    check_version(number, session.exporter)
    yield Outcome("ok", f"Elasticsearch {number} at {client.url}")


def licence(session: Session) -> Iterator[Outcome]:
    """Check that there is a licence that holds; basic is enough."""
    answer = session.elasticsearch.get("/_license").like({"license": {"status?": str, "type?": str}})
    found = answer["license"]
    if found.get("status") != "active":
        raise Trouble(
            f"the licence of Elasticsearch ({found.get('type')}) is {found.get('status')}; basic is enough: "
            "POST /_license/start_basic?acknowledge=true"
        )
    yield Outcome("ok", f"licence {found.get('type')}")


def kibana_password(session: Session) -> Iterator[Outcome]:
    """Set the password of ``kibana_system``, when one is given and it is not this one already."""
    if session.kibana_password is None or session.kibana_secret is None:
        yield Outcome("skipped", "password of kibana_system", ("KIBANA_SYSTEM_PASSWORD is not set",))
        return
    client = session.elasticsearch
    tried = client.get("/_security/_authenticate", allowed=(401,), credentials=session.kibana_password)
    if tried.status != 401:
        yield Outcome("unchanged", "password of kibana_system")
        return
    if not session.dry_run:
        client.request("POST", "/_security/user/kibana_system/_password", {"password": session.kibana_secret})
    yield Outcome("changed", "password of kibana_system")


def built_in_templates(session: Session) -> Iterator[Outcome]:
    """Check that Elasticsearch's own OpenTelemetry templates are there and take ours in."""
    for signal in plan.SIGNALS:
        name = f"{signal}-otel@template"
        answer = session.elasticsearch.get(f"/_index_template/{name}", allowed=(404,))
        if answer.status == 404:
            raise Trouble(
                f"Elasticsearch has no index template {name}; set xpack.otel_data.registry.enabled to true, its default"
            )
        found = answer.like({"index_templates": [{"index_template": {"composed_of?": [str]}}]})["index_templates"]
        if not any(f"{signal}-otel@custom" in one["index_template"].get("composed_of", ()) for one in found):
            raise Trouble(
                f"index template {name} does not take in {signal}-otel@custom; somebody has changed it: restore it"
            )
    yield Outcome("ok", "index templates for OpenTelemetry")


_TEMPLATE = {"settings?": dict, "mappings?": {"dynamic_templates?": [dict]}}
COMPONENTS = {"component_templates": [{"component_template": {"template": _TEMPLATE}}]}


def component_templates(session: Session) -> Iterator[Outcome]:
    """Put our keys into the ``*-otel@custom`` component templates; keys of others stay."""
    for name, ours in plan.component_templates(session.sources, session.retention).items():
        path = f"/_component_template/{name}"
        answer = session.elasticsearch.get(path, allowed=(404,))
        found = [] if answer.status == 404 else answer.like(COMPONENTS)["component_templates"]
        have = found[0]["component_template"] if found else None
        want = merge.template(have, ours)
        differs = merge.differences(merge.normal(have or {}), want)
        yield _put(session, f"component template {name}", path, want, have, differs)


def _put(
    session: Session, subject: str, path: str, want: plan.Json, have: plan.Json | None, differs: Iterable[str]
) -> Outcome:
    """Put ``want`` where there is nothing (``have`` is None), or what is there ``differs`` from it."""
    details = tuple(differs)
    if have is not None and not details:
        return Outcome("unchanged", subject)
    if not session.dry_run:
        session.elasticsearch.request("PUT", path, want)
    return Outcome("created" if have is None else "changed", subject, details if session.dry_run else ())


def index_templates(session: Session) -> Iterator[Outcome]:
    """Create or put back the index templates of our own data streams."""
    form = {"index_templates": [{"index_template": {"template?": {"settings?": dict, "mappings?": dict}}}]}
    for name, ours in plan.index_templates(session.sources).items():
        path = f"/_index_template/{name}"
        answer = session.elasticsearch.get(path, allowed=(404,))
        found = [] if answer.status == 404 else answer.like(form)["index_templates"]
        have = found[0]["index_template"] if found else None
        lacks = [] if have is None else merge.lacking(have | merge.normal(have), ours | merge.normal(ours))
        yield _put(session, f"index template {name}", path, ours, have, [f"~ {at}" for at in lacks])


# What the Collector writes to. A pattern that no data stream matches is an error to ES|QL: a dashboard that is opened
# before the first document would show one in each panel.
WRITTEN = ("traces-generic.otel-default", "logs-generic.otel-default", "metrics-hostmetricsreceiver.otel-default")


def first_streams(session: Session) -> Iterator[Outcome]:
    """Make the data streams that are written to, where they are missing, empty and with our templates."""
    for name in (*WRITTEN, *plan.index_templates(session.sources)):
        path = f"/_data_stream/{name}"
        found = session.elasticsearch.get(path, allowed=(404,))
        if found.status != 404 and found.like({"data_streams?": [dict]}).get("data_streams"):
            yield Outcome("unchanged", f"data stream {name}")
            continue
        if not session.dry_run:
            answer = session.elasticsearch.request("PUT", path, allowed=(400,))
            # The answer to the first try may have been lost, or a document has come first.
            if answer.status == 400 and "already_exists" not in answer.text:
                raise Trouble(f"data stream {name} cannot be made: {answer.text.strip()[:500]}")
        yield Outcome("created", f"data stream {name}")


def roles(session: Session) -> Iterator[Outcome]:
    """Create or correct the roles."""
    for name, ours in plan.roles(session.sources).items():
        path = f"/_security/role/{name}"
        answer = session.elasticsearch.get(path, allowed=(404,))
        have = None if answer.status == 404 else answer.like({name: dict})[name]
        lacks = [] if have is None else merge.lacking(have, ours)
        yield _put(session, f"role {name}", path, ours, have, [f"~ {at}" for at in lacks])


# --- data streams that are there already -------------------------------------------------------

STREAMS = {
    "data_streams?": [
        {
            "name": str, "template?": str, "indices?": [{"index_name": str}], "failure_store?": {"enabled?": bool},
            "lifecycle?": {"data_retention?": str, "enabled?": bool}, "rollover_on_write?": bool,
        }
    ]
}  # fmt: skip
CHOSEN = {"data_streams": [{"options?": {"failure_store?": {"enabled?": bool}}}]}


def streams(session: Session) -> Iterator[Outcome]:
    """Look at the data streams that exist: templates reach only what is made after them.

    Retention is lengthened; it is shortened, which deletes data, only with ``shorten_retention``. A mapping is
    never changed: that is said, and what to do.
    """
    client = session.elasticsearch
    wanted = plan.component_templates(session.sources, session.retention)
    found = client.get("/_data_stream/" + ",".join(f"{signal}-*.otel-*" for signal in plan.SIGNALS), allowed=(404,))
    existing = found.like(STREAMS).get("data_streams") or [] if found.status != 404 else []
    ours = [
        (signal, stream)
        for stream in existing
        for signal in plan.SIGNALS
        # Of the same pattern, but of templates that may have a retention of their own: APM's 1m, 10m and 60m metrics.
        if fnmatch.fnmatchcase(stream["name"], plan.STREAMS[signal])
        and stream.get("template", f"{signal}-otel@template") == f"{signal}-otel@template"
    ]
    if not ours:
        yield Outcome("unchanged", "data streams", ("none yet: the first document makes them",))
    for signal, stream in ours:
        template = wanted[f"{signal}-otel@custom"]["template"]
        yield from _retention(session, stream, template["lifecycle"]["data_retention"])
        yield from _failure_store(session, stream, template["data_stream_options"])
        yield from _mapping(session, signal, stream)


def _retention(session: Session, stream: plan.Json, want: str) -> Iterator[Outcome]:
    name = stream["name"]
    lifecycle = stream.get("lifecycle") or {}
    have = lifecycle.get("data_retention") if lifecycle.get("enabled", True) else None
    subject = f"retention of {name}"
    if have == want:
        yield Outcome("unchanged", subject)
        return
    step = f"~ data_retention: {have or 'for ever'} -> {want}"
    if (have is None or plan.seconds(have) > plan.seconds(want)) and not session.shorten_retention:
        yield Outcome(
            "look at", subject, (step, "this would delete older data: setup does it only with --shorten-retention")
        )
        return
    if not session.dry_run:
        # The whole is replaced: what else it says, down-sampling for one, is sent along.
        kept = {key: lifecycle[key] for key in ("downsampling", "downsampling_method") if key in lifecycle}
        body = kept | {"enabled": True, "data_retention": want}
        session.elasticsearch.request("PUT", f"/_data_stream/{name}/_lifecycle", body)
    yield Outcome("changed", subject, (step,))


def _failure_store(session: Session, stream: plan.Json, want: plan.Json) -> Iterator[Outcome]:
    name = stream["name"]
    if "failure_store" not in stream or stream["failure_store"].get("enabled"):
        return
    path = f"/_data_stream/{name}/_options"
    listed = session.elasticsearch.get(path).like(CHOSEN)["data_streams"]
    chosen = (listed[0].get("options") or {}).get("failure_store") if listed else None
    if chosen is not None and chosen.get("enabled") is False:
        yield Outcome("look at", f"failure store of {name}", ("somebody has switched it off; left alone",))
        return
    if not session.dry_run:
        session.elasticsearch.request("PUT", path, want)
    yield Outcome("changed", f"failure store of {name}", ("+ enabled: true",))


def _mapping(session: Session, signal: str, stream: plan.Json) -> Iterator[Outcome]:
    name = stream["name"]
    if signal == "metrics" or not stream.get("indices"):
        return
    index = stream["indices"][-1]["index_name"]
    form = {index: {"mappings": {"dynamic_templates?": [dict], "properties?": dict}}}
    mappings = session.elasticsearch.get(f"/{index}/_mapping").like(form)[index]["mappings"]
    wrong = conflicts(mappings)
    have = {key for entry in mappings.get("dynamic_templates", []) for key in entry}
    late = [key for entry in plan.dynamic_templates() for key in entry if key not in have]
    subject = f"mapping of {name}"
    if not wrong and not late:
        yield Outcome("unchanged", subject)
        return
    details = tuple(wrong)
    if late:
        details += ("its newest index was made before our types for attributes",)
    if stream.get("rollover_on_write"):
        yield Outcome("unchanged", subject, (*details, "it rolls over with the next document"))
    elif session.rollover:
        if not session.dry_run:
            session.elasticsearch.request("POST", f"/{name}/_rollover?lazy=true", once=True)
        yield Outcome("changed", subject, (*details, "rolls over with the next document; older ones keep their types"))
    else:
        hint = f"roll it over: run setup with --rollover, or POST /{name}/_rollover?lazy=true; no document is lost"
        yield Outcome("look at", subject, (*details, hint))


def conflicts(mappings: plan.Json) -> list[str]:
    """Return a line for each attribute of ours that an index has with another type than ours."""
    have = dict(_fields(mappings.get("properties", {})))
    found = []
    for prefix, types in (("attributes", plan.ATTRIBUTE_TYPES), ("resource.attributes", plan.RESOURCE_TYPES)):
        for name, kind in types.items():
            want, at = plan.FIELDS[kind]["type"], f"{prefix}.{name}"
            if have.get(at, want) != want:
                found.append(f"{at} is {have[at]}, wanted {want}")
    return found


def _fields(properties: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, field in properties.items():
        if not isinstance(field, dict):
            continue
        if isinstance(field.get("properties"), dict):
            yield from _fields(field["properties"], f"{prefix}{key}.")
        elif "type" in field:
            yield f"{prefix}{key}", field["type"]


def api_keys(session: Session) -> Iterator[Outcome]:
    """Create the keys for which there is a file to write them to, and none that is valid."""
    wanted = plan.roles(session.sources)
    for role in wanted:
        yield from keys.provide(session, role, wanted[role])


STEPS: tuple[Step, ...] = (
    reach,
    licence,
    kibana_password,  # early: Kibana starts meanwhile
    built_in_templates,
    component_templates,
    index_templates,
    streams,
    first_streams,
    roles,
    api_keys,  # last: with the key the Collector begins to write
)
