"""What is simulated: hosts, workers, streams of jobs, the broker, failures, and faults of the telemetry.

Times are seconds from the start of the simulation unless a name says otherwise, sizes bytes.
"""

from __future__ import annotations

from dataclasses import dataclass, field

KIB, MIB, GIB = 1024, 1024**2, 1024**3
Interval = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Model:
    """Rates in tokens/s of one inference alone on its threads; ``activity`` is the share of it in which each can run.

    ``weights`` are mapped from a file, shared by the processes of a host and read once for every token decoded;
    ``anonymous`` is each process's own part, ``context`` what one token adds to it while its job runs.
    """

    name: str = "qwen2-0.5b-q4"
    prefill: float = 600.0
    decode: float = 50.0
    weights: int = 400 * MIB
    anonymous: int = 250 * MIB
    context: int = 24 * KIB
    activity: float = 0.97
    load_s: float = 0.6

    @property
    def traffic(self) -> float:
        """Bytes/s that decoding at full speed reads from memory."""
        return self.weights * self.decode


@dataclass(frozen=True, slots=True)
class Tokens:
    """Lognormal lengths around ``input`` and ``output`` with ``spread`` (sigma of the logarithm).

    ``growth`` makes the last job's lengths that much longer than the first's, relatively.
    """

    input: float = 300.0
    output: float = 40.0
    spread: float = 0.35
    cached: int = 16
    growth: float = 0.0


@dataclass(frozen=True, slots=True)
class Failures:
    """A ``share`` of prompts, or of attempts when ``each_attempt``, fails with ``error`` of ``domain``.

    ``where``: ``before`` the inference, after its ``prefill``, half through its ``decode``, ``after`` it.
    """

    share: float
    domain: str
    error: str
    where: str = "decode"
    each_attempt: bool = False
    retries: int = 0
    retry_delay: float = 2.0
    within: Interval = (0.0, float("inf"))


@dataclass(frozen=True, slots=True)
class Stream:
    """Jobs of one bulk id: ``requests`` are (time, jobs); with ``outstanding`` the client sends the next single job
    ``think`` s after one is done and keeps that many under way, until ``closed_jobs`` were sent."""

    bulk: str
    requests: tuple[tuple[float, int], ...]
    model: Model = Model()
    tokens: Tokens = Tokens()
    noise: float = 0.04
    delay: float = 0.0
    app_work: float = 0.0  # CPU seconds of one thread outside the inference
    locked: float = 0.0  # seconds under a lock that all workers share, outside the inference
    failures: tuple[Failures, ...] = ()
    closed_jobs: int = 0
    think: float = 0.0


@dataclass(frozen=True, slots=True)
class Host:
    """A machine. ``bandwidth`` and ``disk`` in bytes/s; ``burners`` are (from, to, threads that never sleep).

    ``physical`` cores below ``cores`` are two-way SMT, where the second thread of a core adds ``smt_yield``.
    ``lock_share`` is the share of an inference's ``lock_phases`` that runs under one lock of the host; waiting for it
    sleeps, or burns CPU with ``lock_spins``. ``clock`` is how far its wall clock is ahead, ``clock_steps`` are
    (time, by how much it is set forward). ``near`` says that the API runs on it: waits then come from the boot's clock.
    """

    name: str = "node-1"
    cores: int = 8
    physical: int = 0
    smt_yield: float = 0.25
    memory: int = 16 * GIB
    used: int = 1 * GIB
    bandwidth: float = float("inf")
    disk: float = 1.2e9
    background: float = 0.03
    burners: tuple[tuple[float, float, int], ...] = ()
    burners_apart: bool = False
    lock_share: float = 0.0
    lock_phases: tuple[str, ...] = ("prefill", "decode")
    lock_spins: bool = False
    clock: float = 0.0
    clock_steps: tuple[tuple[float, float], ...] = ()
    near: bool = True


@dataclass(frozen=True, slots=True)
class Pool:
    """Workers of one host. ``present`` are (from, to) of each; one that is to leave ends its job first.

    ``cpus`` cores are theirs together (None: all of the host); ``quota`` limits the CPU of the whole pool, or of each
    worker when ``quota_each``; ``memory_limit`` is of the whole pool's cgroup. ``restart`` s after it was killed a
    worker comes again; None: never.
    """

    host: str = "node-1"
    present: tuple[Interval, ...] = ((0.0, float("inf")),)
    threads: int = 1
    cpus: int | None = None
    quota: float | None = None
    quota_each: bool = False
    memory_limit: int | None = None
    restart: float | None = 3.0
    base: int = 60 * MIB


@dataclass(frozen=True, slots=True)
class Broker:
    """FIFO. A worker's next job begins ``dispatch`` s after both are there, ``poll`` s at most later for one that
    slept; nothing is handed out during ``stalls``. A worker reserves ``prefetch`` jobs beside the one it works on.
    A killed worker's jobs are handed out again after ``redeliver`` s; None: never."""

    dispatch: float = 0.002
    poll: float = 0.0
    stalls: tuple[Interval, ...] = ()
    prefetch: int = 0
    redeliver: float | None = None


@dataclass(frozen=True, slots=True)
class Telemetry:
    """Shares of spans that never arrive, by kind; ``jobs`` loses both spans of a job and its log events.

    In ``batches`` what is lost lies together in time, as exports do. ``counted`` senders report what they dropped;
    ``refused`` records are in table ``ingest``. ``cut`` keeps what ended in that interval only. ``interval`` is the
    metrics' export interval.
    """

    consumers: float = 0.0
    producers: float = 0.0
    inferences: float = 0.0
    jobs: float = 0.0
    batches: bool = False
    counted: bool = False
    refused: float = 0.0
    dropped_logs: int = 0
    cut: Interval | None = None
    interval: float = 5.0


@dataclass(frozen=True, slots=True)
class System:
    """Everything. ``kills`` are (time, worker); ``expires`` and ``time_limit`` fail jobs with domain ``timeout`` that
    waited, or were worked on, for longer; a request is answered ``refusal`` when ``queue_limit`` jobs wait."""

    streams: tuple[Stream, ...]
    hosts: tuple[Host, ...] = (Host(),)
    pools: tuple[Pool, ...] = (Pool(),)
    broker: Broker = Broker()
    kills: tuple[tuple[float, int], ...] = ()
    expires: float | None = None
    time_limit: float | None = None
    queue_limit: int | None = None
    refusal: int = 503
    enqueue: float = 0.0004
    overhead: float = 0.003
    telemetry: Telemetry = field(default_factory=Telemetry)


def always(count: int, start: float = 0.0, end: float = float("inf")) -> tuple[Interval, ...]:
    """Return the presence of ``count`` workers that are all there from ``start`` to ``end``."""
    return ((start, end),) * count


def joining(count: int, every: float, first: int = 1) -> tuple[Interval, ...]:
    """Return the presence of ``first`` workers from the start and one more each ``every`` s."""
    return tuple((max(0, n - first + 1) * every, float("inf")) for n in range(count))


def leaving(count: int, every: float, last: int = 1) -> tuple[Interval, ...]:
    """Return the presence of ``count`` workers of which one leaves each ``every`` s until ``last`` are left."""
    return tuple((0.0, (n + 1) * every if n < count - last else float("inf")) for n in range(count))
