"""SQS: ``python publish.py sqs_app`` publishes, ``python sqs_app.py`` works until SIGTERM."""

import json
import logging
import signal

import boto3
import work

keys = {"aws_access_key_id": "x", "aws_secret_access_key": "x"}
sqs = boto3.client("sqs", endpoint_url=work.BROKER, region_name="us-east-1", **keys)


def message(task, bulk_id=None, **rest):
    attributes = {"task": {"DataType": "String", "StringValue": task}}
    body = json.dumps({"bulk_id": bulk_id} if bulk_id else {})
    return {"MessageBody": body, "MessageAttributes": attributes, **rest}


def outer(bulk_id=None):
    sqs.send_message(QueueUrl=url, **message("ok"))


DO = {"ok": work.ok, "fails": work.fails, "flaky": work.flaky, "outer": outer}
url = sqs.create_queue(QueueName="bulk")["QueueUrl"]


def publish():
    sqs.send_message(QueueUrl=url, **message("ok", "b-ok"))
    batch = [message(task, f"b-{task}", Id=task) for task in ("fails", "flaky", "outer")]
    sqs.send_message_batch(QueueUrl=url, Entries=batch)
    sqs.send_message(QueueUrl=url, **message("ok", "b-later", DelaySeconds=1))


def serve():
    going = [True]
    signal.signal(signal.SIGTERM, lambda *_: going.clear())
    while going:
        answer = sqs.receive_message(
            QueueUrl=url, MaxNumberOfMessages=10, WaitTimeSeconds=1, MessageAttributeNames=["task"]
        )
        for found in answer.get("Messages", []):
            assert set(found["MessageAttributes"]) == {"task"}, "what travels is not the application's to see"
            assert "Attributes" not in found
            task = found["MessageAttributes"]["task"]["StringValue"]
            try:
                DO[task](**json.loads(found["Body"]))
            except KeyError:
                sqs.change_message_visibility(QueueUrl=url, ReceiptHandle=found["ReceiptHandle"], VisibilityTimeout=0)
            except ConnectionError:
                logging.exception("given up")
                sqs.delete_message(QueueUrl=url, ReceiptHandle=found["ReceiptHandle"])
            else:
                sqs.delete_message(QueueUrl=url, ReceiptHandle=found["ReceiptHandle"])


if __name__ == "__main__":
    serve()
