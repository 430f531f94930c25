"""What loops over SQS do, one bulk each: ``python sqs_cases.py`` sends and works in one process."""

import json
import logging
import time
from concurrent.futures import ThreadPoolExecutor, wait

import boto3
import work
from botocore.stub import Stubber

keys = {"aws_access_key_id": "x", "aws_secret_access_key": "x", "region_name": "us-east-1"}
sqs = boto3.client("sqs", endpoint_url=work.BROKER, **keys)
logger = logging.getLogger("app")


def queue(name, **attributes):
    return sqs.create_queue(QueueName=name, Attributes=attributes)["QueueUrl"]


def send(url, bulk_id, count=1, **rest):
    entries = [{"Id": str(n), "MessageBody": json.dumps({"bulk_id": bulk_id, "n": n}), **rest} for n in range(count)]
    return sqs.send_message_batch(QueueUrl=url, Entries=entries)


def receive(url, count=10, **rest):
    return sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=count, **rest).get("Messages", [])


def receive_all(url, count):
    messages = []
    while len(messages) < count:  # SQS may give fewer than there are
        messages = receive(url, VisibilityTimeout=60)
        assert len(messages) in (0, count), "this server gives all"
    return messages


def handle(message):
    time.sleep(0.02)
    logger.info("working on %s", json.loads(message["Body"])["n"])


def delete(url, message):
    sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])


def one_after_the_other():
    url = queue("serial")
    send(url, "c-serial", 10)
    for message in receive_all(url, 10):
        handle(message)
        delete(url, message)


def deleted_together():
    url = queue("together")
    send(url, "c-together", 5)
    messages = receive_all(url, 5)
    for message in messages:
        handle(message)
    sqs.delete_message_batch(
        QueueUrl=url,
        Entries=[{"Id": message["MessageId"], "ReceiptHandle": message["ReceiptHandle"]} for message in messages],
    )


def in_threads():
    url = queue("threads")
    send(url, "c-threads", 6)

    def work_on(message):
        handle(message)
        delete(url, message)

    with ThreadPoolExecutor(3) as pool:
        wait([pool.submit(work_on, message) for message in receive_all(url, 6)])


def one_at_a_time():
    url = queue("single")
    send(url, "c-single", 2)
    for _ in range(2):
        message = receive(url, 1)[0]
        handle(message)
        delete(url, message)


def as_resources():
    found = boto3.resource("sqs", endpoint_url=work.BROKER, **keys).Queue(queue("resources"))
    send(found.url, "c-resources", 3)
    for message in found.receive_messages(MaxNumberOfMessages=10):
        handle({"Body": message.body})
        message.delete()


def given_up():
    url = queue("given-up")
    send(url, "c-given-up")
    for message in receive(url):
        try:
            raise ValueError("no such prompt")
        except ValueError:
            delete(url, message)


def takes_longer():
    url = queue("longer")
    send(url, "c-longer")
    for message in receive(url):
        sqs.change_message_visibility(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"], VisibilityTimeout=90)
        handle(message)
        delete(url, message)


def to_dead_letters():
    dead = queue("dead")
    arn = sqs.get_queue_attributes(QueueUrl=dead, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    policy = json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": 2})
    url = queue("never-deleted", RedrivePolicy=policy, VisibilityTimeout="1")
    send(url, "c-dead")
    deadline = time.monotonic() + 60
    while not (found := receive(dead)) and time.monotonic() < deadline:
        for message in receive(url):
            handle(message)
        time.sleep(0.3)
    for message in found:  # a message that came from elsewhere is no job of this queue
        delete(dead, message)


def without_room():
    url = queue("full")
    attributes = {f"a{n}": {"DataType": "String", "StringValue": str(n)} for n in range(10)}
    send(url, "c-full", MessageAttributes=attributes)
    for message in receive(url, MessageAttributeNames=["All"]):
        assert message["MessageAttributes"].keys() == attributes.keys()
        delete(url, message)


def too_long():
    """AWS counts attributes as part of a message's size; what its client says then comes from a stub of its own."""
    client = boto3.client("sqs", endpoint_url=work.BROKER, **keys)
    params = {"QueueUrl": queue("long"), "MessageBody": json.dumps({"bulk_id": "c-long", "prompt": "x" * 262_000})}
    with Stubber(client) as stub:
        stub.add_client_error("send_message", "InvalidParameterValue", "Message must be shorter than 262144 bytes.")
        stub.add_response("send_message", {"MessageId": "m1"}, params)
        client.send_message(**params)


def no_job():
    url = queue("events")
    sqs.send_message(QueueUrl=url, MessageBody="something happened")
    for message in receive(url, MessageAttributeNames=["All"], AttributeNames=["All"]):
        assert "MessageAttributes" not in message
        assert message["Attributes"]["ApproximateReceiveCount"] == "1"
        delete(url, message)


for case in (
    one_after_the_other, deleted_together, in_threads, one_at_a_time, as_resources, given_up, takes_longer,
    to_dead_letters, without_room, too_long, no_job,
):  # fmt: skip
    case()
