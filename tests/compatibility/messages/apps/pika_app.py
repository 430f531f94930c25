"""pika: ``python publish.py pika_app`` publishes, ``python pika_app.py`` works until SIGTERM."""

import json
import os

import pika
import work

params = pika.URLParameters(os.environ["BROKER"])
QUEUE = os.environ.get("QUEUE", "bulk")


def send(channel, task, **fields):
    channel.basic_publish("", QUEUE, json.dumps(fields).encode(), pika.BasicProperties(type=task))


def on_message(channel, method, properties, body):
    do = {"ok": work.ok, "fails": work.fails, "flaky": work.flaky}
    try:
        if properties.type == "outer":
            send(channel, "ok")
        else:
            do[properties.type](**json.loads(body))
    except KeyError:
        channel.basic_nack(method.delivery_tag)  # to be tried again
    except Exception:
        channel.basic_reject(method.delivery_tag, requeue=False)
    else:
        channel.basic_ack(method.delivery_tag)


def publish():
    with pika.BlockingConnection(params) as connection, connection.channel() as channel:
        channel.queue_declare(QUEUE, durable=True)
        channel.confirm_delivery()
        for task in ("ok", "fails", "flaky", "outer"):
            send(channel, task, bulk_id=f"b-{task}")


if __name__ == "__main__":
    with pika.BlockingConnection(params) as connection, connection.channel() as channel:
        channel.basic_qos(prefetch_count=1)
        channel.basic_consume(QUEUE, on_message)
        channel.start_consuming()
