"""Every threshold of ``bulkscope explain``, with the reason for its number.

``docs/analysis.md`` shows this table; a test keeps the two equal.
"""

from __future__ import annotations

from dataclasses import dataclass

from bulkscope_studio.analysis.statistics.queueing import LITTLE_TOLERANCE


@dataclass(frozen=True, slots=True)
class Threshold:
    """A number that a measured one is held against; ``unit`` is ``share`` (0..1), ``s``, ``1/s`` or ``1``."""

    name: str
    value: float
    unit: str
    why: str


LITTLE = Threshold(
    "little_deviation", LITTLE_TOLERANCE, "share", "More means lost spans, a skewed clock or a cut window."
)
NEGATIVE_WAITS = Threshold(
    "negative_waits", 0.01, "share", "Negative waits are clock errors; other waits then have the same error, unseen."
)
LOST_RECORDS = Threshold(
    "lost_records", 0.01, "share", "Records dropped or refused, of the spans that the bulk's window should hold."
)
MISSING_SENDS = Threshold("missing_sends", 0.01, "share", "Jobs without the sender's span, while others have one.")
MISSING_ENDS = Threshold("missing_ends", 0.01, "share", "Jobs whose end was not recorded though their worker went on.")
KNOWN_GAP = Threshold(
    "known_gap",
    0.04,
    "share",
    "Of records or jobs, where the senders' own counts explain them: a restart of the receiver is no unfit bulk.",
)
QUIET_S = Threshold(
    "quiet",
    15.0,
    "s",
    "A job that is silent for longer is lost: heartbeats come every second, load delays them.",
)
FAILED = Threshold(
    "failed_jobs",
    0.01,
    "share",
    "Compared with the lower end of the interval: one failure in 26 proves nothing, two do.",
)
BUSY_LOW = Threshold("busy_low", 0.70, "share", "Below it workers had time: failures are not due to load.")
STALL_S = Threshold("stall", 5.0, "s", "A worker that is free for longer while a job waits is not between two polls.")
IDLE_S = Threshold("idle_time", 1.0, "s", "Time lost or saved at all: in a bulk of 0.2 s anything is a large share.")
STALL_SHARE = Threshold("stalled", 0.10, "share", "Of the workers' time, lost to such stalls.")
SENDING = Threshold(
    "sending_requests", 5.0, "1", "API requests with jobs: with fewer the bulk counts as enqueued at once."
)
OVERLOAD_S = Threshold("overload_window", 30.0, "s", "Shorter rises are bursts, which a queue is there to absorb.")
OVERLOAD_POINTS = Threshold("overload_points", 5.0, "1", "Fewer steps give no trend with a useful interval.")
RISES = Threshold("rises", 0.0, "1", "The lower end of the slope's interval is above it.")
REFUSED = Threshold("refused_requests", 0.01, "share", "Requests refused for load, lower end of the interval.")
SERVICE_GROWTH = Threshold(
    "service_growth", 0.20, "share", "Growth of the service time during the arrivals that still counts as flat."
)
OFFERED = Threshold(
    "offered_load", 1.0, "1",
    "Arrivals over what the workers could do at their initial speed, lower end: too many, whatever slowed them.",
)  # fmt: skip
LOAD = Threshold("load", 1.0, "1", "Time that jobs took of the workers over the time these had: more cannot be done.")
FOR_OTHERS = Threshold(
    "waited_for_others", 0.5, "share",
    "Of the jobs' time (waits and work), spent waiting for jobs of other bulks: less is not the cause.",
)  # fmt: skip
ALIKE_ROWS = Threshold(
    "jobs_compared", 8.0, "1", "Jobs with many busy workers, and with few: fewer give no useful interval."
)
BUSY_RANGE = Threshold(
    "busy_range",
    1.4,
    "1",
    "Most busy workers over fewest: below it the number of workers cannot explain a factor of 1.5 in time.",
)
GAIN = Threshold("gain", 1.5, "1", "Tokens/s with twice the busy workers: half of what they should add is lost.")
SURE_GAIN = Threshold(
    "sure_gain",
    1.59,
    "1",
    "The higher end of that gain's interval: even then two fifths of what they should add are lost.",
)
SLOWDOWN = Threshold(
    "slowdown", 1.25, "1", "Time of a job with most workers busy over that with fewest: a fifth of it is lost."
)
SURE_SLOWDOWN = Threshold(
    "sure_slowdown", 1.1, "1", "The lower end of that factor's interval: chance does not reach it."
)
PREFILL_SCALES = Threshold(
    "prefill_scales", 0.25, "1", "Growth of prefill over growth of decode (logarithms), below which it scales."
)
CPU_GROWS = Threshold(
    "cpu_grows",
    0.5,
    "1",
    "Growth of CPU time over growth of the job's time: waiting for memory counts as CPU time, for a lock it does not.",
)
CPU_BUSY = Threshold("cores_busy", 0.95, "share", "Utilisation of the cores that the workers may use.")
CPU_PRESSURE = Threshold("cpu_pressure", 0.20, "share", "Time in which some task waited for a core (PSI).")
CPU_WAIT = Threshold(
    "cpu_wait", 0.10, "share", "Of the inferences' time, lost as their threads waited for a core or were throttled."
)
MEMORY_NEAR = Threshold("memory_near_limit", 0.90, "share", "Of the limit of the host or the cgroup, at the peak.")
MEMORY_PRESSURE = Threshold("memory_pressure", 0.10, "share", "Time in which some task waited for memory (PSI).")
MAJOR_FAULTS = Threshold(
    "major_faults",
    100.0,
    "1/s",
    "Pages read back from disk; loading a model's weights once stays far below, over a bulk.",
)
ROOM = Threshold(
    "room", 0.85, "share", "Utilisation up to which more load fits: above it queue waits grow steeply (1/(1-u))."
)
SAVED = Threshold(
    "saved",
    0.10,
    "share",
    "Of the bulk's time, saved when it is played with one thing changed: less is worth no change.",
)
A_JOB_S = Threshold("saved_a_job", 0.010, "s", "Saved for each job: 2 ms until a job of 1 ms begins is no fault.")
OWN_CORES = Threshold(
    "own_cores", 0.60, "share",
    "Of the busy cores, used by the inferences while their threads wait for more: with less others have them.",
)  # fmt: skip
CORES_FULL = Threshold("own_cores_full", 0.85, "share", "Of the cores, used by the inferences: more workers need more.")
UNEVEN = Threshold(
    "uneven", 1.11, "1", "Time measured over the time where each free slot takes the next job: a tenth is saved."
)
BEHIND = Threshold("behind", 3.0, "1", "Jobs a slot that wait when the last arrives: fewer are a burst's rest.")
SLOW_WORKER = Threshold("slow_worker", 1.5, "1", "Time of a worker's jobs over the median worker's, at equal tokens.")
SLOW_WORKER_SURE = Threshold(
    "slow_worker_sure", 4.0, "1",
    "Standard errors by which it is slower: with jobs of uneven length one of eight workers seems slow by chance.",
)  # fmt: skip
COLD_SURE = Threshold(
    "cold_start_sure", 3.0, "1", "Standard errors by which workers' first jobs take longer than their others."
)
STRAGGLER = Threshold("straggler", 3.0, "1", "Interquartile ranges above the third quartile (Tukey 1977, far out).")

ALL = (
    LITTLE, NEGATIVE_WAITS, LOST_RECORDS, MISSING_SENDS, MISSING_ENDS, KNOWN_GAP, QUIET_S, FAILED, BUSY_LOW, STALL_S,
    STALL_SHARE, IDLE_S, SENDING, OVERLOAD_S, OVERLOAD_POINTS, RISES, REFUSED, SERVICE_GROWTH, OFFERED, LOAD,
    FOR_OTHERS, ALIKE_ROWS, BUSY_RANGE, GAIN, SURE_GAIN, SLOWDOWN, SURE_SLOWDOWN, PREFILL_SCALES, CPU_GROWS, CPU_BUSY,
    CPU_PRESSURE, CPU_WAIT, MEMORY_NEAR, MEMORY_PRESSURE, MAJOR_FAULTS, ROOM, SAVED,
    A_JOB_S, OWN_CORES, CORES_FULL, UNEVEN, BEHIND, SLOW_WORKER,
    SLOW_WORKER_SURE, COLD_SURE, STRAGGLER,
)  # fmt: skip
