"""Each verdict as one parameter of a service, from nothing up, and what undoing it truly saves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from tests.traces.service import Done, Service, at_once, bursts, changed, poisson

RATE = 1.0  # jobs/s of a worker, about


@dataclass(frozen=True)
class Row:
    """``make`` gives the service for a value, ``undo`` the same one without what the value does.

    ``stays``: verdicts that may take its place at a higher value, since they say the same and more.
    """

    verdict: str
    values: tuple[float, ...]
    make: Callable[[float], Service]
    undo: Callable[[Service], Done]
    stream: bool = False
    stays: frozenset[str] = frozenset()

    def saved(self, done: Done) -> float:
        """Return what share of the bulk's time undoing it saves."""
        after = self.undo(done.service)
        was, now = (done.stay, after.stay) if self.stream else (done.makespan, after.makespan)
        return (was - now) / was


def _at_once(service: Service) -> Done:
    first = service.prompts[0][0]
    return changed(service, prompts=tuple((first, *each[1:]) for each in service.prompts))


def _sorted(service: Service) -> Done:
    """Let the sender put the longest first."""
    puts = [each[0] for each in service.prompts]
    longest = sorted(service.prompts, key=lambda each: -(each[2] / 400 + each[3] / 25))
    return changed(service, prompts=tuple((put, *each[1:]) for put, each in zip(puts, longest, strict=True)))


def _twice(service: Service) -> Done:
    return changed(service, workers=2 * service.workers, cores=2 * service.cores)


def _long_last(times: float) -> Service:
    usual = at_once(40, seed=3)
    put, request, read, write, bulk = usual[-1]
    return Service((*usual[:-1], (put, request, int(read * times), int(write * times), bulk)))


def _uneven(share: float) -> Service:
    """Every fourth prompt is so many times as long as the others: one of four workers reserves all of them."""
    usual = at_once(48, seed=4, spread=0.05)
    told = [
        (put, request, int(a * (1 + share * (n % 4 == 0))), int(b * (1 + share * (n % 4 == 0))), bulk)
        for n, (put, request, a, b, bulk) in enumerate(usual)
    ]
    return Service(tuple(told), reserve=11)


def _two_bulks(longer: float) -> Service:
    earlier = at_once(40, seed=6, bulk="earlier")
    return Service((*earlier, *at_once(40, seed=7, begin=120.0)), later=longer)


OVERLOAD = frozenset({"overload"})
ROWS = (
    Row("cores_taken", (0, 1, 2, 3, 4, 8, 16),
        lambda n: Service(at_once(40), cores=4, workers=2, burners=int(n)), lambda s: changed(s, burners=0)),
    Row("at_capacity_cores", (1, 2, 3, 4, 6, 8),
        lambda n: Service(at_once(48), cores=2, workers=int(n)), lambda s: changed(s, cores=16.0)),
    Row("waiting_for_sender", (0, 0.1, 0.2, 0.25, 0.3, 0.4, 0.8, 2.0),
        lambda every: Service(at_once(40, every=every)), _at_once),
    Row("slow_hand_out", (0, 0.05, 0.1, 0.15, 0.3, 0.6, 1.5, 7.0),
        lambda gap: Service(at_once(40), gap=gap), lambda s: changed(s, gap=0.0)),
    Row("uneven_hand_out", (0, 0.1, 0.2, 0.4, 1, 2, 5), _uneven, lambda s: changed(s, reserve=0)),
    Row("one_long_job", (1, 2, 4, 8, 16, 40, 100), _long_last, _sorted),
    Row("slow_worker", (1, 1.2, 1.6, 2, 3, 5),
        lambda times: Service(at_once(60), workers=3, slow=times), lambda s: changed(s, slow=1.0)),
    Row("cold_start", (0, 0.3, 0.8, 1.5, 3, 8, 30),
        lambda load: Service(at_once(32), load=load), lambda s: changed(s, load=0.0)),
    Row("slower_than_before", (1, 1.05, 1.15, 1.3, 1.8, 3), _two_bulks, lambda s: changed(s, later=1.0)),
    Row("at_capacity_workers", (2, 4, 8, 16, 40, 100),
        lambda count: Service(at_once(int(count)), workers=4), _twice),
    Row("at_capacity_workers_and_cores", (2, 6, 12, 30, 80),
        lambda count: Service(at_once(int(count)), workers=2, cores=2), _twice),
    Row("at_capacity_workers", (0.1, 0.4, 0.7, 0.9, 1.2, 1.6, 2.5),
        lambda load: Service(poisson(200, load * 4 * RATE)), _twice, True, OVERLOAD),
    Row("at_capacity_workers", (0.1, 0.3, 0.6, 1.0, 1.3, 1.6, 2.0),
        lambda load: Service(bursts(400, load * 4 * RATE)), _twice, True, OVERLOAD),
)  # fmt: skip


def named(row: Row) -> str:
    return f"{row.verdict}{'/stream' if row.stream else ''}/{ROWS.index(row)}"


def without_cpu(service: Service) -> Service:
    """Return the same service with jobs that sleep: they need no core to speak of."""
    return replace(service, uses=0.01)
