"""Taskiq on a stream of Redis: ``python taskiq_depth.py`` sends five jobs, ``taskiq worker`` is busy with the first."""

import asyncio
import os

import work
from taskiq_redis import RedisStreamBroker

broker = RedisStreamBroker(work.BROKER, queue_name="stream", xread_count=1)


@broker.task
async def ok(bulk_id=None):
    await asyncio.sleep(float(os.environ["SECONDS_OF_WORK"]))


async def publish():
    await broker.startup()
    for _ in range(5):
        await ok.kiq(bulk_id="b-depth")
    await broker.shutdown()
