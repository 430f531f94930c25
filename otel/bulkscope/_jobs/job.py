"""One job as its queue describes it: what both of its sides, ``Send`` and ``Work``, are made from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bulkscope import _instruments
from bulkscope import conventions as c
from bulkscope._jobs import bulks


@dataclass(slots=True)
class Job:
    """What a queue calls its system, itself, the job (None: not yet) and the task.

    ``args`` and ``payload`` (a mapping) are what the job is called with, where the bulk's id may be; ``bulk_id`` is
    an id that was given by itself. ``function`` is what is called with them, where that is at hand: it says what the
    positions are called.
    """

    system: str
    queue: str
    id: str | None
    task: str
    args: Sequence[object] = ()
    payload: object = None
    bulk_id: object = None
    function: Callable[..., object] | None = None

    def labels(self, operation: str) -> _instruments.AttributeValues:
        """Return the attributes of the job's metrics; ``operation`` is ``send`` or ``process``."""
        return {
            c.MESSAGING_SYSTEM: self.system,
            c.MESSAGING_OPERATION_NAME: operation,
            c.MESSAGING_DESTINATION: self.queue,
            c.TASK_NAME: self.task,
        }

    def named_bulk(self, *, by_position: bool = True) -> str | None:
        """Return the bulk's id that the job itself names, or None."""
        function = self.function if by_position else None
        return bulks.clean(self.bulk_id) or bulks.find_in_call(self.args, self.payload, function)
