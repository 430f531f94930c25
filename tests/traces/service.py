"""A service of workers behind a queue, stepped through time; what is true of it is what comes out of a changed one."""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace

STEP = 0.005


@dataclass
class Prompt:
    """One job: when it was put, by which request of which bulk, and its tokens. The rest is what became of it."""

    put: float
    request: int
    tokens_in: int
    tokens_out: int
    bulk: str = "asked"
    worker: int = -1
    start: float = -1.0
    first_token: float = -1.0
    end: float = -1.0
    cpu: float = 0.0
    lacked: float = 0.0


@dataclass(frozen=True)
class Service:
    """``prompts`` as ``(put, request, tokens in, tokens out, bulk)``; a worker reads 400 tokens/s and writes 25.

    ``reserve``: jobs that a worker holds besides the one it runs, filled up in turn as a broker does that hands out
    ahead; ``gap`` seconds before each job; ``load`` seconds before a worker's first; ``slow`` times as long on the
    last worker; ``cores`` that workers and ``burners`` share, of which a job keeps ``uses`` busy; ``later`` times as
    long for the bulk ``asked``; ``together``: with n busy a job runs at 1 / (1 + together * (n - 1)) of its speed.
    """

    prompts: tuple[tuple[float, int, int, int, str], ...]
    workers: int = 4
    reserve: int = 0
    gap: float = 0.002
    load: float = 0.0
    slow: float = 1.0
    cores: float = 16.0
    burners: int = 0
    uses: float = 1.0
    later: float = 1.0
    together: float = 0.0


@dataclass
class Done:
    """What a service did: the prompts with their times, and each second's busy cores and pressure."""

    service: Service
    prompts: list[Prompt]
    seconds: list[tuple[float, float]] = field(default_factory=list)

    @property
    def mine(self) -> list[Prompt]:
        return [prompt for prompt in self.prompts if prompt.bulk == "asked"]

    @property
    def makespan(self) -> float:
        return max(p.end for p in self.mine) - min(p.put for p in self.mine)

    @property
    def stay(self) -> float:
        return sum(p.end - p.put for p in self.mine) / len(self.mine)


@dataclass
class _Desk:
    """A worker: what it holds, what it runs, and how much of that is left."""

    number: int
    held: list[Prompt] = field(default_factory=list)
    now: Prompt | None = None
    pause: float = 0.0
    reading: float = 0.0
    writing: float = 0.0
    warm: bool = False


def work(service: Service) -> Done:
    """Let it work until the last job has ended."""
    prompts = [Prompt(*each) for each in sorted(service.prompts, key=lambda each: each[0])]
    desks = [_Desk(number, warm=service.load == 0) for number in range(service.workers)]
    queue: list[Prompt] = []
    coming, step, open_ = 0, 0, len(prompts)
    busy_cores = wanting = 0.0
    done = Done(service, prompts)
    while open_:
        now = step * STEP
        while coming < len(prompts) and prompts[coming].put <= now + 1e-9:
            queue.append(prompts[coming])
            coming += 1
        _hand_out(service, desks, queue)
        running = [desk for desk in desks if desk.now is not None and desk.pause <= 1e-9]
        demand = len(running) * service.uses + service.burners
        share = min(1.0, service.cores / demand) if demand else 1.0
        speed = (share if service.uses > 0.1 else 1.0) / (1 + service.together * max(0, len(running) - 1))
        for desk in desks:
            if desk.now is None:
                continue
            if desk.pause > 1e-9:
                desk.pause -= STEP
                if desk.pause <= 1e-9 and desk.now.start < 0:
                    desk.now.start = now + STEP
                    desk.pause = 0.0 if desk.warm else service.load
                    desk.warm = True
                continue
            open_ -= _advance(service, desk, now, share, speed)
        busy_cores += min(demand, service.cores) * STEP
        wanting += STEP if demand > service.cores + 1e-9 else 0.0
        step += 1
        if step % round(1 / STEP) == 0:
            done.seconds.append((busy_cores / service.cores, wanting))
            busy_cores = wanting = 0.0
    return done


def _hand_out(service: Service, desks: list[_Desk], queue: list[Prompt]) -> None:
    """Fill up in turn what each worker may hold, and let each idle one begin with what it holds."""
    for depth in range(service.reserve + 1):
        for desk in desks:
            holds = len(desk.held) + (desk.now is not None)
            if queue and holds == depth:
                desk.held.append(queue.pop(0))
    for desk in desks:
        if desk.now is None and desk.held:
            desk.now = desk.held.pop(0)
            desk.now.worker = desk.number
            desk.pause = max(service.gap, STEP)
            longer = service.slow if desk.number == service.workers - 1 else 1.0
            longer *= service.later if desk.now.bulk == "asked" else 1.0
            desk.reading = desk.now.tokens_in / 400 * longer
            desk.writing = desk.now.tokens_out / 25 * longer


def _advance(service: Service, desk: _Desk, now: float, share: float, speed: float) -> int:
    """Work for one step; return 1 where the job has ended in it."""
    prompt = desk.now
    assert prompt is not None
    prompt.cpu += STEP * service.uses * share
    prompt.lacked += STEP * service.uses * (1 - share)
    left = STEP * speed
    if desk.reading > 0:
        desk.reading -= left
        if desk.reading > 0:
            return 0
        left = -desk.reading
        prompt.first_token = now + STEP
    desk.writing -= left
    if desk.writing > 0:
        return 0
    prompt.end, desk.now = now + STEP, None
    return 1


# --- who sends what -----------------------------------------------------------------------------------


def sizes(count: int, seed: int, spread: float = 0.3) -> list[tuple[int, int]]:
    """Return tokens in and out of so many prompts, of about a second each."""
    chance = random.Random(seed)
    return [
        (max(8, int(100 * chance.lognormvariate(0, spread))), max(2, int(18 * chance.lognormvariate(0, spread))))
        for _ in range(count)
    ]


def at_once(count: int, seed: int = 1, every: float = 0.0005, spread: float = 0.3, bulk: str = "asked",
            begin: float = 0.0) -> tuple[tuple[float, int, int, int, str], ...]:  # fmt: skip
    """Return what one request puts, one job ``every`` so many seconds."""
    return tuple((begin + n * every, 0, a, b, bulk) for n, (a, b) in enumerate(sizes(count, seed, spread)))


def poisson(count: int, rate: float, seed: int = 1) -> tuple[tuple[float, int, int, int, str], ...]:
    """Return what independent users send, a request a job."""
    chance, now, found = random.Random(seed), 0.0, []
    for n, (a, b) in enumerate(sizes(count, seed)):
        found.append((now, n, a, b, "asked"))
        now += chance.expovariate(rate)
    return tuple(found)


def bursts(count: int, rate: float, seed: int = 1) -> tuple[tuple[float, int, int, int, str], ...]:
    """Return what comes in heaps of 1 to 60 jobs, at ``rate`` jobs/s in the long run: the same jobs in the same order
    at every rate."""
    chance, now, found, n = random.Random(seed), 0.0, [], 0
    told = sizes(count, seed)
    while n < count:
        heap = min(count - n, min(60, int(chance.paretovariate(1.1))))
        found += [(now / rate, n + k, *told[n + k], "asked") for k in range(heap)]
        n += heap
        now += heap * chance.uniform(0.2, 1.8)
    return tuple(found)


def changed(service: Service, **what: object) -> Done:
    """Let the service work with something changed."""
    return work(replace(service, **what))  # type: ignore[arg-type]
