"""aio-pika: ``python publish.py aio_pika_app`` publishes, ``python aio_pika_app.py`` works until SIGTERM."""

import asyncio
import json
import os

import aio_pika
import work

QUEUE = os.environ.get("QUEUE", "bulk")


async def send(channel, task, **fields):
    message = aio_pika.Message(json.dumps(fields).encode(), type=task)
    await channel.default_exchange.publish(message, routing_key=QUEUE)


async def do(channel, message):
    if message.type == "outer":
        await send(channel, "ok")
    else:
        {"ok": work.ok, "fails": work.fails, "flaky": work.flaky}[message.type](**json.loads(message.body))


async def publish():
    async with await aio_pika.connect(os.environ["BROKER"]) as connection:
        channel = await connection.channel()
        await channel.declare_queue(QUEUE, durable=True)
        for task in ("ok", "fails", "flaky", "outer"):
            await send(channel, task, bulk_id=f"b-{task}")


async def serve():
    connection = await aio_pika.connect_robust(os.environ["BROKER"])
    channel = await connection.channel()
    await channel.set_qos(prefetch_count=1)
    queue = await channel.declare_queue(QUEUE, durable=True)
    async with queue.iterator() as messages:
        async for message in messages:
            try:
                async with message.process(requeue=message.type == "flaky"):
                    await do(channel, message)
            except Exception as error:
                print("failed:", repr(error))


if __name__ == "__main__":
    asyncio.run(serve())
