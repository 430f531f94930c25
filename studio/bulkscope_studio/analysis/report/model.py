"""The report as a tree of values. Units stand in the names: ``_s`` seconds, ``_bytes``, ``_share`` 0..1."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from bulkscope_studio.analysis.plain import plain
from bulkscope_studio.analysis.statistics.queueing import Expected, Little
from bulkscope_studio.analysis.statistics.stats import QUANTILE_METHOD, Distribution

SCHEMA = "bulkscope.report/1"


@dataclass(frozen=True, slots=True)
class Requests:
    """Numbers 1 to 3: the API side. ``rate`` is over the requests' own window; None for a single one."""

    count: int
    rate_per_s: float | None
    outcomes: dict[str, int]
    latency_s: Distribution | None
    enqueue_s: float | None


@dataclass(frozen=True, slots=True)
class Progress:
    """Where the jobs are. ``lost`` began and went silent with their workers; of ``unknown`` nothing was seen.

    ``cancelled`` ended before a worker began them. ``not_sent`` and ``duplicate`` are none of those that were ``sent``:
    the broker did not take them, or one of the same id was sent before.
    """

    sent: int
    done: int
    failed: int
    cancelled: int
    running: int
    retrying: int
    waiting: int
    lost: int
    unknown: int
    not_sent: int
    duplicate: int

    @property
    def ended(self) -> int:
        """Return how many jobs have ended, well or not, or been called off."""
        return self.done + self.failed + self.cancelled

    @property
    def complete(self) -> bool:
        """Every job that was sent has ended, and there was something to send."""
        return self.sent + self.not_sent + self.duplicate > 0 and self.ended == self.sent


@dataclass(frozen=True, slots=True)
class Jobs:
    """Numbers 4, 5, 6 and 13 of a group of jobs; waits leave the negative ones out and count them.

    ``import_s``: of the work, importing the modules of tasks, where that was done. ``places``: concurrency
    slots that were there at once, on which ``expected`` has the jobs done.
    """

    attempts: int
    done: int
    failed: int
    retries: int
    rate_per_s: float | None
    failures_by_domain: dict[str, int]
    errors: dict[str, int]
    wait_s: Distribution | None
    negative_waits: int
    process_s: Distribution | None
    total_s: Distribution | None
    delay_s: float | None
    import_s: Distribution | None
    wait_ratio: Distribution | None
    makespan_s: float | None
    workers: int
    places: int
    expected: Expected | None


@dataclass(frozen=True, slots=True)
class Inferences:
    """Numbers 7 to 12 of a group of inferences; ``prompts`` are more than inferences where one was given several."""

    count: int
    prompts: int | None
    failed: int
    duration_s: Distribution | None
    ttft_s: Distribution | None
    prefill_s: Distribution | None
    decode_s: Distribution | None
    cpu_s: float | None
    cpu_utilization: Distribution | None
    cpu_exact_share: float | None
    cpu_pressure_share: float | None
    cpu_throttled_s: float | None
    cpu_s_per_output_token: float | None
    memory_start_bytes: float | None
    memory_peak_bytes: float | None
    memory_growth_max_bytes: float | None
    memory_file_bytes: float | None
    memory_anon_bytes: float | None
    memory_limit_bytes: float | None
    memory_exact_share: float | None
    output_tokens: float | None
    input_tokens: float | None
    cached_tokens: float | None
    tokens_per_s: float | None
    decode_tokens_per_s: float | None


@dataclass(frozen=True, slots=True)
class Group:
    """One model, one worker, or everything (``name`` is then ``total``)."""

    name: str
    jobs: Jobs
    inferences: Inferences


@dataclass(frozen=True, slots=True)
class Lost:
    """An attempt that was lost with its worker, as its last heartbeat described it.

    The worker's parent has told of it (then it is among the failed), or the worker went silent. ``domain`` is
    ``resource`` where the kernel counted a kill for memory, or where one is ``likely``, because memory was nearly full
    at the last; else ``infra``. ``model_likely``: it had not begun an inference, and its model is that of others.
    """

    job_id: str
    attempt: int
    worker: str
    model: str | None
    elapsed_s: float | None
    memory_bytes: int | None
    domain: str
    memory_limit_bytes: int | None
    likely: bool
    model_likely: bool


@dataclass(frozen=True, slots=True)
class Host:
    """A host while the bulk ran; None where it was not sampled."""

    name: str
    cpu_mean_share: float | None
    cpu_max_share: float | None
    memory_mean_share: float | None
    memory_max_share: float | None


@dataclass(frozen=True, slots=True)
class BulkReport:
    """Everything about one bulk. ``start_ns`` and ``end_ns`` bound what was recorded of it.

    ``cancelled`` and ``not_sent`` count such jobs by reason. ``part_of`` are bulks whose jobs sent jobs of it, and
    ``nested`` those that its jobs sent jobs of.
    """

    id: str
    start_ns: int | None
    end_ns: int | None
    complete: bool
    part_of: tuple[str, ...]
    nested: tuple[str, ...]
    requests: Requests
    progress: Progress
    cancelled: dict[str, int]
    not_sent: dict[str, int]
    total: Group
    models: tuple[Group, ...]
    workers: tuple[Group, ...]
    hosts: tuple[Host, ...]
    lost: tuple[Lost, ...]
    little: Little | None
    sampled: str | None
    notes: tuple[str, ...]


def to_json(report: BulkReport) -> dict[str, Any]:
    """Return the report as plain values with stable keys; absent is null."""
    return {
        "schema": SCHEMA,
        "quantiles": QUANTILE_METHOD,
        "units": {
            "_s": "seconds", "_ns": "nanoseconds since the Unix epoch", "_bytes": "bytes",
            "_share": "0..1", "_per_s": "per second", "wait_ratio": "0..1",
            "cpu_utilization": "0..1 of the cores",
            "expected": "seconds and 0..1", "little.rate": "jobs per second", "little.time": "seconds",
        },
        **plain(dataclasses.asdict(report)),
    }  # fmt: skip
