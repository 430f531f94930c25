"""BullMQ: ``python publish.py bullmq_app`` publishes, ``python bullmq_app.py`` works until SIGTERM."""

import asyncio
import signal

import work
from bullmq import Queue, Worker

DO = {"ok": work.ok, "fails": work.fails, "flaky": work.flaky}


async def process(job, token):
    if job.name == "outer":
        queue = Queue("bulk", {"connection": work.BROKER})
        await queue.add("ok", {})
        await queue.close()
        return None
    return DO[job.name](**job.data)


async def publish():
    queue = Queue("bulk", {"connection": work.BROKER})
    await queue.add("ok", {"bulk_id": "b-ok"})
    await queue.addBulk([{"name": name, "data": {"bulk_id": f"b-{name}"}} for name in ("fails", "outer")])
    await queue.add("flaky", {"bulk_id": "b-flaky"}, {"attempts": 3, "backoff": {"type": "fixed", "delay": 100}})
    await queue.add("ok", {"bulk_id": "b-later"}, {"delay": 1000})
    await queue.close()


async def serve():
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    worker = Worker("bulk", process, {"connection": work.BROKER})
    await stop.wait()
    await worker.close()


if __name__ == "__main__":
    asyncio.run(serve())
