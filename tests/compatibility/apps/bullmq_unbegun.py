"""BullMQ: removed, sent twice, refused as a duplicate of another bulk's job, not sent."""

import asyncio
import contextlib
import signal

import unbegun
import work
from bullmq import Queue, Worker


async def process(job, token):
    unbegun.ok(**job.data)


async def publish():
    queue = Queue("bulk", {"connection": work.BROKER})
    jobs = [await queue.add("ok", {"bulk_id": "b-removed"}) for _ in range(3)]
    await queue.remove(jobs[1].id)
    await jobs[2].remove()
    for bulk in ("b-same", "b-same", "b-taken"):
        await queue.add("ok", {"bulk_id": bulk}, {"jobId": "same"})
    await queue.addBulk([{"name": "ok", "data": {"bulk_id": "b-taken"}, "opts": {"jobId": "same"}}])
    with contextlib.suppress(BaseException):
        down = Queue("bulk", {"connection": unbegun.nowhere()})
        await asyncio.wait_for(down.add("ok", {"bulk_id": "b-down"}), 2)
    wanted = {
        "b-removed": {"sent": 3, "done": 1, "cancelled": 2},
        "b-same": {"sent": 1, "done": 1, "duplicate": 1},
        "b-taken": {"duplicate": 2},
        "b-down": {"not_sent": 1},
    }
    unbegun.write(wanted, {"b-removed": [job.id for job in jobs]})
    await queue.close()


async def ask():
    queue = Queue("bulk", {"connection": work.BROKER})
    states = [await queue.getJobState(each) for each in unbegun.ids()["b-removed"]]
    assert states == ["completed", "unknown", "unknown"], states
    await queue.close()


async def serve():
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    worker = Worker("bulk", process, {"connection": work.BROKER})
    await stop.wait()
    await worker.close()


if __name__ == "__main__":
    asyncio.run(serve())
