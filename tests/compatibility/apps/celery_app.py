"""Celery: ``python publish.py celery_app`` publishes, ``celery -A celery_app worker -Q bulk`` works."""

import os

import work
from celery import Celery
from celery.exceptions import Reject

app = Celery("celery_app", broker=work.BROKER, backend=work.BROKER if work.BROKER.startswith("redis") else None)
app.conf.task_default_queue = os.environ.get("QUEUE", "bulk")
app.conf.broker_connection_retry_on_startup = True

ok = app.task(name="ok")(work.ok)
fails = app.task(name="fails")(work.fails)


@app.task(name="flaky", bind=True, max_retries=2)
def flaky(self, bulk_id=None):
    try:
        return work.flaky(bulk_id)
    except KeyError as error:
        raise self.retry(exc=error, countdown=0) from error


@app.task(name="outer")
def outer(bulk_id=None):
    ok.delay()


@app.task(name="refuses", acks_late=True)
def refuses(bulk_id=None):
    raise Reject("not mine", requeue=False)


def publish():
    ok.delay(bulk_id="b-ok")
    fails.delay("b-fails")  # by position
    flaky.delay(bulk_id="b-flaky")
    outer.delay(bulk_id="b-outer")
    ok.apply_async(kwargs={"bulk_id": "b-later"}, countdown=1)
    refuses.delay(bulk_id="b-own")
