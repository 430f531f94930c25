"""Dramatiq: over its age limit, skipped by a middleware, of no actor, not sent."""

import contextlib
import time

import dramatiq
import unbegun
import work
from dramatiq.brokers.redis import RedisBroker
from dramatiq.middleware import Middleware, SkipMessage


class Skipping(Middleware):
    def before_process_message(self, broker, message):
        if message.kwargs.get("bulk_id") == "b-skipped":
            raise SkipMessage("not today")


broker = RedisBroker(url=work.BROKER)
broker.add_middleware(Skipping())
dramatiq.set_broker(broker)
ok = dramatiq.actor(queue_name="bulk", max_retries=0)(unbegun.ok)


def publish():
    ok.send(bulk_id="b-age")
    for _ in range(2):
        ok.send_with_options(kwargs={"bulk_id": "b-age"}, max_age=200)
    ok.send(bulk_id="b-skipped")
    unknown = {"actor_name": "nobody", "args": (), "kwargs": {"bulk_id": "b-unknown"}, "options": {}}
    broker.enqueue(dramatiq.Message(queue_name="bulk", **unknown))
    with contextlib.suppress(Exception):
        down = RedisBroker(url=unbegun.nowhere())
        down.declare_queue("bulk")
        down.enqueue(ok.message(bulk_id="b-down"))
    wanted = {
        "b-age": {"sent": 3, "done": 1, "cancelled": 2},
        "b-skipped": {"sent": 1, "cancelled": 1},
        "b-unknown": {"sent": 1, "cancelled": 1},
        "b-down": {"not_sent": 1},
    }
    unbegun.write(wanted)
    time.sleep(0.5)


def ask():
    assert broker.do_qsize("bulk") == 0
