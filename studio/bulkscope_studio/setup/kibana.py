"""The steps on Kibana: wait for it, data views, dashboards, and all of it as NDJSON for who imports by hand."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

from bulkscope_studio.elastic.client import Again, NotReady, Trouble, wait
from bulkscope_studio.setup import merge, plan
from bulkscope_studio.setup.apply import Outcome, Session, Step
from bulkscope_studio.setup.elasticsearch import version

DASHBOARDS_API = (9, 5)
# Different at every export, and not needed to import.
_PASSING_KEYS = frozenset({"version", "created_at", "created_by", "updated_at", "updated_by", "accessControl"})


def reach(session: Session) -> Iterator[Outcome]:
    """Wait until Kibana is ready, and learn its version."""
    client = session.kibana

    def probe() -> Any:
        answer = client.get("/api/status", attempts=1, allowed=(503,))
        if answer.status == 503:
            # Plain text while it starts; later JSON, of which only the words are of use here.
            told = answer.body.get("status") if isinstance(answer.body, dict) else None
            told = told.get("overall") if isinstance(told, dict) else None
            overall = told if isinstance(told, dict) else {}
            said = overall.get("summary") or overall.get("level") or " ".join(answer.text.split())[:200]
            raise NotReady(
                f"Kibana at {client.url} says it is not ready: {said}; when that lasts, look at its log: most often "
                "it has another password for kibana_system than Elasticsearch"
            )
        return answer.body

    body = wait(
        probe, session.wait_s, f"Kibana at {client.url}", session.say, pause=session.pause_s, sleep=client.sleep
    )
    if not isinstance(body, dict) or "status" not in body:
        raise Trouble(f"{client.url} is not Kibana; check KIBANA_URL")
    about = body.get("version")
    if not isinstance(about, dict):  # to whom it does not know, it tells no version
        who = client.credentials.name if client.credentials else "a request without credentials"
        raise Trouble(f"Kibana at {client.url} does not accept {who}: wrong password or key")
    session.kibana_version = version(str(about.get("number")))
    yield Outcome("ok", f"Kibana {about['number']} at {client.url}")


def data_views(session: Session) -> Iterator[Outcome]:
    """Create or correct our data views; formats that a user has set on other fields stay."""
    kept = plan.component_templates(session.sources, session.retention)["traces-otel@custom"]
    views = plan.data_views(kept["template"]["lifecycle"]["data_retention"], _dashboards(session))
    for identity, ours in views.items():
        yield _unless_refused(session, f"data view {identity}", partial(_data_view, session, identity, ours))


def _data_view(session: Session, identity: str, ours: Mapping[str, Any]) -> Outcome:
    subject = f"data view {identity}"
    path = f"/api/data_views/data_view/{identity}"
    answer = session.kibana.get(path, allowed=(404,))
    if answer.status == 404:
        if not session.dry_run:
            # Without `override`: that would delete another view of the same name. Kibana says 400 where there is
            # one of this name or id, which may be what another run has just made.
            made = session.kibana.request(
                "POST", "/api/data_views/data_view", {"data_view": ours}, once=True, allowed=(400,)
            )
            if made.status == 400:
                raise Again(f"{subject} cannot be made: Kibana answered 400: {made.reason()}")
        return Outcome("created", subject)
    have = answer.like({"data_view": {"fieldFormats?": dict}})["data_view"]
    want = {key: ours[key] for key in ("title", "name", "timeFieldName", "fieldFormats")}
    wrong = merge.lacking(have, want)
    if not wrong:
        return Outcome("unchanged", subject)
    if not session.dry_run:
        formats = (have.get("fieldFormats") or {}) | ours["fieldFormats"]
        session.kibana.request("POST", path, {"data_view": want | {"fieldFormats": formats}})
    return Outcome("changed", subject, tuple(f"~ {at}" for at in wrong) if session.dry_run else ())


def dashboards(session: Session) -> Iterator[Outcome]:
    """Put our dashboards. One with the same fingerprint is left alone, also when it was edited since."""
    found = _dashboards(session)
    if not found:
        yield Outcome("skipped", "dashboards", ("there are none in kibana/dashboards",))
        return
    if session.kibana_version < DASHBOARDS_API:
        number = ".".join(map(str, session.kibana_version))
        words = f"Kibana {number} has no stable Dashboards API, which came with 9.5"
        if session.exporter != "bulk":
            raise Trouble(f"{words}: upgrade Kibana to Elasticsearch's version")
        yield Outcome("skipped", "dashboards", (f"{words}; upgrade to have them",))
        return
    for dashboard in found:
        yield _unless_refused(session, f"dashboard {dashboard.id}", partial(_dashboard, session, dashboard))


def _dashboard(session: Session, dashboard: plan.Dashboard) -> Outcome:
    subject = f"dashboard {dashboard.id}"
    path = f"/api/dashboards/{dashboard.id}"
    answer = session.kibana.get(path, allowed=(404,))
    details: tuple[str, ...] = ()
    if answer.status != 404:
        have = answer.like({"data": {"description?": str}})["data"]
        differs = tuple(merge.lacking(have, dashboard.body))
        if f"[{plan.OURS} {dashboard.mark}]" in (have.get("description") or "") and not (
            differs and session.force_dashboards
        ):
            said = ("edited in Kibana, or kept there in another form; --force-dashboards puts ours back",)
            return Outcome("unchanged", subject, said if differs and session.dry_run else ())
        details = tuple(f"~ {at}" for at in differs)
    if not session.dry_run:
        session.kibana.request("PUT", path, dashboard.body)
        details = tuple(
            f"Kibana left something out: {warning.get('message', warning)}"
            for warning in session.kibana.get(path).like({"warnings?": [dict]}).get("warnings") or ()
        )
    return Outcome("created" if answer.status == 404 else "changed", subject, details)


def _unless_refused(session: Session, subject: str, put: Callable[[], Outcome]) -> Outcome:
    """Return what ``put`` returns, or that Kibana refused this one: the others do not need it."""
    try:
        return put()
    except (NotReady, Again):
        raise  # of Kibana as a whole, or to be looked at again
    except Trouble as refused:
        session.refused.append(subject)
        return Outcome("failed", subject, (str(refused),))


def ndjson(session: Session) -> Iterator[Outcome]:
    """Write what is in Kibana as the file that Stack Management > Saved objects > Import takes.

    Kibana itself makes it: a dashboard is stored in another form than its API takes.
    """
    if session.ndjson is None:
        return
    subject = f"file {session.ndjson}"
    if session.refused:
        yield Outcome("skipped", subject, (f"it would lack {', '.join(session.refused)}",))
        return
    objects = [{"type": "index-pattern", "id": identity} for identity in plan.data_views()]
    if session.kibana_version >= DASHBOARDS_API:
        objects += [{"type": "dashboard", "id": dashboard.id} for dashboard in _dashboards(session)]
    if session.dry_run:
        yield Outcome("changed" if session.ndjson.exists() else "created", subject)
        return
    text = session.kibana.request(
        "POST",
        "/api/saved_objects/_export",
        {"objects": objects, "includeReferencesDeep": True, "excludeExportDetails": True},
    ).text
    try:
        exported = [json.loads(line) for line in text.splitlines() if line.strip()]
        found = [{key: value for key, value in one.items() if key not in _PASSING_KEYS} for one in exported]
        found.sort(key=lambda one: (one["type"] == "dashboard", one["type"], one["id"]))
    except (ValueError, AttributeError, KeyError) as error:
        raise Trouble(f"Kibana's export is not NDJSON of saved objects ({error})") from error
    wanted = "".join(json.dumps(one, ensure_ascii=False, sort_keys=True) + "\n" for one in found)
    try:
        before = session.ndjson.read_text(encoding="utf-8") if session.ndjson.exists() else None
        if before == wanted:
            yield Outcome("unchanged", subject)
            return
        session.ndjson.write_text(wanted, encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Trouble(f"{session.ndjson} cannot be written: {error}") from error
    yield Outcome("created" if before is None else "changed", subject)


def _dashboards(session: Session) -> list[plan.Dashboard]:
    return plan.dashboards(session.kibana_sources) if session.kibana_sources is not None else []


STEPS: tuple[Step, ...] = (reach, data_views, dashboards, ndjson)
