"""What SQS's answers and refusals make of messages; a real client and server are in compatibility/."""

from __future__ import annotations

import json
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from bulkscope._jobs import headers as travelled
from bulkscope._jobs import queues
from bulkscope_instrumentation import boto3
from bulkscope_instrumentation._messages import TO
from tests.telemetry import Telemetry

URL = "http://127.0.0.1:1/000000000000/prompts"


class Refused(Exception):
    """What botocore raises for an answer of SQS that is an error."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.response = {"Error": {"Code": code}}


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(queues, "watch", lambda *_: None)
    yield
    for known in (boto3._queues, boto3._in_flight, boto3._latest):
        known.clear()


def entry(number: int, *, full: bool = False, bulk: bool = True) -> dict[str, Any]:
    attributes = {f"a{n}": {"DataType": "String", "StringValue": "1"} for n in range(10)} if full else {}
    body = json.dumps({"bulk_id": "b-1"}) if bulk else "an event"
    return {"Id": str(number), "MessageBody": body, "MessageAttributes": attributes}


def sent(telemetry: Telemetry) -> list[Any]:
    return [span.attributes.get("bulk.outcome") for span in telemetry.spans() if span.kind.name == "PRODUCER"]


class Sqs:
    """Answers each call by the next of ``answers``, and keeps the ids that it was asked to send."""

    def __init__(self, *answers: Any) -> None:
        self._answers, self.asked = list(answers), list[list[str]]()

    def __call__(self, params: Any) -> Any:
        self.asked.append([each["Id"] for each in params["Entries"]])
        answer = self._answers.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        return answer


def partly() -> dict[str, Any]:
    failed = [{"Id": number, "SenderFault": True, "Code": "InvalidParameterValue"} for number in ("2", "3", "4")]
    return {"Successful": [{"Id": "1"}], "Failed": failed}


def batch(sqs: Sqs) -> Any:
    entries = [entry(1), entry(2), entry(3, full=True), entry(4, bulk=False)]
    return boto3._send_message_batch(sqs, None, {"QueueUrl": URL, "Entries": entries})


@pytest.mark.parametrize("error", [Refused("InternalError"), Refused("InvalidParameterValue"), OSError("reset")])
def test_what_a_second_call_raises_is_not_the_applications(telemetry: Telemetry, error: Exception) -> None:
    sqs = Sqs(partly(), error)
    assert batch(sqs) == partly()
    assert sqs.asked == [["1", "2", "3", "4"], ["2"]], "only what carried an attribute of ours is sent once more"
    assert sorted(sent(telemetry), key=str) == [None, "not_sent", "not_sent"]


def test_what_is_taken_at_the_second_call_is_taken(telemetry: Telemetry) -> None:
    answer = batch(Sqs(partly(), {"Successful": [{"Id": "2"}]}))
    assert [each["Id"] for each in answer["Successful"]] == ["1", "2"]
    assert [each["Id"] for each in answer["Failed"]] == ["3", "4"]
    assert sorted(sent(telemetry), key=str) == [None, None, "not_sent"]


def test_what_was_taken_before_an_interrupt_is_sent(telemetry: Telemetry) -> None:
    with pytest.raises(KeyboardInterrupt):
        batch(Sqs(partly(), KeyboardInterrupt()))
    assert sorted(sent(telemetry), key=str) == [None, "not_sent", "not_sent"]


def test_a_refusal_that_cannot_be_ours_is_raised_at_once(telemetry: Telemetry) -> None:
    sqs = Sqs(Refused("InvalidParameterValue"))
    with pytest.raises(Refused):
        boto3._send_message_batch(sqs, None, {"QueueUrl": URL, "Entries": [entry(1, full=True)]})
    assert len(sqs.asked) == 1


def receive(count: int, place: str = "000000000000/prompts") -> Any:
    members = {"MessageSystemAttributeNames": None}
    shape = SimpleNamespace(input_shape=SimpleNamespace(members=members))
    client = SimpleNamespace(meta=SimpleNamespace(service_model=SimpleNamespace(operation_model=lambda name: shape)))

    def ours(number: int) -> dict[str, str]:
        return {"StringValue": json.dumps({travelled.BULK: "b-1", TO: place, travelled.JOB: f"j{number}"})}

    answer = {
        "Messages": [
            {
                "MessageId": f"m{number}", "ReceiptHandle": f"r{number}", "Body": "x" * 1000,
                "MD5OfMessageAttributes": "0", "Attributes": {"ApproximateReceiveCount": "1"},
                "MessageAttributes": {"bulkscope": ours(number)},
            }
            for number in range(count)
        ]
    }  # fmt: skip
    return boto3._receive_message(lambda params: answer, client, {"QueueUrl": URL})["Messages"]


def delete(message: Any) -> None:
    of = {"QueueUrl": URL, "ReceiptHandle": message["ReceiptHandle"]}
    boto3._OPERATIONS["DeleteMessage"](lambda params: {}, None, of)


@pytest.mark.parametrize("name", ["DeleteMessageBatch", "ChangeMessageVisibilityBatch"])
def test_of_a_batch_what_sqs_has_refused_stays_in_flight(telemetry: Telemetry, name: str) -> None:
    messages = receive(3)
    entries = [{"Id": str(n), "ReceiptHandle": each["ReceiptHandle"]} for n, each in enumerate(messages)]
    answer = {"Successful": [{"Id": "0"}, {"Id": "2"}], "Failed": [{"Id": "1"}]}
    assert boto3._OPERATIONS[name](lambda params: answer, None, {"QueueUrl": URL, "Entries": entries}) is answer
    assert list(boto3._in_flight) == ["r1"]
    delete(messages[1])
    assert not boto3._in_flight


@pytest.mark.parametrize("together", [False, True])
def test_nothing_of_a_deleted_message_is_kept(telemetry: Telemetry, together: bool) -> None:
    messages = receive(10)
    assert len(boto3._in_flight) == len(boto3._latest) == 10
    for message in messages:
        assert message.keys() == {"MessageId", "ReceiptHandle", "Body"}
        (known,) = [each for each in boto3._in_flight.values() if each.id == message["MessageId"]]
        assert known._body == "", "the attempt has it"
        if not together:
            delete(message)
    for message in messages if together else ():
        delete(message)
    assert not boto3._in_flight
    assert not boto3._latest
    assert len([span for span in telemetry.spans() if span.kind.name == "CONSUMER"]) == 10


def test_a_message_that_is_no_job_of_the_queue_is_not_kept(telemetry: Telemetry) -> None:
    for _ in receive(3, "000000000000/elsewhere"):
        pass
    assert not boto3._in_flight
    assert not boto3._latest
    assert telemetry.spans() == []


class Queue:
    """A client that is asked for a queue's attributes."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error, self.asked = error, 0

    def get_queue_attributes(self, **_: Any) -> Any:
        self.asked += 1
        if self.error is not None:
            raise self.error
        return {"Attributes": {"ApproximateNumberOfMessages": "7", "VisibilityTimeout": "30"}}


def test_a_queue_is_asked_once_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(boto3.time, "monotonic", lambda: now[0])
    client = Queue()
    queue = boto3._Queue(client, URL)
    for _ in range(6):  # ten seconds apart
        assert (queue._number("ApproximateNumberOfMessages"), queue.visibility()) == (7.0, 30.0)
        now[0] += 10
    assert client.asked == 1
    now[0] += 1
    assert queue._number("ApproximateNumberOfMessages") == 7.0
    assert client.asked == 2


@pytest.mark.parametrize("code", ["AccessDenied", "AccessDeniedException", "AWS.SimpleQueueService.AccessDenied"])
def test_a_queue_that_may_not_be_asked_is_asked_once(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    now = [1000.0]
    monkeypatch.setattr(boto3.time, "monotonic", lambda: now[0])
    client = Queue(Refused(code))
    queue = boto3._Queue(client, URL)
    for _ in range(3):
        assert queue._number("ApproximateNumberOfMessages") is None
        assert queue.most_receives() is None
        now[0] += 100
    assert client.asked == 1
