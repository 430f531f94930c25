"""Taskiq: ``python publish.py taskiq_app`` publishes, ``taskiq worker taskiq_app:broker`` works."""

import work
from taskiq import SimpleRetryMiddleware
from taskiq_redis import ListQueueBroker

broker = ListQueueBroker(work.BROKER, queue_name="bulk").with_middlewares(SimpleRetryMiddleware(default_retry_count=3))


@broker.task
async def ok(bulk_id=None):
    return work.ok(bulk_id)


@broker.task
def fails(bulk_id=None):
    work.fails(bulk_id)


@broker.task(retry_on_error=True)
def flaky(bulk_id=None):
    return work.flaky(bulk_id)


@broker.task
async def outer(bulk_id=None):
    await ok.kiq()


async def publish():
    await broker.startup()
    await ok.kiq(bulk_id="b-ok")
    await fails.kiq("b-fails")  # by position
    await flaky.kiq(bulk_id="b-flaky")
    await outer.kiq(bulk_id="b-outer")
    await broker.shutdown()
