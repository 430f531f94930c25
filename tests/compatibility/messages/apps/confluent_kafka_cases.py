"""confluent-kafka in the ways that services use it, one after the other in one process."""

import json
import logging
import os
import time
from concurrent.futures import ThreadPoolExecutor

from confluent_kafka import Consumer, DeserializingConsumer, Producer, SerializingProducer

logging.basicConfig(level="INFO")
logger = logging.getLogger("app")
BROKER = {"bootstrap.servers": os.environ["BROKER"]}
producer = Producer(BROKER)


def send(topic, bulk, count=1):
    for number in range(count):
        producer.produce(topic, json.dumps({"bulk_id": bulk, "number": number, "prompt": "secret"}))
    assert producer.flush(30) == 0


def consumer(topic, kind=Consumer, **options):
    found = kind({**BROKER, "group.id": f"group-{topic}", "auto.offset.reset": "earliest", **options})
    found.subscribe([topic])
    return found


def poll(records):
    while True:
        record = records.poll(1)
        if record is not None and record.error() is None:
            return record


mine = {"mine": b"1"}
producer.produce("events", b'{"event": "login"}', headers=mine)
producer.produce("events", b'{"bulk_id": "b-beside"}', headers=mine)
producer.flush(30)
print("headers", mine)
records = consumer("events")
print("event", poll(records).headers())
poll(records)
time.sleep(0.1)
records.close()

send("loop", "b-loop", 2)
records = consumer("loop")
for _ in range(2):
    poll(records)
    time.sleep(0.1)
    logger.info("working")
records.close()
logger.info("afterwards")

send("turns", "b-turns", 3)
records = consumer("turns", **{"enable.auto.commit": False})
number = 0
while number < 3:
    batch = records.consume(10, timeout=1)
    assert isinstance(batch, list)
    for record in batch:
        if record.error() is None:
            time.sleep(0.1)
            logger.info("working")
            number += 1
records.commit(asynchronous=False)
records.close()

send("at-once", "b-at-once", 3)
records = consumer("at-once", **{"enable.auto.commit": False})
prompts = []
while len(prompts) < 3:
    prompts += [json.loads(record.value())["prompt"] for record in records.consume(10, timeout=1)]
    time.sleep(0.3)
records.commit(asynchronous=False)
time.sleep(0.3)
records.close()


def handle(record):
    time.sleep(0.3)
    logger.info("working")
    if json.loads(record.value())["number"] == 2:
        raise ValueError("no")


send("pool", "b-pool", 3)
records = consumer("pool")
with ThreadPoolExecutor(3) as pool:
    for _ in range(3):
        pool.submit(handle, poll(records))
    records.poll(0)
records.close()

send("raises", "b-raises")
for number in range(2):
    records = consumer("raises", **{"enable.auto.commit": False})
    try:
        record = poll(records)
        if number == 0:
            raise KeyError("once")
        records.commit(message=record, asynchronous=False)
    except KeyError:
        records.close()
    else:
        records.close()

ours = SerializingProducer({**BROKER, "value.serializer": lambda value, context: json.dumps(value).encode()})
ours.produce("serialized", value={"bulk_id": "b-serialized"})
ours.flush(30)
records = consumer("serialized", DeserializingConsumer, **{"value.deserializer": lambda raw, context: json.loads(raw)})
assert poll(records).value() == {"bulk_id": "b-serialized"}
time.sleep(0.1)
records.close()

send("depth", "b-depth", 5)
records = consumer("depth", **{"enable.auto.commit": False})
records.commit(message=poll(records), asynchronous=False)
time.sleep(1.5)
records.close()

# Nobody listens there: the report of the delivery says so, to the application too.
nowhere = {"bootstrap.servers": "127.0.0.1:9", "message.timeout.ms": 300, "log_level": 0}
lost = Producer({**nowhere, "on_delivery": lambda error, record: print("of all", error.name())})
lost.produce("lost", b'{"bulk_id": "b-lost"}')
lost.produce("lost", b'{"bulk_id": "b-lost"}', on_delivery=lambda error, record: print("of one", error.name()))
lost.flush(30)
