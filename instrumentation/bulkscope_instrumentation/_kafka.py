"""What the two clients of Kafka have in common: a record as a message, and batches of records."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from bulkscope._jobs import queues
from bulkscope._safe import guarded
from bulkscope_instrumentation._messages import TO, Attempt, Pulled, received

# An iteration's turn of a record that is shorter reads the record and does not work on it.
_READING_S = 0.001


class Attempts(Pulled):
    """The attempts at the records that one consumer was given last, and which records those are."""

    def __init__(self) -> None:
        super().__init__()
        self._records: dict[Attempt, tuple[str, int, int]] = {}

    def move_on(self) -> None:
        """Leave what was given before."""
        super().move_on()
        self._records.clear()

    @guarded
    def take(self, topic: str, partition: int, offset: int, headers: Any, value: Any, record: Any) -> Attempt | None:
        """Begin the attempt at a record that is a job, and return it; None of any other."""
        attempt = received("kafka", topic, headers, value, came_from=lambda to: to == topic, settles=False)
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


class Batch(list[Any]):
    """Records that were given at once, some of them jobs.

    A job of a batch begins when an iteration comes to it. It ends when the iteration goes on, if it was worked on
    there; where the iteration only read it, as to make one call of a model of them all, it ends with the batch.
    """

    def __init__(self, records: list[Any], begin: Callable[[Any], Attempt | None]) -> None:
        super().__init__(records)
        self._begin = begin
        self._begun: set[int] = set()

    def __iter__(self) -> Iterator[Any]:
        for record in super().__iter__():
            attempt = None
            if id(record) not in self._begun:
                self._begun.add(id(record))
                attempt = guarded(self._begin)(record)
            began = time.perf_counter()
            try:
                yield record
            finally:
                if attempt is not None:
                    if time.perf_counter() - began < _READING_S:
                        attempt.leave()
                    else:
                        attempt.move_on()

    def __reduce__(self) -> tuple[Any, ...]:
        return list, (list(super().__iter__()),)


_watched: set[Any] = set()


def watch(key: tuple[str, str], make: Callable[[], Callable[[str], float | None]]) -> None:
    """Report the lag of the group and topic ``key``, once a process; ``make`` returns who asks the broker."""
    if key not in _watched:
        _watched.add(key)
        queues.watch([key[1]], make())
