"""How customers that are not always active share servers: the one law behind cores, locks and their waiting.

A customer (a thread, a job) is active for a share of its time when nobody else is there; then it needs a server
(a core, a lock). With more active customers than servers they share them equally. That is the finite-source queue
M/M/c//N under processor sharing, a birth-death chain with a closed form (Kleinrock 1975, section 3.8).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache


@dataclass(frozen=True, slots=True)
class Sharing:
    """Steady state; probabilities and mean numbers.

    ``rate`` is the share of its time in which one customer is served, ``some`` the probability that an active
    customer has no server, ``full`` the one that no server is free, ``waiting`` the mean number of customers without
    a server (permanent ones left out), ``served`` the mean number of servers in use, permanent customers included.
    """

    rate: float
    some: float
    full: float
    waiting: float
    served: float


@cache
def share(customers: int, activity: float, servers: int, permanent: int = 0) -> Sharing:
    """Return the steady state of ``customers`` with ``activity`` (0..1, alone) and ``permanent`` ones of activity 1."""
    if customers == 0:
        return Sharing(0.0, float(permanent > servers), float(permanent >= servers), 0.0, min(permanent, servers))
    if activity >= 1:
        every = customers + permanent
        rate = min(1.0, servers / every)
        return Sharing(
            rate, float(every > servers), float(every >= servers), customers * (1 - rate), min(every, servers)
        )
    ratio = activity / (1 - activity)
    weights = [1.0]
    for active in range(1, customers + 1):
        slow = max(1.0, (permanent + active) / servers)
        weights.append(weights[-1] * (customers - active + 1) / active * ratio * slow)
    total = sum(weights)
    rate = some = full = waiting = served = 0.0
    for active, weight in enumerate(weights):
        probability, every = weight / total, permanent + active
        part = min(1.0, servers / every) if every else 1.0
        rate += probability * active * part / customers
        waiting += probability * active * (1 - part)
        served += probability * min(every, servers)
        some += probability * (every > servers)
        full += probability * (every >= servers)
    return Sharing(rate, some, full, waiting, served)
