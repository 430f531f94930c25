"""SQS by boto3: a PRODUCER span where a message that is a job is sent, a CONSUMER span for each attempt at one.

Which messages are jobs says ``_messages``. What must travel is one message attribute of the ten that a message may
have; it is taken out of what is received, with what else was asked for on our behalf.

A loop receives up to ten messages, works on them one after the other or hands them to threads, and deletes each or
all. An attempt begins when the loop takes its message out of the list, and its context is the current one until the
loop takes the next, or receives again. It ends when the message is deleted; when it is made visible again; when it
comes again; or when its visibility timeout is over, after which SQS delivers it anew: the attempt has lasted until the
loop went on. Deleted or put back inside of an ``except`` it has failed with that exception. Without a receive left
under the queue's redrive policy it has failed for good: SQS moves it to the dead letters.
"""

from __future__ import annotations

import functools
import json
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any
from urllib.parse import urlparse

from opentelemetry.instrumentation.utils import suppress_instrumentation

from bulkscope._export import drops
from bulkscope._instrumentor import Instrumentor
from bulkscope._jobs import queues
from bulkscope._jobs.send import Send, entered, sending
from bulkscope._safe import guarded, log_once
from bulkscope_instrumentation._messages import Attempt, Handed, Parcel, parcel, received

_NAME = "bulkscope"
_COUNT = "ApproximateReceiveCount"
_MOST_ATTRIBUTES = 10
# Messages in flight that are remembered; SQS itself allows 120,000 a queue.
_REMEMBERED = 10_000
_ATTRIBUTES_KEPT_S = 60.0

Call = Callable[[Mapping[str, Any]], Any]
Operation = Callable[[Call, Any, Mapping[str, Any]], Any]


class NotDeleted(Exception):
    """In place of an error: the consumer went on to the next message and never deleted this one."""


class NotTaken(Exception):
    """In place of an error: SQS has not taken one message of a batch."""


# An error's type is what the application's developers read; they know nothing of this module.
NotDeleted.__module__ = NotTaken.__module__ = "builtins"


class Boto3Instrumentor(Instrumentor):
    """Instruments SQS's client, and boto3's resources over it, of botocore 1.29 and later."""

    module = "botocore.client"
    other_modules = ("boto3.resources.response",)
    name = "boto3"
    requires = ("botocore >= 1.29",)

    def patch(self, module: ModuleType) -> None:
        """Wrap the call that all operations of a client go through, and where resources are made of an answer."""
        if module.__name__ == self.module:
            self.wrap(module.BaseClient, "_make_api_call", _call)
        else:
            self.wrap(module.ResourceHandler, "__call__", _made_resources)


def _call(wrapped: Callable[..., Any], client: Any, args: Any, kwargs: Any) -> Any:
    handle = _OPERATIONS.get(args[0]) if len(args) == 2 else None
    if handle is None or client.meta.service_model.service_name != "sqs":
        return wrapped(*args, **kwargs)
    return handle(functools.partial(wrapped, args[0]), client, args[1])


def _place(url: str) -> str:
    return urlparse(url).path.strip("/")


def _name(url: str) -> str:
    return _place(url).rpartition("/")[2]


# --- sending -------------------------------------------------------------------------------


def _texts(attributes: Any) -> dict[str, str]:
    return {key: value["StringValue"] for key, value in (attributes or {}).items() if "StringValue" in value}


@guarded
def _parcel(url: str, message: Mapping[str, Any]) -> Parcel | None:
    return parcel(
        "aws_sqs", _name(url), _place(url), _texts(message.get("MessageAttributes")), message.get("MessageBody"),
        delay=float(message.get("DelaySeconds") or 0),
    )  # fmt: skip


@guarded
def _with(message: Mapping[str, Any], headers: Mapping[str, str]) -> dict[str, Any] | None:
    """Return ``message`` with our attribute; None where there is nothing to add or no room."""
    if not headers:
        return None
    attributes = message.get("MessageAttributes") or {}
    if len(attributes) >= _MOST_ATTRIBUTES:
        _no_room(f"it has {len(attributes)} attributes of its own, of which SQS takes {_MOST_ATTRIBUTES}")
        return None
    value = {"DataType": "String", "StringValue": json.dumps(headers, separators=(",", ":"))}
    return {**message, "MessageAttributes": {**attributes, _NAME: value}}


def _no_room(reason: str) -> None:
    drops.count("headers", 1, "no_room")
    log_once("a message's attributes", "A message to SQS goes without its bulk and its times: %s", reason)


def _code(error: Exception) -> str:
    """Return what SQS calls an error; nothing where it is none of SQS's."""
    answer = getattr(error, "response", None)
    return str(answer.get("Error", {}).get("Code", "")) if isinstance(answer, dict) else ""


def _is_ours_to_blame(error: Exception) -> bool:
    """Tell whether SQS has refused a message for what it holds, which may be what we have added."""
    code = _code(error)
    return "Invalid" in code or "TooLong" in code


def _send_message(call: Call, client: Any, params: Mapping[str, Any]) -> Any:
    found = _parcel(params.get("QueueUrl", ""), params)
    if found is None:
        return call(params)
    with sending(found.send) as sent:
        ours = _with(params, found.headers(sent))
        if ours is None:
            return call(params)
        try:
            return call(ours)
        except Exception as error:
            if not _is_ours_to_blame(error):
                raise
        # Refused as a whole, so that it cannot come twice.
        answer = call(params)
        _no_room("SQS refuses it with our attribute, and takes it without")
        return answer


def _send_message_batch(call: Call, client: Any, params: Mapping[str, Any]) -> Any:
    entries = list(params.get("Entries") or ())
    parcels = [_parcel(params.get("QueueUrl", ""), entry) for entry in entries]
    if not any(parcels):
        return call(params)
    batch = _Batch(entries, parcels)
    try:
        answer = batch.ask(call, params)
    except BaseException as error:
        batch.end({each: error for each in batch.ids if each not in batch.taken})
        raise
    batch.end(_failures(answer) or {})
    return answer


@guarded
def _failures(answer: Any) -> dict[Any, BaseException]:
    return {each["Id"]: NotTaken(str(each.get("Code"))) for each in answer.get("Failed") or ()}


class _Batch:
    """The jobs of a batch on their way."""

    def __init__(self, entries: list[Any], parcels: list[Parcel | None]) -> None:
        share = sum(found is not None for found in parcels)
        self.ids = [entry.get("Id") for entry in entries]
        # What SQS has taken for sure, whatever comes after.
        self.taken: set[Any] = set()
        # As the application gave them, those to which an attribute of ours was added.
        self._plain: dict[Any, Any] = {}
        self._sents: list[tuple[Any, Any]] = []
        self._ours: list[Any] = []
        for entry, found in zip(entries, parcels, strict=True):
            ours = None
            if found is not None:
                sent = sending(functools.partial(_shared, found, share))
                self._sents.append((entry, sent))
                ours = _with(entry, found.headers(sent))
                if ours is not None:
                    self._plain[entry.get("Id")] = entry
            self._ours.append(ours or entry)
        entered(sent for _, sent in self._sents)  # left one by one, in ``end``

    def ask(self, call: Call, params: Mapping[str, Any]) -> Any:
        """Send the batch, and once more without our attributes what SQS refuses for them."""
        try:
            answer = call({**params, "Entries": self._ours})
        except Exception as error:
            if not self._plain or not _is_ours_to_blame(error):
                raise
        else:
            return self._again(call, params, answer)
        answer = call(params)
        _no_room("SQS refuses it with our attribute, and takes it without")
        return answer

    def _again(self, call: Call, params: Mapping[str, Any], answer: Any) -> Any:
        entries = self._refused(answer)
        if not entries:
            return answer
        try:
            second = call({**params, "Entries": entries})
        except Exception:
            return answer  # the application never made this call: it gets the answer to its own
        self._join(answer, second)
        return answer

    @guarded
    def _refused(self, answer: Any) -> list[Any]:
        """Return, as the application gave them, the entries that SQS may have refused for what we added."""
        self.taken.update(each["Id"] for each in answer.get("Successful") or ())
        failed = [each["Id"] for each in answer.get("Failed") or () if each.get("SenderFault")]
        return [self._plain[each] for each in failed if each in self._plain]

    @guarded
    def _join(self, answer: Any, second: Any) -> None:
        """Write into ``answer`` what SQS has taken of the second call."""
        taken = second.get("Successful") or []
        ids = {each["Id"] for each in taken}
        failed = [each for each in answer["Failed"] if each["Id"] not in ids]
        if not taken:
            return
        answer["Successful"], answer["Failed"] = [*(answer.get("Successful") or ()), *taken], failed
        if not failed:
            del answer["Failed"]
        for _ in taken:
            _no_room("SQS refuses it with our attribute, and takes it without")

    def end(self, errors: Mapping[Any, BaseException]) -> None:
        """Say of each job that it was taken, or by the entry's id what for it was not."""
        for entry, sent in reversed(self._sents):
            error = errors.get(entry.get("Id"))
            sent.__exit__(type(error) if error else None, error, None)


def _shared(found: Parcel, share: int) -> Send:
    return Send(found.job, delay=found.delay, attempt=found.attempt, previous=found.previous, share=share)


# --- receiving -----------------------------------------------------------------------------


class _Queue:
    """What is known of a queue that jobs come from; it is asked when something has gone wrong, and for its depth.

    By the application's own client, whose calls are billed and seen by its event hooks: once a minute at most, and
    never again where that is not allowed.
    """

    def __init__(self, client: Any, url: str) -> None:
        self._client, self._url = client, url
        self._asked, self._known, self._denied = float("-inf"), dict[str, Any](), False
        queues.watch([_name(url)], lambda name: self._number("ApproximateNumberOfMessages"))

    def _attributes(self) -> dict[str, Any]:
        if not self._denied and time.monotonic() - self._asked > _ATTRIBUTES_KEPT_S:
            self._asked = time.monotonic()
            try:
                with suppress_instrumentation():
                    answer = self._client.get_queue_attributes(QueueUrl=self._url, AttributeNames=["All"])
            except Exception as error:
                self._known = {}
                if "AccessDenied" not in _code(error):
                    raise
                self._denied = True
                log_once(
                    "a queue's attributes", "The depth of %s is not reported: allow sqs:GetQueueAttributes", self._url
                )
            else:
                self._known = answer.get("Attributes") or {}
        return self._known

    def _number(self, name: str) -> float | None:
        value = self._attributes().get(name)
        return None if value is None else float(value)

    @guarded
    def visibility(self) -> float | None:
        """Return after how many seconds a message that is not deleted is delivered again."""
        return self._number("VisibilityTimeout")

    @guarded
    def most_receives(self) -> int | None:
        """Return how often a message is delivered before it goes to the dead letters; None where it never does."""
        policy = json.loads(self._attributes().get("RedrivePolicy") or "{}")
        return int(policy["maxReceiveCount"]) if policy.get("maxReceiveCount") else None


class _Message:
    """A job that was received; its attempt begins when the application first touches it."""

    def __init__(
        self, queue: _Queue, url: str, headers: Mapping[str, Any], message: Mapping[str, Any], count: int,
        visible: float | None,
    ) -> None:  # fmt: skip
        self.id, self.handle = message["MessageId"], message["ReceiptHandle"]
        self._queue, self._url, self._headers, self._count = queue, url, headers, count
        self._body = message.get("Body") or ""
        self.came, self._visible = time.monotonic(), visible
        self.attempt: Attempt | None = None
        self._begun = False
        self._before: BaseException | None = None
        self._thread = threading.get_ident()
        self._entered = self._longest = 0.0
        self._left_at: float | None = None

    def begin(self) -> Attempt | None:
        """Begin the attempt, if that has not been done."""
        if not self._begun:
            self._begun = True
            self._before = sys.exc_info()[1]
            place = _place(self._url)
            self.attempt = received(
                "aws_sqs", _name(self._url), self._headers, self._body,
                came_from=lambda sent_to: sent_to == place, again=self._count - 1,
            )  # fmt: skip
            self._headers, self._body = {}, ""  # up to 256 KiB each, which the attempt holds as long as it lasts
            if self.attempt is None:
                _forget(self)  # no job of this queue: a dead letter for one
        return self.attempt

    def enter(self) -> None:
        """Say that the application works on it from now on, in this thread."""
        attempt = self.begin()
        if attempt is not None and not attempt.ended:
            self._thread, self._entered = threading.get_ident(), time.perf_counter()
            attempt.enter()

    def leave(self) -> None:
        """Say that the application takes another one in this thread."""
        now = time.perf_counter()
        # A list is gone through more than once, to delete all: the work was done in the longest pass.
        if self._left_at is None or now - self._entered >= self._longest:
            self._longest, self._left_at = now - self._entered, now
        if self.attempt is not None:
            self.attempt.move_on()

    def error(self) -> BaseException | None:
        """Return the exception that the application handles now, for which it deletes the message or puts it back."""
        found = sys.exc_info()[1]
        return None if found is self._before else found

    def last(self) -> bool:
        """Tell whether SQS does not deliver it again."""
        most = self._queue.most_receives()
        return most is not None and self._count >= most

    def is_left(self) -> bool:
        """Tell whether nobody is known to work on it any more, and it has not been settled."""
        attempt = self.attempt
        return attempt is not None and not attempt.ended and not attempt.held and self._left_at is not None

    def over(self) -> bool:
        """Tell whether that is so, and SQS delivers the message again by now."""
        if not self.is_left():
            return False
        if self._visible is None:
            self._visible = self._queue.visibility()
        return self._visible is not None and time.monotonic() - self.came > self._visible

    def hide(self, seconds: float) -> None:
        """Take note of a new visibility timeout."""
        self.came, self._visible = time.monotonic(), seconds

    def settle(self, error: BaseException | None = None, *, again: bool = False) -> None:
        """End the attempt; ``again`` says that SQS delivers the message again, as far as it does."""
        attempt = self.begin()
        _forget(self)
        if attempt is None or attempt.ended:
            return
        if not attempt.held and (again or threading.get_ident() == self._thread):
            attempt.ended_at = self._left_at  # another thread has worked on it until now
        if again:
            error = error or attempt.error or NotDeleted("made visible again, or not deleted in time")
        attempt.settle(error, retry=again and not self.last())


_lock = threading.Lock()
_queues: dict[str, _Queue] = {}
# By receipt handle, which each delivery has anew; and the latest delivery of each message.
_in_flight: OrderedDict[str, _Message] = OrderedDict()
_latest: OrderedDict[str, _Message] = OrderedDict()
_of_thread = threading.local()


def _forget(message: _Message) -> None:
    """Keep a delivery no longer: it is settled, or no job."""
    with _lock:
        for known, key in ((_in_flight, message.handle), (_latest, message.id)):
            if known.get(key) is message:
                del known[key]


def _handle(message: Any) -> Any:
    return message.get("ReceiptHandle") if isinstance(message, Mapping) else getattr(message, "receipt_handle", None)


@guarded
def _take(message: Any) -> None:
    """Say that the application has taken ``message`` from a list, in this thread."""
    found = _in_flight.get(_handle(message))
    if found is not getattr(_of_thread, "message", None):
        _move_on()
        if found is not None:
            _of_thread.message = found
            found.enter()


@guarded
def _move_on() -> None:
    """Say that the application is done with the message that it took last in this thread."""
    found, _of_thread.message = getattr(_of_thread, "message", None), None
    if found is not None:
        found.leave()


class _Messages(Handed):
    """The messages of one answer; whoever takes one from it works on that one from then on."""

    def take(self, message: Any) -> None:
        """Begin or go on with it."""
        _take(message)

    def over(self) -> None:
        """Leave the last."""
        _move_on()


def _receive_message(call: Call, client: Any, params: Mapping[str, Any]) -> Any:
    _move_on()
    _end_overdue()
    ours = _asking(client, params) or params
    answer = call(ours)
    _arrived(client, params, ours, answer)
    return answer


@guarded
def _asking(client: Any, params: Mapping[str, Any]) -> dict[str, Any]:
    """Return what to ask for: what the application does, our attribute, and how often a message was received."""
    names = list(params.get("MessageAttributeNames") or ())
    if not {"All", ".*", _NAME}.intersection(names):
        names.append(_NAME)
    members = client.meta.service_model.operation_model("ReceiveMessage").input_shape.members
    key = "MessageSystemAttributeNames"
    if key not in members or "AttributeNames" in params:
        key = "AttributeNames"
    system = list(params.get(key) or ())
    if not {"All", _COUNT}.intersection(system):
        system.append(_COUNT)
    return {**params, "MessageAttributeNames": names, key: system}


def _asked(params: Mapping[str, Any], *keys: str) -> set[str]:
    return {name for key in keys for name in params.get(key) or ()}


@guarded
def _arrived(client: Any, params: Mapping[str, Any], ours: Mapping[str, Any], answer: Any) -> None:
    messages = answer.get("Messages")
    if not messages or ours is params:
        return
    count_wanted = _asked(params, "AttributeNames", "MessageSystemAttributeNames") & {"All", _COUNT}
    jobs = False
    for message in messages:
        count = int((message.get("Attributes") or {}).get(_COUNT) or 1)
        if not count_wanted:
            _drop(message, "Attributes", _COUNT)
        value = _drop(message, "MessageAttributes", _NAME)
        if value is None:
            continue
        message.pop("MD5OfMessageAttributes", None)  # of ours too: whoever compared it would find it wrong
        _remember(client, params, message, value, count)
        jobs = True
    if jobs:
        answer["Messages"] = _Messages(messages)


def _drop(message: dict[str, Any], key: str, name: str) -> Any:
    fields = message.get(key)
    if not fields or name not in fields:
        return None
    found = fields.pop(name)
    if not fields:
        del message[key]
    return found


def _remember(client: Any, params: Mapping[str, Any], message: Mapping[str, Any], value: Any, count: int) -> None:
    url = params["QueueUrl"]
    headers = json.loads(value.get("StringValue") or "{}")
    before = _latest.get(message["MessageId"])
    if before is not None and before.is_left():
        before.settle(again=True)
    with _lock:
        queue = _queues.get(url)
        if queue is None:
            queue = _queues[url] = _Queue(client, url)
        visible = params.get("VisibilityTimeout")
        found = _Message(queue, url, headers, message, count, visible)
        _in_flight[message["ReceiptHandle"]] = _latest[message["MessageId"]] = found
        for known in (_in_flight, _latest):
            if len(known) > _REMEMBERED:
                known.popitem(last=False)


@guarded
def _end_overdue() -> None:
    with _lock:
        waiting = list(_in_flight.values())
    for message in waiting:
        if message.over():
            message.settle(again=True)
        if message.attempt is not None and message.attempt.ended:
            _forget(message)


def _made_resources(wrapped: Callable[..., Any], handler: Any, args: Any, kwargs: Any) -> Any:
    """Boto3's own objects are made of an answer: what the application takes is these."""
    response = args[2] if len(args) > 2 else kwargs.get("response")
    if not isinstance(response, dict) or not isinstance(response.get("Messages"), _Messages):
        return wrapped(*args, **kwargs)
    response["Messages"] = response["Messages"][:]
    made = wrapped(*args, **kwargs)
    return _Messages(made) if type(made) is list else made


# --- settling ------------------------------------------------------------------------------


def _settling(settled: Callable[[_Message, Mapping[str, Any]], None]) -> Operation:
    """Return an operation that says of each message which it names, and SQS has not refused, what became of it."""

    @guarded
    def tell(params: Mapping[str, Any], answer: Any) -> None:
        failed = {each.get("Id") for each in answer.get("Failed") or ()} if "Entries" in params else ()
        # What names one message is as an entry of a batch is.
        for entry in params.get("Entries", [params]):
            message = _in_flight.get(entry.get("ReceiptHandle"))
            if message is not None and entry.get("Id") not in failed:
                settled(message, entry)

    def operation(call: Call, client: Any, params: Mapping[str, Any]) -> Any:
        answer = call(params)
        tell(params, answer)
        return answer

    return operation


def _deleted(message: _Message, entry: Mapping[str, Any]) -> None:
    message.settle(message.error())


def _changed(message: _Message, entry: Mapping[str, Any]) -> None:
    seconds, error = float(entry.get("VisibilityTimeout") or 0), message.error()
    if seconds > 0 and error is None:
        message.hide(seconds)  # it takes longer
    else:
        message.settle(error, again=True)


_OPERATIONS: dict[str, Operation] = {
    "SendMessage": _send_message,
    "SendMessageBatch": _send_message_batch,
    "ReceiveMessage": _receive_message,
    "DeleteMessage": _settling(_deleted),
    "DeleteMessageBatch": _settling(_deleted),
    "ChangeMessageVisibility": _settling(_changed),
    "ChangeMessageVisibilityBatch": _settling(_changed),
}
