"""What a verdict needs: every threshold of ``bulkscope explain``, with the reason for its number.

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
    "negative_waits", 0.01, "share", "Waits below zero are a clock's error; so are others, unseen."
)
LOST_RECORDS = Threshold(
    "lost_records", 0.01, "share", "Spans dropped or refused, of those that the bulk's window should hold."
)
MISSING_SENDS = Threshold("missing_sends", 0.01, "share", "Jobs without their sender's record, while others have one.")
MISSING_ENDS = Threshold("missing_ends", 0.01, "share", "Jobs whose end was not recorded though their worker went on.")
QUIET_S = Threshold(
    "quiet",
    15.0,
    "s",
    "A job of which nothing is heard for longer is lost: heartbeats come every second, load delays them.",
)
FAILED = Threshold(
    "failed_jobs", 0.01, "share", "Held against the lower end of the interval: one of 26 proves nothing, two do."
)
BUSY_LOW = Threshold("busy_low", 0.70, "share", "Below it, workers had time; what failed did not fail by load.")
STALL_S = Threshold("stall", 5.0, "s", "A free worker beside a waiting job for longer is no polling interval.")
IDLE_SHARE = Threshold(
    "idle_beside_jobs",
    0.30,
    "share",
    "Of the workers' time, free beside waiting jobs: under 70 % busy while the backlog stands.",
)
STALL_SHARE = Threshold("stalled", 0.10, "share", "Of the workers' time, lost to such stalls.")
SENDING = Threshold("sending_requests", 5.0, "1", "API requests with jobs: fewer are a bulk put at once.")
OVERLOAD_S = Threshold("overload_window", 30.0, "s", "Shorter rises are bursts, which a queue is for.")
OVERLOAD_POINTS = Threshold("overload_points", 5.0, "1", "Fewer points have no slope worth its interval.")
RISES = Threshold("rises", 0.0, "1", "The lower end of the slope's interval is above it.")
REFUSED = Threshold("refused_requests", 0.01, "share", "Requests refused for load, lower end of the interval.")
SERVICE_GROWTH = Threshold(
    "service_growth", 0.20, "share", "Growth of the service time over the window that is still flat."
)
OFFERED = Threshold(
    "offered_load", 1.0, "1",
    "Jobs that came over those that the workers can do as fast as at first, lower end: too many, whatever slowed them.",
)  # fmt: skip
FOR_OTHERS = Threshold(
    "waited_for_others", 0.5, "share",
    "Of the jobs' time, waits and work, waiting for other bulks' jobs: less is not what held the bulk up.",
)  # fmt: skip
ALIKE_ROWS = Threshold(
    "jobs_compared", 8.0, "1", "Jobs beside many busy workers, and beside few: fewer have no interval worth showing."
)
BUSY_RANGE = Threshold(
    "busy_range",
    1.4,
    "1",
    "Most busy workers over fewest: below it a factor of 1.5 in time cannot come from the number of workers.",
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
CPU_BUSY = Threshold("cores_busy", 0.95, "share", "Of the cores that the workers may use.")
CPU_PRESSURE = Threshold("cpu_pressure", 0.20, "share", "Time in which some task waited for a core (PSI).")
CPU_WAIT = Threshold(
    "cpu_wait", 0.10, "share", "Of the time in which the inferences' threads could run, without a core."
)
CPU_STARVED = Threshold(
    "cpu_starved", 0.25, "share", "So much without a core proves by itself that all allowed ones were busy."
)
MEMORY_NEAR = Threshold("memory_near_limit", 0.90, "share", "Of the limit of the host or the cgroup, at the peak.")
MEMORY_PRESSURE = Threshold("memory_pressure", 0.10, "share", "Time in which some task waited for memory (PSI).")
MAJOR_FAULTS = Threshold(
    "major_faults", 100.0, "1/s", "Pages read back from disk; loading a model's weights once is far below over a bulk."
)
ROOM = Threshold(
    "room", 0.85, "share", "Utilisation up to which more load is promised: above it waits grow steeply (1/(1-u))."
)
STRAGGLER = Threshold("straggler", 3.0, "1", "Interquartile ranges above the third quartile (Tukey 1977, far out).")

ALL = (
    LITTLE, NEGATIVE_WAITS, LOST_RECORDS, MISSING_SENDS, MISSING_ENDS, QUIET_S, FAILED, BUSY_LOW, STALL_S, STALL_SHARE,
    IDLE_SHARE, SENDING, OVERLOAD_S, OVERLOAD_POINTS, RISES, REFUSED, SERVICE_GROWTH, OFFERED, FOR_OTHERS, ALIKE_ROWS,
    BUSY_RANGE, GAIN, SURE_GAIN, SLOWDOWN, SURE_SLOWDOWN, PREFILL_SCALES, CPU_GROWS, CPU_BUSY, CPU_PRESSURE, CPU_WAIT,
    CPU_STARVED, MEMORY_NEAR, MEMORY_PRESSURE, MAJOR_FAULTS, ROOM, STRAGGLER,
)  # fmt: skip
