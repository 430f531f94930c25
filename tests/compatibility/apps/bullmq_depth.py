"""BullMQ: one job at work for a while, and four behind it, one of them with a priority or none."""

import asyncio
import os
import sys

import work
from bullmq import Queue, Worker

NAME, PRIORITY = sys.argv[1], int(sys.argv[2])


async def process(job, token):
    await asyncio.sleep(float(os.environ["SECONDS_OF_WORK"]))


async def main():
    queue = Queue(NAME, {"connection": work.BROKER})
    for number in range(4):
        await queue.add("ok", {"bulk_id": "b-depth"}, {"lifo": number == 3})
    await queue.add("ok", {"bulk_id": "b-depth"}, {"priority": PRIORITY} if PRIORITY else {})
    await queue.add("ok", {}, {"delay": 600_000})
    worker = Worker(NAME, process, {"connection": work.BROKER})
    await asyncio.sleep(float(os.environ["SECONDS_OF_WORK"]) * 0.9)
    await worker.close(True)
    await queue.close()


asyncio.run(main())
