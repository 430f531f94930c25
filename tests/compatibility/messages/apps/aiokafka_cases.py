"""aiokafka in the ways that services use it, one after the other in one process; each has a bulk of its own."""

import asyncio
import json
import logging
import os

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

logging.basicConfig(level="INFO")
logger = logging.getLogger("app")
BROKER = os.environ["BROKER"]


def consumer(topic, **options):
    options = {"group_id": f"group-{topic}", "auto_offset_reset": "earliest", **options}
    return AIOKafkaConsumer(topic, bootstrap_servers=BROKER, **options)


async def main():
    async with AIOKafkaProducer(bootstrap_servers=BROKER) as producer:

        async def send(topic, bulk, count=1):
            for number in range(count):
                value = json.dumps({"bulk_id": bulk, "number": number, "prompt": "secret"}).encode()
                await (await producer.send(topic, value))

        mine = [("mine", b"1")]
        await producer.send_and_wait("aio-events", b'{"event": "login"}', headers=mine)
        await send("aio-events", "b-beside")
        print("headers", mine)
        async with consumer("aio-events") as records:
            print("event", (await records.getone()).headers)
            await records.getone()
            await asyncio.sleep(0.1)

        await send("aio-loop", "b-loop", 2)
        async with consumer("aio-loop") as records:
            number = 0
            async for _ in records:
                await asyncio.sleep(0.1)
                logger.info("working")
                number += 1
                if number == 2:
                    break
        logger.info("afterwards")

        await send("aio-turns", "b-turns", 3)
        async with consumer("aio-turns", enable_auto_commit=False) as records:
            number = 0
            while number < 3:
                for batch in (await records.getmany(timeout_ms=1000)).values():
                    assert isinstance(batch, list)
                    assert len(batch) == len(list(batch[:]))
                    for _ in batch:
                        await asyncio.sleep(0.1)
                        logger.info("working")
                        number += 1
            await records.commit()

        await send("aio-at-once", "b-at-once", 3)
        async with consumer("aio-at-once", enable_auto_commit=False) as records:
            prompts = []
            while len(prompts) < 3:
                found = await records.getmany(timeout_ms=1000)
                prompts += [json.loads(record.value)["prompt"] for batch in found.values() for record in batch]
                await asyncio.sleep(0.3)
            await records.commit()
            await asyncio.sleep(0.3)

        async def handle(record):
            await asyncio.sleep(0.3)
            logger.info("working")
            if json.loads(record.value)["number"] == 2:
                raise ValueError("no")

        await send("aio-tasks", "b-tasks", 3)
        async with consumer("aio-tasks") as records:
            started = []
            async for record in records:
                started.append(asyncio.create_task(handle(record)))
                if len(started) == 3:
                    break
        await asyncio.gather(*started, return_exceptions=True)

        await send("aio-raises", "b-raises")
        for number in range(2):
            try:
                async with consumer("aio-raises", enable_auto_commit=False) as records:
                    async for _ in records:
                        if number == 0:
                            raise KeyError("once")
                        await records.commit()
                        break
            except KeyError:
                pass

        await send("aio-depth", "b-depth", 5)
        async with consumer("aio-depth", enable_auto_commit=False) as records:
            await records.getone()
            await records.commit()
            await asyncio.sleep(1.5)

    # More than the broker takes of one, which it says after it was sent.
    async with AIOKafkaProducer(bootstrap_servers=BROKER, max_request_size=10_000_000) as producer:
        sent = await producer.send("aio-lost", b"x" * 3_000_000, headers=[("bulk_id", b"b-lost")])
        print("refused", type((await asyncio.gather(sent, return_exceptions=True))[0]).__name__)


asyncio.run(main())
