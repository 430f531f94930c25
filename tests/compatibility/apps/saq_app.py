"""SAQ: ``python publish.py saq_app`` publishes, ``saq saq_app.settings`` works."""

import asyncio
import time

import work
from saq import Queue

queue = Queue.from_url(work.BROKER, name="bulk")


async def ok(ctx, *, bulk_id=None):
    return work.ok(bulk_id)


async def fails(ctx, *, bulk_id=None):
    work.fails(bulk_id)


def flaky(ctx, *, bulk_id=None):
    return work.flaky(bulk_id)


async def outer(ctx, *, bulk_id=None):
    await queue.enqueue("ok")


async def slow(ctx, *, bulk_id=None):
    await asyncio.sleep(60)


settings = {"queue": queue, "functions": [ok, fails, flaky, outer, slow], "concurrency": 1}


async def publish():
    await queue.connect()
    if hasattr(queue, "init_db"):  # PostgreSQL: SAQ 0.16 leaves it to the worker
        await queue.init_db()
    await queue.enqueue("ok", bulk_id="b-ok")
    await queue.enqueue("fails", bulk_id="b-fails")
    await queue.enqueue("flaky", bulk_id="b-flaky", retries=3, retry_delay=0.1)
    await queue.enqueue("outer", bulk_id="b-outer")
    await queue.enqueue("slow", bulk_id="b-own", timeout=1)
    await asyncio.sleep(1 - time.time() % 1)  # SAQ schedules for whole seconds
    await queue.enqueue("ok", bulk_id="b-later", scheduled=int(time.time()) + 1)
    await queue.disconnect()
