"""Dramatiq: ``python publish.py dramatiq_app`` publishes, ``dramatiq dramatiq_app -p 1 -t 1`` works."""

import os

import dramatiq
import work

QUEUE = os.environ.get("QUEUE", "bulk")

if work.BROKER.startswith("redis"):
    from dramatiq.brokers.redis import RedisBroker as Broker
else:
    from dramatiq.brokers.rabbitmq import RabbitmqBroker as Broker

dramatiq.set_broker(Broker(url=work.BROKER))

ok = dramatiq.actor(queue_name=QUEUE, max_retries=0)(work.ok)
fails = dramatiq.actor(queue_name=QUEUE, max_retries=0)(work.fails)
flaky = dramatiq.actor(queue_name=QUEUE, max_retries=2, min_backoff=100, max_backoff=100)(work.flaky)


@dramatiq.actor(queue_name=QUEUE)
def outer(bulk_id=None):
    ok.send()


def publish():
    ok.send(bulk_id="b-ok")
    fails.send("b-fails")  # by position
    flaky.send(bulk_id="b-flaky")
    outer.send(bulk_id="b-outer")
    ok.send_with_options(kwargs={"bulk_id": "b-later"}, delay=1000)
