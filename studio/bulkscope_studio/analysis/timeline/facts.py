"""What is known of a bulk and of what ran beside it, as columns of numbers.

Times are seconds since ``origin_ns``; absent is NaN, never 0. Strings are codes into a tuple of names, -1 for none.
The tables have the columns of ``queries/report_attempts.sql``, ``report_requests.sql`` and ``explain_*.sql``.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

# As Celery's parent process names what its children have come to.
_KILLED = r"WorkerLost|^billiard\.exceptions\.(TimeLimitExceeded|Terminated)$"

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]
Flags = NDArray[np.bool_]

# What ran in this time before the bulk shows how inferences go with another number of workers.
HISTORY_NS = 3600 * 10**9


@dataclass(frozen=True, slots=True)
class Attempts:
    """Attempts at jobs, the bulk's own (``mine``) and others'; ``ended`` ones have ``start`` and ``end``.

    ``put`` is when the sender says that it put it (first attempts only), ``enqueue`` that or what the worker says.
    ``decides``: it tells how its job stands. ``silent``: begun, not ended, and not heard of for ``thresholds.QUIET_S``;
    ``called_off``: to be tried again, or not heard of, and then cancelled.
    ``without_end`` are those of them whose process began another job since, so that the end was not recorded.
    ``ready`` is when it could be taken: enqueue plus scheduled delay. ``killed``: ended with their process, by the
    account of its parent, and of these
    ``crashed``: not for a time limit, and not because somebody wanted it.
    """

    mine: Flags
    job: Codes
    attempt: Floats
    put: Floats
    enqueue: Floats
    ready: Floats
    start: Floats
    end: Floats
    seen: Floats
    wait: Floats
    worker: Codes
    host: Codes
    queue: Codes
    retried: Flags
    ok: Flags
    decides: Flags
    called_off: Flags
    silent: Flags
    without_end: Flags
    ended: Flags
    killed: Flags
    crashed: Flags
    trace: pa.ChunkedArray
    domain: pa.ChunkedArray
    error: pa.ChunkedArray

    @property
    def failed(self) -> Flags:
        """Return which have failed: ended, not well, and not to be tried again."""
        return np.asarray(self.ended & ~self.ok & ~self.retried)


@dataclass(frozen=True, slots=True)
class Inferences:
    """Inferences of the bulk's models; units as in the conventions (s, bytes, tokens, shares)."""

    mine: Flags
    job: Codes
    model: Codes
    worker: Codes
    host: Codes
    start: Floats
    end: Floats
    ok: Flags
    prefill: Floats
    decode: Floats
    input_tokens: Floats
    output_tokens: Floats
    cached_tokens: Floats
    cpu_time: Floats
    cpu_pressure: Floats
    cpu_throttled: Floats
    cpu_wait: Floats
    memory_peak: Floats
    memory_file: Floats
    memory_anon: Floats
    memory_limit: Floats
    trace: pa.ChunkedArray

    @property
    def prefilled_tokens(self) -> Floats:
        """Return the input tokens that were not cached; where no cache is told of, all of them."""
        return np.asarray(self.input_tokens - np.nan_to_num(self.cached_tokens))


@dataclass(frozen=True, slots=True)
class Worker:
    """A process that works on jobs: what it may use, and when it is known to have lived (NaN: not known).

    ``code`` is what the other tables call it; two may have one ``name``, where a container was restarted in place.
    """

    code: int
    name: str
    host: int
    first: float
    last: float
    cpus: float
    cpu_set: str | None
    memory_utilization: float
    container: str | None

    def shares_set(self) -> bool:
        """Tell whether its cores are those of its set, and not a quota's: others with that set then have the same."""
        return self.cpu_set is not None and self.cpus >= cpu_count(self.cpu_set)


def cpu_count(cpu_set: str) -> int:
    """Return how many CPUs a list such as ``0-3,8`` names; 0 for what is no list."""
    try:
        pairs = [[int(end) for end in part.split("-")] for part in cpu_set.split(",")]
    except ValueError:
        return 0
    return sum(pair[-1] - pair[0] + 1 for pair in pairs)


@dataclass(frozen=True, slots=True)
class Hosts:
    """Samples of hosts while the bulk ran."""

    host: Codes
    time: Floats
    cpu: Floats
    memory: Floats
    memory_total: Floats
    memory_used: Floats
    cpu_pressure: Floats
    memory_pressure: Floats
    major_faults: Floats


@dataclass(frozen=True, slots=True)
class Requests:
    """API requests of the bulk that could send jobs; ``size`` jobs each (NaN: not known)."""

    start: Floats
    end: Floats
    size: Floats
    outcome: tuple[str | None, ...]


@dataclass(frozen=True, slots=True)
class Unbegun:
    """Jobs that nobody began, and sends in vain.

    ``called_off`` and ``not_sent`` say of each that was cancelled, or that the broker did not take, why. ``repeated``
    jobs were sent once more under the id of one before, ``refused`` ones were not taken for that.
    """

    called_off: tuple[str, ...] = ()
    not_sent: tuple[str, ...] = ()
    repeated: int = 0
    refused: int = 0


@dataclass(frozen=True, slots=True)
class Facts:
    """All of it. ``now`` is when it was looked at, or when anything was last heard: ``unheard`` seconds earlier;
    ``heard_first`` when anything was first; ``lost`` are silent attempts as ``queries/lost.sql`` has them;
    ``sampled`` says that a sampler left jobs out.
    """

    id: str
    origin_ns: int
    now: float
    heard_first: float
    unheard: float
    attempts: Attempts
    inferences: Inferences
    requests: Requests
    workers: tuple[Worker, ...]
    hosts: Hosts
    drops: tuple[tuple[str, str, int], ...] | None
    lost: tuple[dict[str, object], ...]
    models: tuple[str, ...]
    worker_names: tuple[str, ...]
    host_names: tuple[str, ...]
    job_ids: tuple[str, ...]
    unbegun: Unbegun = Unbegun()
    sampled: str | None = None

    def job_name(self, row: int) -> str:
        """Return the id of the job in a row of ``attempts``."""
        code = int(self.attempts.job[row])
        return "without an id" if code < 0 else self.job_ids[code]


class _Names:
    """Gives strings numbers, the same in all tables."""

    def __init__(self) -> None:
        self.known = pa.array([], pa.string())

    def codes(self, column: pa.ChunkedArray) -> Codes:
        """Return each string's number, -1 where there is none."""
        names = pc.drop_null(pc.unique(pc.cast(column, pa.string())))
        new = names.filter(pc.invert(pc.is_in(names, value_set=self.known)))
        self.known = pa.concat_arrays([self.known, new])
        index = pc.fill_null(pc.index_in(pc.cast(column, pa.string()), value_set=self.known, skip_nulls=True), -1)
        found: Codes = index.to_numpy().astype(np.int64)
        return found


class _Processes:
    """Gives workers numbers, the same in all tables: one for each instance of a name.

    A parent that tells of a killed process knows its id, and not its instance: it is the name's only one, else one of
    its own.
    """

    def __init__(self) -> None:
        self.names: list[str] = []
        self._numbers: dict[tuple[str, str | None], int] = {}
        self._of: dict[str, list[int]] = {}  # by name
        self._unknown: dict[str, int] = {}  # by name: one of which no instance is known yet

    def codes(self, table: pa.Table) -> Codes:
        """Return the number of the worker of each row, -1 where there is none."""
        name, instance = (pc.cast(table[column], pa.string()) for column in ("worker", "instance"))
        key = pc.binary_join_element_wise(name, instance, "\0", null_handling="replace", null_replacement="\1")
        pairs = pc.unique(key)
        numbers = pa.array([self._number(*pair.split("\0", 1)) for pair in pairs.to_pylist()], pa.int64())
        found: Codes = numbers.take(pc.index_in(key, value_set=pairs)).to_numpy()
        return found

    def _number(self, name: str, instance: str | None) -> int:
        if name == "\1":
            return -1
        instance = None if instance == "\1" else instance
        known = self._numbers.get((name, instance))
        if known is not None:
            return known
        others = self._of.setdefault(name, [])
        if instance is None:
            number = others[0] if len(others) == 1 else self._new(name)
            if number not in others:
                self._unknown[name] = number
        else:
            number = self._unknown.pop(name, -1)
            number = self._new(name) if number < 0 else number
        if number not in others:
            others.append(number)
        self._numbers[name, instance] = number
        return number

    def _new(self, name: str) -> int:
        self.names.append(name)
        return len(self.names) - 1


def floats(column: pa.ChunkedArray) -> Floats:
    """Return a column of numbers, absent as NaN."""
    found: Floats = pc.cast(column, pa.float64(), safe=False).to_numpy()
    return found


def seconds_since(column: pa.ChunkedArray, origin_ns: int) -> Floats:
    """Return a column of times in ns as seconds since ``origin_ns``, absent as NaN."""
    # Subtracted as integers: a double holds the nanoseconds of today only to 256. The cast is unchecked, since 104 days
    # are more than it holds exactly, and a clock that was never set is 50 years off.
    since = pc.subtract(pc.cast(column, pa.int64()), pa.scalar(origin_ns, pa.int64()))
    return floats(since) / 1e9


def amounts(column: pa.ChunkedArray) -> Floats:
    """Return a column of numbers that cannot be below 0; what is not one (a sender's error) is absent."""
    found = floats(column)
    with np.errstate(invalid="ignore"):
        return np.where((found >= 0) & (found < np.inf), found, np.nan)


def flags(column: pa.ChunkedArray) -> Flags:
    """Return a column of booleans, absent as False."""
    found: Flags = pc.fill_null(pc.cast(column, pa.bool_()), False).to_numpy()
    return found


def firsts(start: Floats, *of: Codes) -> Flags:
    """Tell which rows (rows,) are the earliest of all that have the same codes in every column of ``of``."""
    order = np.lexsort((start, *of))
    found = np.zeros(len(order), np.bool_)
    if len(order):
        keys = np.column_stack([codes[order] for codes in of])
        found[order] = np.append(True, np.any(keys[1:] != keys[:-1], axis=1))
    return found


def by_code(codes: Codes, rows: Codes) -> dict[int, Codes]:
    """Return those of ``rows`` that have each code of ``codes``, in their order; by one sort, not a look for each."""
    order = rows[np.argsort(codes[rows], kind="stable")]
    names, begins = np.unique(codes[order], return_index=True)
    return dict(zip(names.tolist(), np.split(order, begins[1:]), strict=True)) if len(names) else {}


class Reader:
    """Turns tables into columns; one a bulk, since it gives names their numbers."""

    def __init__(self, origin_ns: int) -> None:
        self._origin_ns = origin_ns
        self._jobs, self._hosts, self._models, self._queues = _Names(), _Names(), _Names(), _Names()
        self._processes = _Processes()

    def _time(self, column: pa.ChunkedArray) -> Floats:
        return seconds_since(column, self._origin_ns)

    def _span(self, table: pa.Table) -> tuple[Floats, Floats]:
        # The decoder takes none that ends before it starts; in a store of another's it has taken no time.
        start, end = self._time(table["start_ns"]), self._time(table["end_ns"])
        return start, np.maximum(start, end)

    def attempts(
        self, own: pa.Table, others: pa.Table, silent: Collection[str], without_end: Collection[str] = ()
    ) -> Attempts:
        """Join the bulk's attempts and the others'; ``silent`` and ``without_end`` are ids of spans."""
        table = pa.concat_tables([own.select(others.column_names), others], promote_options="permissive")
        start, end, delay = *self._span(table), amounts(table["delay"])
        enqueue = self._time(table["enqueue_ns"])

        def among(spans: Collection[str]) -> Flags:
            if not spans:
                return np.zeros(len(table), np.bool_)
            return np.asarray(pc.is_in(table["span_id"], value_set=pa.array(sorted(spans), pa.string())).to_numpy())

        return Attempts(
            mine=np.arange(len(table)) < len(own),
            job=self._jobs.codes(table["job_id"]),
            attempt=np.nan_to_num(floats(table["attempt"]), nan=1.0),
            put=self._time(table["sent_ns"]),
            enqueue=enqueue,
            ready=enqueue + np.nan_to_num(delay),
            start=start,
            end=end,
            seen=self._time(table["seen_ns"]),
            wait=floats(table["wait"]),
            worker=self._processes.codes(table),
            host=self._hosts.codes(table["host_name"]),
            queue=self._queues.codes(table["queue"]),
            retried=flags(table["retried"]),
            ok=flags(table["ok"]),
            decides=flags(table["decides"]),
            called_off=np.asarray(pc.is_valid(table["called_off"]).to_numpy()),
            silent=among(silent),
            without_end=among(without_end),
            ended=np.isfinite(start) & np.isfinite(end),
            killed=flags(pc.match_substring_regex(pc.cast(table["error_type"], pa.string()), _KILLED)),
            crashed=flags(pc.match_substring(pc.cast(table["error_type"], pa.string()), "WorkerLost")),
            trace=table["trace_id"],
            domain=table["failure_domain"],
            error=table["error_type"],
        )

    def inferences(self, table: pa.Table) -> Inferences:
        """Read ``explain_inferences.sql``."""
        numbers = {
            name: amounts(table[name])
            for name in (
                "prefill", "decode", "input_tokens", "output_tokens", "cached_tokens", "cpu_time",
                "cpu_pressure", "cpu_throttled", "cpu_wait", "memory_peak", "memory_file", "memory_anon",
                "memory_limit",
            )
        }  # fmt: skip
        start, end = self._span(table)
        return Inferences(
            mine=flags(table["mine"]),
            job=self._jobs.codes(table["job_id"]),
            model=self._models.codes(table["model"]),
            worker=self._processes.codes(table),
            host=self._hosts.codes(table["host_name"]),
            start=start,
            end=end,
            ok=flags(table["ok"]),
            trace=table["trace_id"],
            **numbers,
        )

    def requests(self, table: pa.Table) -> Requests:
        """Read ``report_requests.sql``."""
        return Requests(
            *self._span(table), floats(table["bulk_size"]), tuple(table["outcome"].to_pylist()),
        )  # fmt: skip

    def hosts(self, table: pa.Table) -> Hosts:
        """Read ``explain_hosts.sql``."""
        names = ("cpu", "memory", "memory_total", "memory_used", "cpu_pressure", "memory_pressure", "major_faults")
        return Hosts(
            self._hosts.codes(table["host_name"]),
            self._time(table["time_ns"]),
            *(floats(table[name]) for name in names),
        )

    def workers(self, table: pa.Table) -> tuple[Worker, ...]:
        """Read ``explain_workers.sql``."""
        first, last = self._time(table["first_ns"]), self._time(table["last_ns"])
        hosts = self._hosts.codes(table["host_name"])
        cpus, memory, codes = floats(table["cpus"]), floats(table["memory_utilization"]), self._processes.codes(table)
        return tuple(
            Worker(
                int(codes[number]), row["worker"], int(hosts[number]), float(first[number]), float(last[number]),
                float(cpus[number]), row["cpu_set"], float(memory[number]), row["container_id"],
            )
            for number, row in enumerate(table.to_pylist())
        )  # fmt: skip

    def names(self) -> dict[str, tuple[str, ...]]:
        """Return what the codes stand for, once all tables are read."""
        return {
            "models": tuple(self._models.known.to_pylist()), "worker_names": tuple(self._processes.names),
            "host_names": tuple(self._hosts.known.to_pylist()), "job_ids": tuple(self._jobs.known.to_pylist()),
        }  # fmt: skip
