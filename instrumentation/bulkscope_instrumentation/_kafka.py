"""What the two clients of Kafka have in common: a record as a message, and batches of records."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from bulkscope._safe import guarded
from bulkscope_instrumentation._messages import TO, Attempt, Handed, Pulled, received

# Errors of a broker, and of clients that check before they send, for what we may have added: the record is too large
# (10), headers are not known to it (35), the record is not valid (87); librdkafka's own of a missing feature (-165).
OURS_TO_BLAME = frozenset((10, 35, 87, -165))
# An iteration's turn of a record that is shorter reads the record and does not work on it.
_READING_S = 0.001


class Attempts(Pulled):
    """The attempts at the records that one consumer was given last, and which records those are."""

    def __init__(self, group: str) -> None:
        super().__init__()
        self._group = group
        self._records: dict[Attempt, tuple[str, int, int]] = {}

    def move_on(self) -> None:
        """Leave what was given before."""
        super().move_on()
        self._records.clear()

    @guarded
    def take(self, topic: str, partition: int, offset: int, headers: Any, value: Any, record: Any) -> Attempt | None:
        """Begin the attempt at a record that is a job, and return it; None of any other."""
        attempt = received(
            "kafka", topic, headers, value, came_from=lambda to: to == topic, settles=False, group=self._group
        )  # fmt: skip
        if attempt is not None:
            self._records[attempt] = topic, partition, offset
            self.add(attempt, record, value)
        return attempt

    @guarded
    def committed(self, up_to: Mapping[tuple[str, int], int] | None) -> None:
        """End the attempts at records before the offsets that were committed, by topic and partition; None are all."""

        def covers(attempt: Attempt) -> bool:
            topic, partition, offset = self._records.get(attempt, ("", 0, 0))
            return up_to is None or offset < up_to.get((topic, partition), 0)

        self.done(covers)


def has_jobs(headers: Any) -> bool:
    """Tell whether a record may be a job, by the names of its headers alone."""
    return bool(headers) and any(key == TO for key, _ in headers)


class Batch(Handed):
    """Records that were given at once, some of them jobs.

    A job of a batch begins when the application takes it. It ends when the next is taken, if it was worked on until
    then; where it was only read, as to make one call of a model of them all, it ends with the batch.
    """

    def __init__(self, records: list[Any], begin: Callable[[Any], Attempt | None]) -> None:
        super().__init__(records)
        self._begin = begin
        # By the record's id, which the record itself keeps from being another's.
        self._begun: dict[int, tuple[Any, Attempt | None]] = {}
        self._taken: Attempt | None = None
        self._since = 0.0

    @guarded
    def take(self, record: Any) -> None:
        """Begin the attempt at a record, or go on with it."""
        known = self._begun.get(id(record))
        if known is not None and known[1] is not None and known[1] is self._taken:
            return
        self.over()
        if known is None:
            known = self._begun[id(record)] = record, guarded(self._begin)(record)
        elif known[1] is not None and not known[1].ended:
            known[1].enter()
        self._taken, self._since = known[1], time.perf_counter()

    @guarded
    def over(self) -> None:
        """Leave the record that was taken last."""
        attempt, self._taken = self._taken, None
        if attempt is None or attempt.ended:
            return
        if time.perf_counter() - self._since < _READING_S:
            attempt.leave()
        else:
            attempt.move_on()
