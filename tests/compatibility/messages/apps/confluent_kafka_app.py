"""confluent-kafka: ``python publish.py confluent_kafka_app`` publishes, ``python confluent_kafka_app.py`` works."""

import json
import os

import work
from confluent_kafka import Consumer, Producer

BROKER, TOPIC = os.environ["BROKER"], os.environ.get("QUEUE", "bulk")


def delivered(error, record):
    if error is not None:
        print("not delivered:", error)


def send(producer, task, **fields):
    producer.produce(TOPIC, json.dumps(fields).encode(), headers={"task": task.encode()}, on_delivery=delivered)
    producer.poll(0)


def do(producer, record):
    task = dict(record.headers())["task"].decode()
    if task == "outer":
        send(producer, "ok")
        return
    try:
        {"ok": work.ok, "fails": work.fails, "flaky": work.flaky}[task](**json.loads(record.value()))
    except KeyError:
        producer.produce(TOPIC, record.value(), headers=record.headers())  # to be tried again


def publish():
    producer = Producer({"bootstrap.servers": BROKER})
    for task in ("ok", "flaky", "outer", "fails"):
        send(producer, task, bulk_id=f"b-{task}")
    assert producer.flush(20) == 0


def consume():
    producer = Producer({"bootstrap.servers": BROKER})
    consumer = Consumer({"bootstrap.servers": BROKER, "group.id": TOPIC, "auto.offset.reset": "earliest"})
    consumer.subscribe([TOPIC])
    try:
        while True:
            record = consumer.poll(0.2)
            if record is not None and record.error() is None:
                do(producer, record)
            producer.poll(0)
    finally:
        producer.flush(10)
        consumer.close()


if __name__ == "__main__":
    while True:
        try:
            consume()
        except ConnectionError as error:
            print("failed:", repr(error))
