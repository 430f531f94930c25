"""RQ: ``python publish.py rq_app`` publishes, ``rq worker --with-scheduler bulk`` works."""

from datetime import timedelta

import work
from redis import Redis
from rq import Queue, Retry

queue = Queue("bulk", connection=Redis.from_url(work.BROKER))


def outer(bulk_id=None):
    queue.enqueue(work.ok)


def publish():
    queue.enqueue(work.ok, bulk_id="b-ok")
    queue.enqueue(work.fails, "b-fails")  # by position
    queue.enqueue(work.flaky, bulk_id="b-flaky", retry=Retry(max=2))
    queue.enqueue("rq_app.outer", bulk_id="b-outer")
    queue.enqueue_in(timedelta(seconds=1), work.ok, bulk_id="b-later")
