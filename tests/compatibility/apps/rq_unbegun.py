"""RQ: cancelled, deleted, past its time to live, sent twice, refused as a duplicate, not sent."""

import contextlib
import inspect
import time

import unbegun
import work
from redis import Redis
from rq import Queue
from rq.exceptions import NoSuchJobError
from rq.job import Job

connection = Redis.from_url(work.BROKER)
queue = Queue("bulk", connection=connection)


def publish():
    ids = {}
    for bulk, how in (("b-cancelled", "cancel"), ("b-deleted", "delete")):
        queue.enqueue(unbegun.ok, bulk_id=bulk)
        jobs = [queue.enqueue(unbegun.ok, kwargs={"bulk_id": bulk}) for _ in range(2)]
        for job in jobs:
            getattr(job, how)()
        ids[bulk] = [job.id for job in jobs]
    ids["b-ttl"] = [queue.enqueue(unbegun.ok, kwargs={"bulk_id": "b-ttl"}, ttl=1).id]
    for _ in range(2):
        queue.enqueue(unbegun.ok, kwargs={"bulk_id": "b-same"}, job_id="same")
    with contextlib.suppress(Exception):
        Queue("bulk", connection=Redis.from_url(unbegun.nowhere())).enqueue(unbegun.ok, bulk_id="b-down")
    wanted = {
        "b-cancelled": {"sent": 3, "done": 1, "cancelled": 2},
        "b-deleted": {"sent": 3, "done": 1, "cancelled": 2},
        "b-ttl": {"sent": 1, "cancelled": 1},
        "b-same": {"sent": 1, "done": 1, "duplicate": 1},
        "b-down": {"not_sent": 1},
    }
    if "unique" in inspect.signature(Queue._enqueue_job).parameters:
        queue.enqueue(unbegun.ok, kwargs={"bulk_id": "b-unique"}, job_id="one", unique=True)
        with contextlib.suppress(Exception):
            queue.enqueue(unbegun.ok, kwargs={"bulk_id": "b-unique"}, job_id="one", unique=True)
        wanted["b-unique"] = {"sent": 1, "done": 1, "duplicate": 1}
    unbegun.write(wanted, ids)
    time.sleep(1.5)


def ask():
    def state(job_id):
        try:
            status = Job.fetch(job_id, connection=connection).get_status()
            return getattr(status, "value", status)
        except NoSuchJobError:
            return "gone"

    states = {bulk: {state(each) for each in ids} for bulk, ids in unbegun.ids().items()}
    assert states == {"b-cancelled": {"canceled"}, "b-deleted": {"gone"}, "b-ttl": {"gone"}}, states
    assert queue.count == 0
