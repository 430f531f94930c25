"""aio-pika in the ways that services use it, one after the other in one process; each has a bulk of its own."""

import asyncio
import json
import logging
import os

import aio_pika

logging.basicConfig(level="INFO")
logger = logging.getLogger("app")


async def main():
    connection = await aio_pika.connect_robust(os.environ["BROKER"])
    channel = await connection.channel()

    async def send(to, bulk, count=1):
        message = aio_pika.Message(json.dumps({"bulk_id": bulk, "prompt": "secret"}).encode())
        for _ in range(count):
            await channel.default_exchange.publish(message, to)
        return message

    async def receive(queue, callback, count=1, **options):
        left, over = [count], asyncio.Event()

        async def on_message(message):
            try:
                await callback(message)
            finally:
                left[0] -= 1
                if left[0] == 0:
                    over.set()

        tag = await queue.consume(on_message, **options)
        await asyncio.wait_for(over.wait(), 30)
        await queue.cancel(tag)

    # No job, and what the application sends stays as it is.
    events = await channel.declare_queue("aio-events")
    await channel.default_exchange.publish(aio_pika.Message(b'{"event": "login"}', headers={"mine": "1"}), events.name)
    message = await events.get(no_ack=True)
    print("event", dict(message.headers))
    twice = await channel.declare_queue("aio-twice")
    print("message", dict((await send(twice.name, "b-twice", 2)).headers))

    async def process(message):
        async with message.process():
            logger.info("working")
            await asyncio.sleep(0.1)

    await receive(twice, process, 2)

    async def fail(message):
        async with message.process(requeue=False):
            raise ValueError("no")

    fails = await channel.declare_queue("aio-fails")
    await send(fails.name, "b-fails")
    await receive(fails, fail)

    async def put_back(message):
        async with message.process(requeue=True, reject_on_redelivered=True):
            raise ValueError("no")

    back = await channel.declare_queue("aio-back")
    await send(back.name, "b-back")
    await receive(back, put_back, 2)

    # An iterator without acknowledgements that hands its messages to tasks.
    tasks = await channel.declare_queue("aio-tasks")
    await send(tasks.name, "b-tasks", 3)

    async def handle(message):
        await asyncio.sleep(0.3)
        logger.info("working")
        if message.delivery_tag == last:
            raise ValueError("no")

    started, last = [], None
    async with tasks.iterator(no_ack=True) as messages:
        async for message in messages:
            last = message.delivery_tag if len(started) == 2 else last
            started.append(asyncio.create_task(handle(message)))
            if len(started) == 3:
                break
    await asyncio.gather(*started, return_exceptions=True)

    # One that works on them itself, and one that asks for them singly.
    loop = await channel.declare_queue("aio-loop")
    await send(loop.name, "b-loop", 2)
    async with loop.iterator() as messages:
        number = 0
        async for message in messages:
            async with message.process():
                await asyncio.sleep(0.1)
                logger.info("working")
            number += 1
            if number == 2:
                break
    logger.info("afterwards")
    get = await channel.declare_queue("aio-get")
    await send(get.name, "b-get")
    message = await get.get()
    await asyncio.sleep(0.1)
    logger.info("working")
    await message.ack()
    logger.info("afterwards")

    # A plain function as callback, which puts off the acknowledgement.
    plain = await channel.declare_queue("aio-plain")
    await send(plain.name, "b-plain")
    taken = asyncio.get_running_loop().create_future()

    async def keep(message):
        taken.set_result(message)

    await receive(plain, keep)
    await asyncio.sleep(0.2)
    await taken.result().ack()

    # Never settled, and the connection is closed.
    lying = await channel.declare_queue("aio-lying")
    await send(lying.name, "b-lying")
    await lying.get()
    await connection.close()


asyncio.run(main())
