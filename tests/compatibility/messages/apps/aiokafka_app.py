"""aiokafka: ``python publish.py aiokafka_app`` publishes, ``python aiokafka_app.py`` works until SIGTERM."""

import asyncio
import json
import os

import work
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

BROKER, TOPIC = os.environ["BROKER"], os.environ.get("QUEUE", "bulk")


async def send(producer, task, **fields):
    await producer.send_and_wait(TOPIC, json.dumps(fields).encode(), headers=[("task", task.encode())])


async def do(producer, record):
    task = dict(record.headers)["task"].decode()
    if task == "outer":
        await send(producer, "ok")
        return
    try:
        {"ok": work.ok, "fails": work.fails, "flaky": work.flaky}[task](**json.loads(record.value))
    except KeyError:
        await producer.send_and_wait(TOPIC, record.value, headers=record.headers)  # to be tried again


async def publish():
    async with AIOKafkaProducer(bootstrap_servers=BROKER) as producer:
        for task in ("ok", "flaky", "outer", "fails"):
            await send(producer, task, bulk_id=f"b-{task}")


async def consume():
    consumer = AIOKafkaConsumer(TOPIC, bootstrap_servers=BROKER, group_id=TOPIC, auto_offset_reset="earliest")
    async with AIOKafkaProducer(bootstrap_servers=BROKER) as producer:
        await consumer.start()
        try:
            async for record in consumer:
                await do(producer, record)
        finally:
            await consumer.stop()


async def serve():
    while True:
        try:
            await consume()
        except ConnectionError as error:
            print("failed:", repr(error))


if __name__ == "__main__":
    asyncio.run(serve())
