"""Tables of bulks whose jobs follow a known law: what a comparison must find again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from bulkscope_studio.storage import views
from bulkscope_studio.storage.saved_runs import Tables
from tests.rows import BEGIN_NS, MIB, SECOND

ATTEMPTS = {
    "bulk_id": pa.string(), "job_id": pa.string(), "span_id": pa.string(), "attempt": pa.int32(),
    "enqueue_ns": pa.int64(), "start_ns": pa.int64(), "end_ns": pa.int64(), "retried": pa.bool_(), "ok": pa.bool_(),
    "worker": pa.string(), "host_name": pa.string(), "called_off": pa.string(), "repeated": pa.int64(),
}  # fmt: skip
INFERENCES = {
    "bulk_id": pa.string(), "job_id": pa.string(), "span_id": pa.string(), "model": pa.string(),
    "worker": pa.string(), "host_name": pa.string(), "seconds": pa.float64(), "ok": pa.bool_(),
    "decode": pa.float64(), "input_tokens": pa.int64(), "output_tokens": pa.int64(), "cached_tokens": pa.int64(),
    "cpu_time": pa.float64(), "cpu_utilization": pa.float64(), "cpu_exact": pa.bool_(), "cpu_pressure": pa.float64(),
    "cpu_throttled": pa.float64(), "memory_peak": pa.int64(), "memory_exact": pa.bool_(), "start_ns": pa.int64(),
    "end_ns": pa.int64(), "cpus": pa.float64(), "cpu_wait": pa.float64(), "process": pa.string(),
    "ran_before": pa.int64(), "ran_other": pa.bool_(),
}  # fmt: skip
REQUESTS = {"bulk_id": pa.string(), "start_ns": pa.int64(), "end_ns": pa.int64(), "bulk_size": pa.int64()}


@dataclass(frozen=True)
class Law:
    """What a model costs: s a call, a prefilled and a generated token; bytes at its peak; share of failed jobs.

    ``length`` scales the answers, ``tokenizer`` the tokens of a prompt; ``noise`` is the log-normal sigma of a time.
    """

    call: float = 0.02
    prefill: float = 0.004
    decode: float = 0.02
    memory: float = 300 * MIB
    failures: float = 0.0
    length: float = 1.0
    tokenizer: float = 1.0
    noise: float = 0.1

    def times(self, by: float) -> Law:
        """The same law, everything that takes time slower by a factor."""
        kept = (self.memory, self.failures, self.length, self.tokenizer, self.noise)
        return Law(self.call * by, self.prefill * by, self.decode * by, *kept)


def table(types: dict[str, pa.DataType], rows: list[dict[str, Any]]) -> pa.Table:
    return pa.table({name: pa.array([row.get(name) for row in rows], kind) for name, kind in types.items()})


def bulk(
    law: Law,
    jobs: int,
    seed: int,
    *,
    prompts: int = 0,
    skew: float = 0.8,
    name: str = "b",
    model: str = "m",
    at_ns: int = BEGIN_NS,
    workers: int = 2,
) -> Tables:
    """Make one bulk, on fresh workers that have cores.

    Bulks with equal ``prompts`` send the same prompts, whose lengths are log-normal with ``skew``.
    """
    asked = np.random.default_rng([11, prompts])
    own = np.random.default_rng([13, seed])
    lengths = np.maximum(1, np.exp(asked.normal(np.log(120), skew, jobs))).astype(int)
    wanted = np.exp(asked.normal(np.log(60), skew, jobs)) * law.length
    answers = np.maximum(1, wanted * np.exp(own.normal(0, 0.3, jobs))).astype(int)
    tokens = np.maximum(1, np.round(lengths * law.tokenizer)).astype(int)
    cached = np.minimum(16, tokens)
    wobble = np.exp(own.normal(-(law.noise**2) / 2, law.noise, (2, jobs)))
    prefill = (law.call + law.prefill * (tokens - cached)) * wobble[0]
    decode = law.decode * answers * wobble[1]
    failed = own.random(jobs) < law.failures
    peaks = law.memory * np.exp(own.normal(0, 0.01, jobs))
    attempts, inferences = [], []
    free = [at_ns] * workers
    for i in range(jobs):
        worker = i % workers
        put = at_ns + i * 500_000
        start = max(free[worker], put) + 1_000_000
        seconds = float(prefill[i] + decode[i])
        end = start + int(seconds * SECOND) + 2_000_000
        free[worker] = end
        shared = {"bulk_id": name, "job_id": f"{name}-{i}", "worker": f"w{worker}", "host_name": "h"}
        attempts.append(
            shared
            | {
                "span_id": f"{name}-a{i}", "attempt": 1, "enqueue_ns": put, "start_ns": start, "end_ns": end,
                "retried": False, "ok": not failed[i],
            }
        )  # fmt: skip
        good = not failed[i]
        inferences.append(
            shared
            | {
                "span_id": f"{name}-s{i}", "model": model, "seconds": seconds, "ok": good,
                "decode": float(decode[i]), "input_tokens": int(tokens[i]), "cached_tokens": int(cached[i]),
                "output_tokens": int(answers[i]) if good else None, "cpu_time": seconds * 1.8,
                "cpu_utilization": 0.9, "cpu_exact": True, "cpu_pressure": 0.1, "cpu_throttled": 0.0,
                "memory_peak": int(peaks[i]), "memory_exact": True, "start_ns": start + 1_000_000, "end_ns": end,
                "cpus": 2.0, "cpu_wait": 0.0, "process": f"{name}-w{worker}", "ran_before": i // workers,
                "ran_other": False,
            }
        )  # fmt: skip
    requests = [{"bulk_id": name, "start_ns": at_ns, "end_ns": at_ns + jobs * 500_000, "bulk_size": jobs}]
    return Tables(views.decided(table(ATTEMPTS, attempts)), table(INFERENCES, inferences), table(REQUESTS, requests))
