"""What SAQ has besides: a job that is aborted, one that is refused, a worker that shuts down."""

import asyncio
import time

import work
from saq import Queue, Worker

queue = Queue.from_url(work.BROKER, name="bulk")


begun = {"aborted": asyncio.Event(), "stopped": asyncio.Event()}


async def endless(ctx, *, bulk_id=None):
    begun[ctx["job"].key].set()
    await asyncio.sleep(60)


async def seen(ctx, *, bulk_id=None):
    assert ctx["job"].meta == {"mine": 1}, "what travels is not the job's to see"
    return work.ok(bulk_id)


async def wait_for(key, status):
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        job = await queue.job(key)
        if job is not None and job.status == status:
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"{key} is never {status}")


async def main():
    await queue.connect()
    if hasattr(queue, "init_db"):
        await queue.init_db()
    worker = Worker(queue, functions=[endless, seen], timers={"abort": 0.2}, concurrency=4)
    running = asyncio.create_task(worker.start())
    await asyncio.sleep(0.5)  # as it starts it sweeps away what it has just taken and not marked yet
    async with queue.batch():
        await queue.enqueue("seen", key="one", scheduled=int(time.time()) + 1, bulk_id="c-twice", meta={"mine": 1})
        assert await queue.enqueue("seen", key="one", bulk_id="c-twice") is None
    aborted = await queue.enqueue("endless", key="aborted", bulk_id="c-aborted", timeout=0)
    await queue.enqueue("endless", key="stopped", bulk_id="c-stopped", timeout=0, retries=3)
    await begun["aborted"].wait()
    await aborted.abort("not wanted any more")
    await wait_for("aborted", "aborted")
    await begun["stopped"].wait()
    await wait_for("one", "complete")
    await worker.stop()
    await asyncio.gather(running, return_exceptions=True)
    await queue.disconnect()


asyncio.run(main())
