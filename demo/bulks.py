"""What is known of each bulk, kept in Valkey."""

from __future__ import annotations

from collections.abc import Sequence

import redis

from demo import settings


class Bulks:
    """Bulks by id: model, number of prompts, ids of the jobs."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client

    def reserve(self, bulk_id: str, model: str, size: int) -> bool:
        """Take the id; False when a bulk has it already."""
        key = f"demo:bulk:{bulk_id}"
        if not self._client.hsetnx(key, "model", model):
            return False
        self._client.hset(key, "size", size)
        self._client.expire(key, settings.KEEP_S)
        return True

    def add_jobs(self, bulk_id: str, job_ids: Sequence[str]) -> None:
        """Remember the jobs that were sent for a bulk."""
        key = f"demo:bulk:{bulk_id}:jobs"
        self._client.rpush(key, *job_ids)
        self._client.expire(key, settings.KEEP_S)

    def find(self, bulk_id: str) -> tuple[str, int, list[str]] | None:
        """Return model, size and job ids of a bulk; None when there is none."""
        record = self._client.hgetall(f"demo:bulk:{bulk_id}")
        if not record:
            return None
        jobs = self._client.lrange(f"demo:bulk:{bulk_id}:jobs", 0, -1)
        return str(record["model"]), int(record.get("size", 0)), [str(job) for job in jobs]

    def queue_length(self) -> int:
        """Return how many jobs wait; raises redis.RedisError when Valkey does not answer."""
        return int(self._client.llen(settings.QUEUE))
