"""pika in the ways that services use it, one after the other in one process; each has a bulk of its own."""

import functools
import json
import logging
import os
import threading
import time

import pika

logging.basicConfig(level="INFO")
logger = logging.getLogger("app")
connection = pika.BlockingConnection(pika.URLParameters(os.environ["BROKER"]))
channel = connection.channel()


def queue(name, **arguments):
    channel.queue_declare(name, arguments=arguments)
    return name


def send(to, bulk, count=1):
    for _ in range(count):
        channel.basic_publish("", to, json.dumps({"bulk_id": bulk, "prompt": "secret"}).encode())


def receive(name, callback, count=1, **options):
    """Work on ``count`` messages of a queue by a callback."""
    left = [count]

    def on_message(channel, method, properties, body):
        left[0] -= 1
        callback(channel, method, properties, body)

    tag = channel.basic_consume(name, on_message, **options)
    until = time.time() + 30
    while left[0] > 0 and time.time() < until:
        connection.process_data_events(0.1)
    channel.basic_cancel(tag)


def ack(channel, method, properties, body):
    logger.info("working")
    channel.basic_ack(method.delivery_tag)


def no_job():
    properties = pika.BasicProperties(headers={"mine": "1"})
    channel.basic_publish("", queue("events"), b'{"event": "login"}', properties)
    receive("events", lambda c, m, p, body: print("event", p.headers), auto_ack=True)
    expires = pika.BasicProperties(headers={"bulk_id": "b-header"}, expiration="60000")
    channel.basic_publish("", queue("own"), b"{}", expires)
    receive("own", ack)
    channel.basic_publish("", "own", b'{"bulk_id": "b-properties"}', properties)
    print("properties", properties.headers)
    receive("own", ack)


def an_answer_is_no_job():
    queue("answers")

    def answer(channel, method, properties, body):
        channel.basic_publish("", "answers", body, properties)  # with all that came with the question
        channel.basic_ack(method.delivery_tag)

    send(queue("questions"), "b-answer")
    receive("questions", answer)
    receive("answers", ack)


def dead_letters():
    queue("dead")
    queue("strict", **{"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"})
    send("strict", "b-dead")
    receive("strict", lambda c, m, p, body: c.basic_nack(m.delivery_tag, requeue=False))
    receive("dead", ack)


def waits_and_comes_back():
    queue("work", **{"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "work.later"})
    queue(
        "work.later",
        **{
            "x-message-ttl": 200,
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": "work",
        },
    )
    send("work", "b-back")
    receive("work", lambda c, m, p, body: c.basic_reject(m.delivery_tag, requeue=False))
    receive("work", ack)
    send("work.later", "b-expired")
    receive("work", ack)


def acknowledged_by_a_thread():
    """As pika's own example does it."""

    def work(channel, tag):
        time.sleep(0.3)
        logger.info("working")
        connection.add_callback_threadsafe(functools.partial(channel.basic_ack, tag))

    def hand_over(channel, method, properties, body):
        threading.Thread(target=work, args=(channel, method.delivery_tag)).start()

    send(queue("threads"), "b-thread")
    receive("threads", hand_over)
    connection.sleep(1)
    logger.info("afterwards")


def acknowledged_together():
    tags = []
    send(queue("batches"), "b-batch", 3)
    receive("batches", lambda c, m, p, body: tags.append(m.delivery_tag), 3)
    time.sleep(0.2)
    channel.basic_ack(tags[-1], multiple=True)


def asked_for():
    send(queue("gets"), "b-get", 2)
    for _ in range(2):
        method, _, _ = channel.basic_get("gets")
        time.sleep(0.1)
        logger.info("working")
        channel.basic_ack(method.delivery_tag)
    logger.info("afterwards")
    assert channel.basic_get("gets") == (None, None, None)


def in_a_loop():
    send(queue("loop"), "b-loop", 3)
    for number, (_, _, _) in enumerate(channel.consume("loop", auto_ack=True), 1):
        time.sleep(0.1)
        logger.info("working")
        if number == 3:
            break
    channel.cancel()
    logger.info("afterwards")


def raises():
    global connection, channel

    def fail(*_):
        raise KeyError("once")

    send(queue("raises"), "b-raises")
    try:
        receive("raises", fail)
    except KeyError:
        channel.close()
    channel = connection.channel()
    receive("raises", ack)


def sent_once_more():
    before = []

    def again(channel, method, properties, body):
        if not before:
            channel.basic_publish("", "again", body)  # with nothing of what came with it
        before.append(body)
        channel.basic_ack(method.delivery_tag)

    send(queue("again"), "b-again")
    receive("again", again, 2)


def by_an_event_loop():
    """SelectConnection."""
    send(queue("select"), "b-select")
    ended = []

    def on_message(channel, method, properties, body):
        channel.basic_ack(method.delivery_tag)
        ended.append(body)
        channel.connection.close()

    other = pika.SelectConnection(
        pika.URLParameters(os.environ["BROKER"]),
        on_open_callback=lambda c: c.channel(on_open_callback=lambda ch: ch.basic_consume("select", on_message)),
        on_close_callback=lambda c, reason: c.ioloop.stop(),
    )
    other.ioloop.start()
    assert len(ended) == 1


def left_lying():
    """Taken and never settled, as the process ends."""
    send(queue("lying"), "b-lying")
    channel.basic_get("lying")


for case in (
    no_job,
    an_answer_is_no_job,
    dead_letters,
    waits_and_comes_back,
    acknowledged_by_a_thread,
    acknowledged_together,
    asked_for,
    in_a_loop,
    raises,
    sent_once_more,
    by_an_event_loop,
    left_lying,
):
    case()
