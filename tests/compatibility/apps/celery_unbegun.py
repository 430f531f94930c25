"""Celery: expired, revoked, unregistered, sent twice, not sent."""

import contextlib

import unbegun
import work
from celery import Celery

app = Celery("celery_unbegun", broker=work.BROKER, backend=work.BROKER)
app.conf.task_default_queue = "bulk"
app.conf.broker_connection_retry_on_startup = True
ok = app.task(name="ok")(unbegun.ok)


def publish():
    for bulk in ("b-expired", "b-revoked"):
        ok.delay(bulk_id=bulk)
    expired = [ok.apply_async(kwargs={"bulk_id": "b-expired"}, expires=0.1).id for _ in range(2)]
    app.send_task("no.such", kwargs={"bulk_id": "b-unregistered"})
    for _ in range(2):
        ok.apply_async(kwargs={"bulk_id": "b-same"}, task_id="same")
    down = Celery("down", broker=unbegun.nowhere(), set_as_current=False)
    down.conf.broker_transport_options = {"socket_connect_timeout": 1, "max_retries": 0}
    with contextlib.suppress(Exception):
        down.send_task("ok", kwargs={"bulk_id": "b-down"}, retry=False)
    wanted = {
        "b-expired": {"sent": 3, "done": 1, "cancelled": 2},
        "b-revoked": {"sent": 3, "done": 1, "cancelled": 2},
        "b-unregistered": {"sent": 1, "cancelled": 1},
        "b-same": {"sent": 1, "done": 1, "duplicate": 1},
        "b-down": {"not_sent": 1},
    }
    unbegun.write(wanted, {"b-expired": expired})


def call_off():
    """Called when the worker is there: one that is not does not hear of it."""
    revoked = [ok.apply_async(kwargs={"bulk_id": "b-revoked"}, countdown=10).id for _ in range(2)]
    app.control.revoke(revoked)
    unbegun.write(unbegun.wanted(), unbegun.ids() | {"b-revoked": revoked})


def ask():
    states = {bulk: [app.AsyncResult(each).state for each in ids] for bulk, ids in unbegun.ids().items()}
    assert states == {"b-expired": ["REVOKED"] * 2, "b-revoked": ["REVOKED"] * 2}, states
