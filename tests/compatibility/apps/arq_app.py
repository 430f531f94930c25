"""arq: ``python publish.py arq_app`` publishes, ``arq arq_app.Settings`` works."""

import asyncio

import work
from arq import Retry, create_pool, func
from arq.connections import RedisSettings

redis = RedisSettings.from_dsn(work.BROKER)


async def ok(ctx, bulk_id=None):
    return work.ok(bulk_id)


async def fails(ctx, bulk_id=None):
    work.fails(bulk_id)


async def flaky(ctx, bulk_id=None):
    try:
        return work.flaky(bulk_id)
    except KeyError as error:
        raise Retry(defer=0.1) from error


async def outer(ctx, bulk_id=None):
    await ctx["redis"].enqueue_job("ok", _queue_name="bulk")


async def slow(ctx, bulk_id=None):
    await asyncio.sleep(60)


class Settings:
    functions = (ok, fails, flaky, outer, func(slow, timeout=0.3))
    redis_settings = redis
    queue_name = "bulk"
    poll_delay = 0.1


async def publish():
    pool = await create_pool(redis, default_queue_name="bulk")
    await pool.enqueue_job("ok", bulk_id="b-ok")
    await pool.enqueue_job("fails", bulk_id="b-fails")
    await pool.enqueue_job("flaky", bulk_id="b-flaky")
    await pool.enqueue_job("outer", bulk_id="b-outer")
    await pool.enqueue_job("ok", bulk_id="b-later", _defer_by=1)
    await pool.enqueue_job("slow", bulk_id="b-own")
