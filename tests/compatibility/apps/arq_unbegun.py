"""arq: aborted, expired, unregistered, refused as a duplicate, not sent."""

import asyncio
import contextlib

import unbegun
import work
from arq import create_pool
from arq.connections import ArqRedis, RedisSettings
from arq.jobs import JobStatus

redis = RedisSettings.from_dsn(work.BROKER)


async def ok(ctx, bulk_id=None):
    unbegun.ok(bulk_id)


class Settings:
    functions = (ok,)
    redis_settings = redis
    queue_name = "bulk"
    poll_delay = 0.1
    allow_abort_jobs = True


async def publish():
    pool = await create_pool(redis, default_queue_name="bulk")
    await pool.enqueue_job("ok", bulk_id="b-aborted")
    aborted = [await pool.enqueue_job("ok", bulk_id="b-aborted") for _ in range(2)]
    for job in aborted:
        with contextlib.suppress(asyncio.TimeoutError):
            await job.abort(timeout=0.01)
    expired = await pool.enqueue_job("ok", bulk_id="b-expired", _expires=0.5)
    strange = await pool.enqueue_job("no_such", bulk_id="b-unregistered")
    taken = [await pool.enqueue_job("ok", bulk_id="b-same", _job_id="same") for _ in range(3)]
    assert [job is None for job in taken] == [False, True, True]
    with contextlib.suppress(Exception):
        port = int(unbegun.nowhere().rpartition(":")[2].partition("/")[0])
        await ArqRedis(host="127.0.0.1", port=port, default_queue_name="bulk").enqueue_job("ok", bulk_id="b-down")
    wanted = {
        "b-aborted": {"sent": 3, "done": 1, "cancelled": 2},
        "b-expired": {"sent": 1, "cancelled": 1},
        "b-unregistered": {"sent": 1, "cancelled": 1},
        "b-same": {"sent": 1, "done": 1, "duplicate": 2},
        "b-down": {"not_sent": 1},
    }
    ids = {"b-aborted": [job.job_id for job in aborted], "b-expired": [expired.job_id], "b-x": [strange.job_id]}
    unbegun.write(wanted, ids)
    await asyncio.sleep(1)


async def ask():
    pool = await create_pool(redis, default_queue_name="bulk")
    results = {result.job_id: result for result in await pool.all_job_results()}
    for ids in unbegun.ids().values():
        for job_id in ids:
            assert not results[job_id].success, results[job_id]
    assert await pool.zcard("bulk") == 0
    assert JobStatus.complete
