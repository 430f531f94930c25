"""Runs a system: a fluid simulation between events.

What shares a resource progresses at a rate that changes only when an inference's phase begins or ends, a worker
comes or goes, or a burner starts: between those moments every integral (CPU time, pressure, work left) is linear and
exact. The rates come from ``sharing`` (cores, locks), from the roofline of the memory's bandwidth, and from what of
the weights has to be read from disk again because it no longer fits into memory.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from dataclasses import dataclass, field

import numpy as np

from tests.simulator.sharing import share
from tests.simulator.system import Host, Model, Pool, Stream, System

CAUSES = ("cpu", "bandwidth", "lock", "memory")
# What the kernel reads around a page that is missing: the default read-ahead.
READ_AHEAD = 128 * 1024
# A process whose code and hottest weights do not fit any more gets nothing done: then the kernel kills.
LEAST_FILE_SHARE = 0.05
_INFINITE = float("inf")


@dataclass(slots=True, eq=False)
class Job:
    stream: Stream
    number: int
    input_tokens: int
    output_tokens: int
    noise: float
    fails: tuple[bool, ...]
    name: str = ""
    request: int = -1
    sent: float = 0.0  # first enqueue
    deliveries: int = 0


@dataclass(slots=True, eq=False)
class Process:
    """One life of a worker: a restart is another process."""

    worker: int
    pool: Pool
    host: str
    pid: int
    born: float
    died: float = _INFINITE
    killed: str | None = None
    models: dict[str, Model] = field(default_factory=dict)
    # (time, resident file part, anonymous part): what changes at the begin and end of inferences
    memory: list[tuple[float, float, float]] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class Attempt:
    """One delivery of a job to a worker. Times in s of true time; None where it did not come so far."""

    job: Job
    number: int
    enqueued: float
    delay: float
    process: Process
    start: float
    inferred: float | None = None  # begin of the inference
    prefilled: float | None = None
    decoded: float | None = None  # its end
    end: float | None = None
    outcome: str = "ok"
    domain: str | None = None
    error: str | None = None
    failed_inference: bool = False
    output: int = 0
    cpu: float = 0.0  # of the inference
    cpu_wait: float = 0.0
    pressure: float = 0.0  # seconds
    throttled: float = 0.0
    memory_start: float = 0.0
    memory_peak: float = 0.0
    memory_file: float = 0.0
    memory_anon: float = 0.0
    lost: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0, 0.0])  # seconds by cause, as in CAUSES
    beside: float = 0.0  # mean number of busy workers while it ran, itself included
    # --- state while it runs
    phase: str = ""
    left: float = 0.0
    total: float = 1.0
    speed: float = 0.0
    cpu_rate: float = 0.0
    wait_rate: float = 0.0
    lose: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)


@dataclass(slots=True, eq=False)
class Request:
    stream: Stream
    number: int
    start: float
    end: float
    jobs: list[Job]
    status: int
    asked: int  # jobs, also of a request that was refused


@dataclass(slots=True)
class Put:
    """A job handed to the broker: by the API, or by the worker that retries it."""

    job: Job
    attempt: int
    at: float
    delay: float
    by: Attempt | None


@dataclass(slots=True)
class Timeline:
    """A host's rates between changes: from ``at`` on, until the next entry."""

    at: list[float] = field(default_factory=list)
    cores: list[float] = field(default_factory=list)
    cpu_some: list[float] = field(default_factory=list)
    memory_some: list[float] = field(default_factory=list)
    memory_full: list[float] = field(default_factory=list)
    read: list[float] = field(default_factory=list)  # bytes/s read from disk again
    throttled: list[float] = field(default_factory=list)
    anonymous: list[float] = field(default_factory=list)
    file: list[float] = field(default_factory=list)
    kills: list[tuple[float, int]] = field(default_factory=list)


@dataclass(slots=True)
class Run:
    system: System
    seed: int
    attempts: list[Attempt]
    puts: list[Put]
    requests: list[Request]
    processes: list[Process]
    hosts: dict[str, Timeline]
    end: float
    idle_while_waiting: float  # seconds in which jobs could have been worked on and a worker stood idle


@dataclass(slots=True, eq=False)
class _Worker:
    index: int
    pool: Pool
    process: Process | None = None
    running: Attempt | None = None
    reserved: deque[tuple[Job, int, float, float]] = field(default_factory=deque)
    taken: bool = False  # a job is on its way to it
    leaving: bool = False
    slept: bool = True


class _HostState:
    def __init__(self, host: Host, pool: Pool | None) -> None:
        self.host, self.pool = host, pool
        self.active: list[Attempt] = []
        self.at = 0.0
        self.version = 0
        self.cpu_some = self.throttle = 0.0  # rates
        self.pressure = self.throttled = 0.0  # integrals
        self.missing = 0.0
        self.file = self.anonymous = 0.0
        self.kills = 0
        self.line = Timeline()


def simulate(system: System, seed: int) -> Run:
    """Run ``system`` until every job has ended or never will; the same arguments give the same run."""
    return _Simulation(system, seed).run()


def draw_jobs(stream: Stream, number: int, random: np.random.Generator) -> list[Job]:
    """Return the jobs of a stream: lengths, noise of the work, and which of its failures each prompt runs into."""
    count = sum(jobs for _, jobs in stream.requests) + stream.closed_jobs
    tokens = stream.tokens
    growth = 1 + tokens.growth * np.arange(count) / max(1, count - 1)
    lengths = []
    for middle in (tokens.input, tokens.output):
        drawn = middle * growth * np.exp(random.normal(0, tokens.spread, count))
        lengths.append(np.maximum(2, np.rint(drawn)).astype(int).tolist())
    noise = np.exp(random.normal(0, stream.noise, count)).tolist()
    fails = [(random.random(count) < failure.share).tolist() for failure in stream.failures]
    of_job = list(zip(*fails, strict=True)) if fails else [()] * count
    return [
        Job(stream, n, lengths[0][n], lengths[1][n], noise[n], of_job[n], f"{stream.bulk}-{number}-{n:06d}")
        for n in range(count)
    ]


class _Simulation:
    def __init__(self, system: System, seed: int) -> None:
        self.system = system
        self.seed = seed
        self.random = np.random.default_rng([seed, 1])
        self.now = 0.0
        self.heap: list[tuple[float, int, str, object, object]] = []
        self.sequence = 0
        pools = {pool.host: pool for pool in system.pools}
        if len(pools) != len(system.pools):
            raise ValueError("a host has one pool of workers: give the second pool a host of its own")
        self.hosts = {host.name: _HostState(host, pools.get(host.name)) for host in system.hosts}
        self.workers = [
            _Worker(0, pool) for pool in system.pools for _ in pool.present
        ]  # fmt: skip
        for index, worker in enumerate(self.workers):
            worker.index = index
        self.queue: deque[tuple[Job, int, float, float]] = deque()
        self.waiting_jobs = 0  # in the queue or reserved by a worker
        self.idle: deque[_Worker] = deque()
        self.stalls = 0
        self.held: Attempt | None = None  # who holds the lock outside inferences
        self.lock_queue: deque[tuple[Attempt, float]] = deque()
        self.attempts: list[Attempt] = []
        self.puts: list[Put] = []
        self.requests: list[Request] = []
        self.processes: list[Process] = []
        self.busy = 0
        self.busy_total = self.idle_total = 0.0
        self.last = 0.0
        self.pids = 4100
        self.drawn = {
            id(stream): deque(draw_jobs(stream, n, np.random.default_rng([seed, 2, n])))
            for n, stream in enumerate(system.streams)
        }

    # --- events -------------------------------------------------------------------------------

    def push(self, at: float, kind: str, what: object = None, more: object = None) -> None:
        self.sequence += 1
        heapq.heappush(self.heap, (at, self.sequence, kind, what, more))

    def run(self) -> Run:
        presence = [interval for pool in self.system.pools for interval in pool.present]
        for worker, (start, end) in zip(self.workers, presence, strict=True):
            self.push(start, "join", worker)
            if math.isfinite(end):
                self.push(end, "leave", worker)
        for at, index in self.system.kills:
            self.push(at, "kill", self.workers[index])
        for begin, end in self.system.broker.stalls:
            self.push(begin, "stall", 1)
            self.push(end, "stall", -1)
        for state in self.hosts.values():
            for begin, end, _ in state.host.burners:
                self.push(begin, "change", state)
                self.push(end, "change", state)
        for stream in self.system.streams:
            for at, count in stream.requests:
                self.push(at, "request", stream, count)
        while self.heap:
            at, _, kind, what, more = heapq.heappop(self.heap)
            if kind in ("join", "change", "leave", "restart", "kill") and not self._more():
                continue  # nothing is left to be done: what the system does without jobs is not simulated
            step = at - self.now
            if step > 0:
                self.busy_total += step * self.busy
                if self.waiting_jobs and self.busy < self._able():
                    self.idle_total += step
            self.now = at
            getattr(self, "_" + kind)(what, more)
        for state in self.hosts.values():
            self._advance(state)
        end = max([self.last, *(request.end for request in self.requests)], default=0.0)
        lines = {name: state.line for name, state in self.hosts.items()}
        return Run(self.system, self.seed, self.attempts, self.puts, self.requests, self.processes, lines, end,
                   self.idle_total)  # fmt: skip

    def _more(self) -> bool:
        return bool(
            self.waiting_jobs
            or self.busy
            or any(kind in ("request", "ready", "begin") for _, _, kind, _, _ in self.heap)
        )

    def _able(self) -> int:
        """Workers that could work; one whose next job is a few milliseconds away counts as busy."""
        quick = self.system.broker.dispatch + self.system.broker.poll < 0.05
        return sum(
            worker.process is not None and not worker.leaving and not (quick and worker.taken and not worker.running)
            for worker in self.workers
        )

    # --- the API and the broker ----------------------------------------------------------------

    def _request(self, stream: Stream, count: int) -> None:
        limit = self.system.queue_limit
        drawn = self.drawn[id(stream)]
        jobs = [drawn.popleft() for _ in range(min(count, len(drawn)))]
        number = len(self.requests)
        if limit is not None and self.waiting_jobs >= limit:
            self.requests.append(
                Request(stream, number, self.now, self.now + 0.002, [], self.system.refusal, len(jobs))
            )
            return
        put = self.now + 0.004 if self.system.enqueue else self.now
        for job in jobs:
            job.request, job.sent = number, put
            self._put(job, 1, put, stream.delay, None)
            put += self.system.enqueue
        self.requests.append(Request(stream, number, self.now, put + 0.002, jobs, 202, len(jobs)))

    def _put(self, job: Job, attempt: int, at: float, delay: float, by: Attempt | None) -> None:
        self.puts.append(Put(job, attempt, at, delay, by))
        self.push(at + delay, "ready", (job, attempt, at, delay))

    def _ready(self, message: tuple[Job, int, float, float], _: object) -> None:
        self.queue.append(message)
        self.waiting_jobs += 1
        self._dispatch()

    def _stall(self, change: int, _: object) -> None:
        self.stalls += change
        self._dispatch()

    def _dispatch(self) -> None:
        while self.queue and self.idle and not self.stalls:
            self._hand(self.idle.popleft(), self.queue.popleft())
        if self.queue and self.system.broker.prefetch and not self.stalls:
            for _ in range(self.system.broker.prefetch):
                for worker in self.workers:
                    able = worker.process is not None and not worker.leaving
                    if self.queue and able and len(worker.reserved) < self.system.broker.prefetch:
                        worker.reserved.append(self.queue.popleft())

    def _hand(self, worker: _Worker, message: tuple[Job, int, float, float]) -> None:
        broker = self.system.broker
        worker.taken = True
        pause = broker.dispatch + (broker.poll * float(self.random.random()) if worker.slept and broker.poll else 0.0)
        self.push(self.now + pause, "begin", worker, (worker.process, message))

    def _free(self, worker: _Worker) -> None:
        """Give a worker that has nothing to do its next job, or let it sleep."""
        worker.taken = False
        if worker.leaving:
            self._gone(worker, None)
        elif worker.reserved:
            worker.slept = False
            self._hand(worker, worker.reserved.popleft())
        else:
            worker.slept = not self.queue
            self.idle.append(worker)
            self._dispatch()

    # --- workers ----------------------------------------------------------------------------------

    def _join(self, worker: _Worker, _: object) -> None:
        self.pids += 7
        process = Process(worker.index, worker.pool, worker.pool.host, self.pids, self.now)
        worker.process, worker.leaving = process, False
        self.processes.append(process)
        self._memory(self.hosts[process.host])
        self._free(worker)

    def _restart(self, worker: _Worker, _: object) -> None:
        if worker.process is None:
            self._join(worker, None)

    def _leave(self, worker: _Worker, _: object) -> None:
        if worker.process is None:
            return
        worker.leaving = True
        for message in reversed(worker.reserved):
            self.queue.appendleft(message)
        worker.reserved.clear()
        if not worker.taken:
            self._gone(worker, None)
        self._dispatch()

    def _gone(self, worker: _Worker, cause: str | None) -> None:
        process = worker.process
        assert process is not None
        process.died, process.killed = self.now, cause
        worker.process, worker.taken = None, False
        if worker in self.idle:
            self.idle.remove(worker)
        self._memory(self.hosts[process.host])

    def _kill(self, worker: _Worker, _: object) -> None:
        self._killed(worker, "signal")

    def _killed(self, worker: _Worker, cause: str) -> None:
        """Take a worker away in the middle of what it does; its broker hears of it later, if ever."""
        if worker.process is None:
            return
        lost = list(worker.reserved)
        self.waiting_jobs -= len(lost)
        worker.reserved.clear()
        attempt = worker.running
        state = self.hosts[worker.pool.host]
        if attempt is not None:
            self._advance(state)
            if attempt in state.active:
                state.active.remove(attempt)
            attempt.phase = "killed"
            self._release(attempt)
            lost.insert(0, (attempt.job, attempt.number, attempt.enqueued, attempt.delay))
            worker.running = None
            self.busy -= 1
            attempt.beside = (self.busy_total - attempt.beside) / max(1e-9, self.now - attempt.start)
            self.last = max(self.last, self.now)
        self._gone(worker, cause)
        if cause == "memory":
            state.kills += 1
            state.line.kills.append((self.now, state.kills))
        again = self.system.broker.redeliver
        for message in lost:
            message[0].deliveries += 1
            if again is not None and message[0].deliveries <= 3:
                self.push(self.now + again, "ready", message)
        if worker.pool.restart is not None:
            self.push(self.now + worker.pool.restart, "restart", worker)

    # --- one attempt -----------------------------------------------------------------------------

    def _begin(self, worker: _Worker, what: tuple[Process, tuple[Job, int, float, float]]) -> None:
        process, message = what
        if worker.process is not process:  # killed in between: nobody has begun it, the broker hands it out again
            self.queue.appendleft(message)
            self._dispatch()
            return
        job, number, enqueued, delay = message
        self.waiting_jobs -= 1
        attempt = Attempt(job, number, enqueued, delay, process, self.now)
        attempt.beside = self.busy_total
        worker.running = attempt
        self.busy += 1
        self.attempts.append(attempt)
        if self.system.expires is not None and self.now - enqueued - delay > self.system.expires:
            attempt.domain, attempt.error = "timeout", "TimeoutError"
            self._timer(attempt, "after", self.system.overhead)
            return
        if self.system.time_limit is not None:
            self.push(self.now + self.system.time_limit, "limit", attempt)
        if self._fails(attempt, "before"):
            self._timer(attempt, "after", 0.05)
            return
        loads = 0.0 if job.stream.model.name in process.models else job.stream.model.load_s
        self._timer(attempt, "load", self.system.overhead + loads)

    def _timer(self, attempt: Attempt, phase: str, seconds: float) -> None:
        attempt.phase = phase
        self.push(self.now + seconds, "timed", attempt, phase)

    def _timed(self, attempt: Attempt, phase: str) -> None:
        if attempt.phase != phase:
            return
        if phase == "after":
            self._end(attempt)
        elif phase == "hold":
            self._release(attempt)
            self._app(attempt)
        else:
            model = attempt.job.stream.model
            if model.name not in attempt.process.models:
                attempt.process.models[model.name] = model
                self._memory(self.hosts[attempt.process.host])
                if attempt.phase == "killed":
                    return
            self._lock(attempt)

    def _lock(self, attempt: Attempt) -> None:
        if attempt.job.stream.locked <= 0:
            self._app(attempt)
            return
        attempt.phase = "queue"
        self.lock_queue.append((attempt, self.now))
        self._grant()

    def _grant(self) -> None:
        if self.held is None and self.lock_queue:
            attempt, since = self.lock_queue.popleft()
            self.held = attempt
            attempt.lost[2] += self.now - since
            self._timer(attempt, "hold", attempt.job.stream.locked * attempt.job.noise)

    def _release(self, attempt: Attempt) -> None:
        if self.held is attempt:
            self.held = None
        else:
            self.lock_queue = deque(entry for entry in self.lock_queue if entry[0] is not attempt)
        self._grant()

    def _app(self, attempt: Attempt) -> None:
        work = attempt.job.stream.app_work
        if work > 0:
            self._enter(attempt, "app", work)
        else:
            self._infer(attempt)

    def _infer(self, attempt: Attempt) -> None:
        job, state = attempt.job, self.hosts[attempt.process.host]
        computed = job.input_tokens - min(job.stream.tokens.cached, job.input_tokens)
        self._enter(attempt, "prefill", max(1, computed) / job.stream.model.prefill * job.noise)
        if attempt.phase == "killed":
            return
        attempt.inferred = self.now
        attempt.pressure, attempt.throttled = -state.pressure, -state.throttled
        anonymous, file = self._resident(attempt.process, state)
        attempt.memory_start = anonymous + file - self._context(attempt)

    def _enter(self, attempt: Attempt, phase: str, work: float) -> None:
        state = self.hosts[attempt.process.host]
        self._advance(state)
        attempt.phase, attempt.left, attempt.total = phase, work, work
        if attempt not in state.active:
            state.active.append(attempt)
        if phase == "prefill":
            self._memory(state)  # sets the rates as well
        else:
            self._rates(state)

    def _done(self, attempt: Attempt) -> None:
        """End the phase that shares the host; the host's integrals are at ``now``."""
        job, phase = attempt.job, attempt.phase
        state = self.hosts[attempt.process.host]
        if phase == "app":
            state.active.remove(attempt)
            self._infer(attempt)
        elif phase == "prefill":
            attempt.prefilled = self.now
            if self._fails(attempt, "prefill"):
                self._inferred(attempt, failed=True)
                return
            work = job.output_tokens / job.stream.model.decode * job.noise
            attempt.output = job.output_tokens
            if self._fails(attempt, "decode"):
                work, attempt.output = work / 2, job.output_tokens // 2
            self._enter(attempt, "decode", work)
        else:
            self._inferred(attempt, failed=attempt.domain is not None)

    def _inferred(self, attempt: Attempt, *, failed: bool) -> None:
        state = self.hosts[attempt.process.host]
        self._measure(attempt, state)
        attempt.decoded, attempt.failed_inference = self.now, failed
        state.active.remove(attempt)
        if not failed:
            self._fails(attempt, "after")
        attempt.phase = "after"
        self._memory(state)
        self._timer(attempt, "after", self.system.overhead)

    def _measure(self, attempt: Attempt, state: _HostState) -> None:
        attempt.pressure += state.pressure
        attempt.throttled += state.throttled
        anonymous, file = self._resident(attempt.process, state)
        attempt.memory_anon, attempt.memory_file = anonymous, file
        attempt.memory_peak = max(attempt.memory_start, anonymous + file)

    def _limit(self, attempt: Attempt, _: object) -> None:
        """The job's time limit: it raises where it is."""
        if attempt.end is not None or attempt.phase in ("killed", "after"):
            return
        state = self.hosts[attempt.process.host]
        self._advance(state)
        attempt.domain, attempt.error = "timeout", "TimeLimitExceeded"
        self._release(attempt)
        if attempt.phase in ("prefill", "decode"):
            attempt.output = (
                0 if attempt.phase == "prefill" else int(attempt.output * (1 - attempt.left / attempt.total))
            )
            self._inferred(attempt, failed=True)
            return
        if attempt in state.active:
            state.active.remove(attempt)
            self._rates(state)
        self._timer(attempt, "after", self.system.overhead)

    def _fails(self, attempt: Attempt, where: str) -> bool:
        for failure, doomed in zip(attempt.job.stream.failures, attempt.job.fails, strict=True):
            if failure.where != where or not failure.within[0] <= self.now <= failure.within[1]:
                continue
            if (self.random.random() < failure.share) if failure.each_attempt else doomed:
                attempt.domain, attempt.error = failure.domain, failure.error
                if attempt.number <= failure.retries:
                    attempt.outcome = "retry"
                return True
        return False

    def _end(self, attempt: Attempt) -> None:
        attempt.end = self.last = self.now
        attempt.phase = "ended"
        attempt.beside = (self.busy_total - attempt.beside) / max(1e-9, self.now - attempt.start)
        worker = self.workers[attempt.process.worker]
        worker.running = None
        self.busy -= 1
        if attempt.outcome == "retry":
            delay = max(failure.retry_delay for failure in attempt.job.stream.failures)
            self._put(attempt.job, attempt.number + 1, self.now, delay, attempt)
        elif attempt.domain is not None:
            attempt.outcome = "internal_error"
        stream = attempt.job.stream
        if attempt.outcome != "retry" and stream.closed_jobs and self.drawn[id(stream)]:
            self.push(self.now + stream.think, "request", stream, 1)
        self._free(worker)

    # --- what is shared -------------------------------------------------------------------------

    def _change(self, state: _HostState, _: object) -> None:
        self._advance(state)
        self._rates(state)

    def _complete(self, state: _HostState, version: int) -> None:
        if version != state.version:
            return
        self._advance(state)
        done = [attempt for attempt in state.active if attempt.left <= 1e-9]
        for attempt in done:
            if attempt.phase != "killed":
                self._done(attempt)
        if not done:
            self._rates(state)

    def _advance(self, state: _HostState) -> None:
        step = self.now - state.at
        if step <= 0:
            return
        for attempt in state.active:
            attempt.left -= attempt.speed * step
            if attempt.phase != "app":
                attempt.cpu += attempt.cpu_rate * step
                attempt.cpu_wait += attempt.wait_rate * step
            lost, rates = attempt.lost, attempt.lose
            lost[0] += rates[0] * step
            lost[1] += rates[1] * step
            lost[2] += rates[2] * step
            lost[3] += rates[3] * step
        state.pressure += state.cpu_some * step
        state.throttled += state.throttle * step
        state.at = self.now

    def _context(self, attempt: Attempt) -> float:
        return (attempt.job.input_tokens + attempt.job.output_tokens) * attempt.job.stream.model.context

    def _resident(self, process: Process, state: _HostState) -> tuple[float, float]:
        """Anonymous and file part of a process; its context is allotted when an inference begins."""
        anonymous = float(process.pool.base) + sum(model.anonymous for model in process.models.values())
        anonymous += sum(
            self._context(a) for a in state.active if a.process is process and a.phase in ("prefill", "decode")
        )  # fmt: skip
        weights = sum(model.weights for model in process.models.values())
        return anonymous, weights * (1 - state.missing / state.file if state.file else 1.0)

    def _memory(self, state: _HostState) -> None:
        """Settle what is resident on a host, kill what does not fit, then the rates."""
        self._advance(state)
        processes = [
            w.process for w in self.workers if w.process is not None and w.process.host == state.host.name
        ]  # fmt: skip
        state.file = sum({m.name: m.weights for p in processes for m in p.models.values()}.values())
        state.anonymous = sum(self._resident(p, state)[0] for p in processes)
        limit, base = state.host.memory, state.host.used
        if state.pool is not None and state.pool.memory_limit is not None:
            limit, base = state.pool.memory_limit, 0
        room = limit - base - state.anonymous
        state.missing = min(state.file, max(0.0, state.file - room))
        if processes and room < LEAST_FILE_SHARE * state.file:
            largest = max(processes, key=lambda p: (self._resident(p, state)[0], p.born, p.worker))
            self._killed(self.workers[largest.worker], "memory")
            return
        for process in processes:
            anonymous, file = self._resident(process, state)
            if not process.memory or process.memory[-1][1:] != (file, anonymous):
                process.memory.append((self.now, file, anonymous))
        self._rates(state)

    def _rates(self, state: _HostState) -> None:
        """Set each inference's speed and the host's rates from who is in which phase."""
        host, pool, active = state.host, state.pool, state.active
        threads = pool.threads if pool is not None else 1
        cpus = host.cores if pool is None or pool.cpus is None else pool.cpus
        burning = sum(n for begin, end, n in host.burners if begin <= self.now < end)
        inside = 0 if host.burners_apart else burning
        locked = [a for a in active if a.phase in host.lock_phases] if host.lock_share else []
        f_lock = share(len(locked), host.lock_share, 1).rate / host.lock_share if locked else 1.0
        running = sum(1 if a.phase == "app" else threads for a in active)
        activity = max((a.job.stream.model.activity for a in active), default=0.97)
        asleep = f_lock if locked and not host.lock_spins else 1.0
        wanted = activity * (1 - (1 - asleep) * len(locked) / len(active)) if active else activity
        cores = share(running, wanted, cpus, inside)
        f_cpu = cores.rate / wanted if active else 1.0
        used = cores.rate * running
        f_quota, held = 1.0, 0.0
        if pool is not None and pool.quota is not None and active:
            asked = cores.rate * threads if pool.quota_each else used
            f_quota = min(1.0, pool.quota / asked)
            held = 1 - f_quota
        total = used * f_quota + (cores.served - used)
        f_smt = 1.0
        if host.physical and total > host.physical:
            f_smt = (host.physical + host.smt_yield * (total - host.physical)) / total
        decoding = [a for a in active if a.phase == "decode"]
        demand = sum(a.job.stream.model.traffic for a in decoding) * f_cpu * f_quota * f_smt * f_lock
        f_bandwidth = min(1.0, host.bandwidth / demand) if demand else 1.0
        # Background work wakes up for moments; where no core is free, somebody waits that long.
        stray = host.background * cores.full
        state.cpu_some = 1 - (1 - cores.some) * (1 - stray) * (1 - held) if active or inside else stray
        state.throttle = held
        running_share = cores.waiting / running if running else 0.0
        memory_stalled, used_now, read, next_at = 1.0, cores.served - used, 0.0, _INFINITE
        faulting = len([a for a in active if a.phase in ("prefill", "decode")])
        for attempt in active:
            phase = attempt.phase
            mine = 1 if phase == "app" else threads
            own_lock = f_lock if locked and phase in host.lock_phases else 1.0
            own_bandwidth = f_bandwidth if phase == "decode" else 1.0
            speed = f_cpu * f_quota * f_smt * own_lock * own_bandwidth
            f_memory = 1.0
            if state.missing and phase != "app":
                # Every pass over the weights reads what is missing: one for a prefill, one for each token decoded.
                model = attempt.job.stream.model
                unit = attempt.total if phase == "prefill" else attempt.job.noise / model.decode
                reading = state.missing * min(1.0, model.weights / state.file) * faulting / host.disk
                f_memory = (unit / speed) / (unit / speed + reading)
                memory_stalled *= f_memory
                read += (1 - f_memory) * host.disk / faulting
            attempt.speed = speed * f_memory
            factors = (f_cpu * f_quota, own_bandwidth, own_lock * f_smt, f_memory)
            slow = -math.log(attempt.speed) if attempt.speed < 1 else 0.0
            if slow > 1e-12:
                lost = 1 - attempt.speed
                attempt.lose = tuple(-math.log(f) / slow * lost for f in factors)  # type: ignore[assignment]
            else:
                attempt.lose = (0.0, 0.0, 0.0, 0.0)
            attempt.cpu_rate = mine * cores.rate * f_quota * f_memory
            attempt.wait_rate = mine * (running_share + cores.rate * held) * f_memory + stray / max(1, len(active))
            used_now += attempt.cpu_rate
            if attempt.speed > 0:
                next_at = min(next_at, self.now + max(0.0, attempt.left) / attempt.speed)
        state.version += 1
        if active:
            self.push(next_at, "complete", state, state.version)
        line = state.line
        line.at.append(self.now)
        line.cores.append(used_now + (burning if host.burners_apart else 0) + host.background)
        line.cpu_some.append(state.cpu_some)
        line.memory_some.append(1 - memory_stalled)
        line.memory_full.append(1 - memory_stalled if len(active) == 1 else 0.0)
        line.read.append(read)
        line.throttled.append(state.throttled)
        line.anonymous.append(state.anonymous)
        line.file.append(state.file - state.missing)
