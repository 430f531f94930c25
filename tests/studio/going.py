"""A bulk that runs while a test looks: its spans come to a studio over OTLP, as from its sender and its workers."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import httpx

from bulkscope import conventions as c
from tests.studio.otlp import PROTOBUF, traces

SECOND = 1_000_000_000


@dataclass
class Going:
    """A bulk of ``jobs`` jobs, put ``ago_s`` before it was made; one worker takes them one after another."""

    otlp: str
    name: str
    jobs: int
    ago_s: float = 60.0
    each_s: float = 1.0
    done: int = 0
    begun_ns: int = field(init=False)

    def __post_init__(self) -> None:
        self.begun_ns = time.time_ns() - int(self.ago_s * SECOND)

    def _send(self, kind: int, start_ns: int, end_ns: int, *attributes: dict[str, object], **more: object) -> None:
        resource = {
            "service.name": "worker" if kind == 5 else "api", "service.instance.id": "w-1" if kind == 5 else "a-1",
            "host.name": "node-a", "process.pid": 7,
        }  # fmt: skip
        body = traces(
            *attributes, resource=resource, kind=kind, start_time_unix_nano=start_ns, end_time_unix_nano=end_ns, **more
        )
        httpx.post(f"{self.otlp}/v1/traces", content=body.SerializeToString(), headers=PROTOBUF).raise_for_status()

    def put(self) -> None:
        """Send what the sender tells: all jobs were enqueued at once."""
        jobs = [{c.BULK_ID: self.name, c.JOB_ID: f"{self.name}-{n:03}"} for n in range(self.jobs)]
        self._send(4, self.begun_ns, self.begun_ns + 1_000_000, *jobs)

    def work(self, jobs: int, error: str | None = None) -> None:
        """Send that so many further jobs were done, or have failed with ``error``."""
        for _ in range(jobs):
            start = self.begun_ns + int(self.done * self.each_s * SECOND)
            told: dict[str, object] = {
                c.BULK_ID: self.name, c.JOB_ID: f"{self.name}-{self.done:03}",
                c.BULK_OUTCOME: "internal_error" if error else "ok",
                c.TIME_IN_QUEUE: (start - self.begun_ns) / SECOND,
            }  # fmt: skip
            failed = {c.ERROR_TYPE: error, c.BULK_FAILURE_DOMAIN: "infra"} if error else {}
            more = {"status": {"code": 2}} if error else {}
            self._send(5, start, start + int(self.each_s * SECOND), told | failed, **more)
            self.done += 1
