"""``bulkscope capacity --sweep``: measures a live system with several worker counts and arrival rates.

Each step is a bulk of its own. What was done is in a file beside the plan, so that the same command goes on where the
last one ended.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import sys
import tempfile
import threading
import time
import urllib.parse
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import httpx
import numpy as np

from bulkscope_studio.rendering.capacity import enough, interval
from bulkscope_studio.rendering.output import lines, say
from bulkscope_studio.sources import resolve
from bulkscope_studio.sources.source import InvalidQuery, Question, Trouble, asked
from bulkscope_studio.sources.studio import StudioSource
from bulkscope_studio.sweep import plan as sweep_plan
from bulkscope_studio.sweep.children import Children, Ended, Stopped
from bulkscope_studio.sweep.plan import Plan, Step
from bulkscope_studio.text.wording import agree, count, number, part, percent, printable, seconds

SCHEMA = "bulkscope.sweep/1"
REQUEST_S = 30.0
# Requests under way at once: more of them wait for a service that no longer answers.
MOST_OPEN = 100
# Of a step's requests; a few refusals are news, many leave no step to measure.
MOST_REFUSED = 0.1
POLL_S = 1.0
MOST_SAID = 300  # bytes of a refusal

__all__ = ["SCHEMA", "Failed", "Stopped", "run"]


class Failed(Exception):
    """The sweep could not go on; the message says why, and what is done stays done."""

    def __init__(self, message: str) -> None:
        super().__init__(lines(message))


def run(
    path: Path, db: Path, *, restart: bool = False, model: str | None = None, slo: float | None = None,
    quantile: float | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Run what is left of the plan and return what was found.

    Raises ``InvalidQuery`` for a plan that cannot be run, ``Trouble`` where no studio runs,
    ``Failed`` when the system under test does not do its part, ``Stopped`` after a signal: in both cases every process
    that was started has ended.
    """
    try:
        plan = sweep_plan.read(path)
    except sweep_plan.Bad as bad:
        raise InvalidQuery(f"{path}: {bad}") from bad
    quantile, model = plan.quantile if quantile is None else quantile, model or plan.model
    asked(Question(quantile=quantile))  # what means nothing is said before hours of measuring
    with resolve.running(db, _warn) as studio:
        if studio is None:
            raise Trouble(f"no studio runs on {db}: start 'bulkscope studio --db {db}' in another terminal")
        receiver = studio.receiver
    with _State.of(path, plan, restart) as state:
        sweep = _Sweep(plan, db, receiver, state, model)
        sweep.run()
        return _result(plan, sweep, model, plan.slo if slo is None else slo, quantile)


@dataclass(slots=True)
class _State:
    """The file beside the plan: a line for what began and what was done."""

    file: IO[str]
    plan: Plan
    begun: dict[str, int] = field(default_factory=dict)
    done: dict[str, dict[str, Any]] = field(default_factory=dict)

    @classmethod
    @contextlib.contextmanager
    def of(cls, path: Path, plan: Plan, restart: bool) -> Iterator[_State]:
        place = path.with_name(path.name + ".state.jsonl")
        with place.open("a+", encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise Trouble(f"another sweep of this plan is running: {place} is locked") from error
            state = cls(file, plan)
            state._read(place, restart)
            yield state

    def _read(self, place: Path, restart: bool) -> None:
        self.file.seek(0)
        digest = None
        text = self.file.read()
        if text and not text.endswith("\n"):  # cut off by a crash: the line is repeated by what it was about
            self.file.write("\n")
        for line in text.splitlines():
            try:
                entry = json.loads(line)
                event = entry["event"]
                if event == "plan":
                    digest = entry["digest"]
                    self.done.clear()
                elif event == "begun":
                    self.begun[entry["step"]] = self.begun.get(entry["step"], 0) + 1
                elif event == "done":
                    self.done[entry["step"]] = entry
            except (ValueError, KeyError, TypeError):
                continue
        if digest is not None and digest != self.plan.digest and not restart:
            raise Trouble(
                f"the plan or its prompts have changed since the steps in {place} were done; --restart repeats them"
            )
        if restart or digest is None:
            self.done.clear()
            self.add("plan", digest=self.plan.digest)

    def add(self, event: str, **more: object) -> None:
        """Write a line, and have it on disk before what it says is relied on."""
        self.file.write(json.dumps({"event": event, **more}) + "\n")
        self.file.flush()
        os.fsync(self.file.fileno())

    def bulk(self, key: str) -> str:
        """Begin a step; each time under an id of its own, since what an earlier one left is in the store."""
        tries = self.begun.get(key, 0) + 1
        self.begun[key] = tries
        bulk = f"sweep-{self.plan.name}-{key}" + (f".{tries}" if tries > 1 else "")
        self.add("begun", step=key, bulk=bulk)
        return bulk

    def end(self, key: str, bulk: str, **found: object) -> None:
        """A step is done."""
        entry = {"step": key, "bulk": bulk, **found}
        self.done[key] = entry
        self.add("done", **entry)


@dataclass(slots=True)
class _Sent:
    """What came of a step's requests, counted by the threads that send them."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    open: int = 0
    accepted: int = 0  # jobs
    refused: int = 0  # requests
    requests: int = 0
    problem: str = ""
    late_s: float = 0.0


class _Sweep:
    """The steps that are left, one after the other."""

    def __init__(self, plan: Plan, db: Path, receiver: str, state: _State, model: str | None = None) -> None:
        self.plan, self.db, self.receiver, self.state, self.model = plan, db, receiver, state, model
        self.notes: list[str] = []
        # No proxy: it is the service that is measured. Each request has a connection of its own, as clients' have.
        self._client = httpx.Client(
            timeout=REQUEST_S, trust_env=False, follow_redirects=True,
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=0),
        )  # fmt: skip
        self._deadline = time.monotonic() + plan.limit

    def run(self) -> None:
        """Run them; what the limit of time left undone is a note."""
        plan = self.plan
        left = [step for step in plan.steps if not self._is_done(step)]
        _tell(f"{count(len(plan.steps), 'step')}, {len(plan.steps) - len(left)} done before")
        if not left:
            return
        with (
            tempfile.TemporaryDirectory(prefix="bulkscope-sweep-") as name,
            Children(Path(name), plan.workers.grace) as workers,
        ):
            for n, step in enumerate(left):
                if time.monotonic() >= self._deadline:
                    self.notes.append(
                        f"The limit of {seconds(plan.limit)} was reached with {count(len(left) - n, 'step')} left: the "
                        "same command continues with them."
                    )
                    break
                if (problem := self._too_much(step)) is not None:
                    self.notes.append(problem)
                    continue
                try:
                    self._step(step, workers, f"[{len(plan.steps) - len(left) + n + 1}/{len(plan.steps)}]")
                except Ended as ended:
                    raise Failed(str(ended)) from ended
        if not self.state.done:
            raise Failed("no step was done within the limit of time")

    def _is_done(self, step: Step) -> bool:
        done = self.state.done.get(step.key)
        return done is not None and self._progress(str(done["bulk"]))["ended"] > 0

    def _too_much(self, step: Step) -> str | None:
        """Say why a rate need not be tried: the same workers, with all the jobs at once, did fewer."""
        closed = self.state.done.get(Step(step.workers, None, 0).key)
        if step.rate is None or closed is None or closed.get("rate_per_s") is None:
            return None
        if step.rate < closed["rate_per_s"]:
            return None
        return (
            f"Step {step.key} was left out: {count(step.workers, 'worker')} sustained "
            f"{number(closed['rate_per_s'])} jobs/s, so the queue would grow without end."
        )

    def _step(self, step: Step, workers: Children, mark: str) -> None:
        if len(workers) < step.workers:
            self._join(step.workers, workers)
        bulk = self.state.bulk(step.key)
        began = time.monotonic()
        if step.rate is None:
            _tell(f"{mark} {bulk}: {count(step.jobs, 'job')} at once")
            sent = self._send(bulk, [0.0] * (step.jobs if self.plan.request.takes_one else 1), step.jobs, workers)
        else:
            at = _arrivals(self.plan.seed, step, self.plan.seconds)
            _tell(f"{mark} {bulk}: {count(len(at), 'job')} at {number(step.rate)}/s in {seconds(self.plan.seconds)}")
            sent = self._send(bulk, at, len(at), workers)
        self._drain(bulk, sent.accepted, workers)
        if sent.late_s > 0.1:
            self.notes.append(
                f"Step {step.key}: a request was sent {seconds(sent.late_s)} late: this machine is short of CPU."
            )
        if sent.refused:
            self.notes.append(
                f"Step {step.key}: {part(sent.refused, sent.requests, 'request')} "
                f"{agree(sent.refused, 'was', 'were')} refused ({sent.problem})."
            )
        rate = self._sustained(bulk, step.workers) if step.rate is None else None
        self.state.end(
            step.key, bulk, jobs=sent.accepted, refused=sent.refused, rate_per_s=rate,
            seconds=round(time.monotonic() - began, 3),
        )  # fmt: skip

    def _sustained(self, bulk: str, workers: int) -> float | None:
        found = _ask(self.db, Question([bulk], workers=workers))
        if self.model is not None and not _models(found, self.model):
            _ask(self.db, Question([bulk], model=self.model))  # raises ``InvalidQuery``: no other step has it either
        level = _now(found, self.model)
        return None if level is None or level["rate_per_s"] is None else float(level["rate_per_s"]["value"])

    def _join(self, wanted: int, workers: Children) -> None:
        plan = self.plan
        env = dict(os.environ) | dict(plan.workers.environment)
        env.setdefault("OTEL_EXPORTER_OTLP_ENDPOINT", self.receiver)
        # How long a worker was there is known to one export.
        env.setdefault("OTEL_METRIC_EXPORT_INTERVAL", "1000")
        env.setdefault("PYTHONUNBUFFERED", "1")
        first = len(workers) + 1
        _tell(f"starting {count(wanted - len(workers), 'worker')}")
        for n in range(first, wanted + 1):
            words = [word.replace("{number}", str(n)) for word in plan.workers.command]
            if plan.workers.instrument:
                words = [sys.executable, "-m", "bulkscope._cli", "run", "--", *words]
            workers.start(f"worker-{n}", words, env, plan.workers.directory)
        if plan.workers.ready is not None:
            workers.wait_for(plan.workers.ready, [f"worker-{n}" for n in range(first, wanted + 1)], plan.workers.start)
        if plan.workers.warm_up:
            jobs = wanted * plan.workers.warm_up
            _tell(f"warming up: {count(jobs, 'job')}")
            bulk = self.state.bulk(f"w{wanted}-warm")
            sent = self._send(bulk, [0.0] * (jobs if plan.request.takes_one else 1), jobs, workers)
            self._drain(bulk, sent.accepted, workers)

    def _send(self, bulk: str, at: Sequence[float], jobs: int, workers: Children) -> _Sent:
        """Send a request at each time of ``at``, in s from now, with the jobs spread over them."""
        sent = _Sent()
        prompts = _prompts(self.plan, bulk, jobs)
        share = -(-jobs // len(at))
        began = time.monotonic()
        for n, wanted in enumerate(at):
            while (left := began + wanted - time.monotonic()) > 0:
                time.sleep(min(left, 0.2))
                workers.check()
            sent.late_s = max(sent.late_s, -left if wanted else 0.0)
            while sent.open >= MOST_OPEN:
                if wanted:
                    raise Failed(
                        f"{MOST_OPEN} requests to {self.plan.request.url} are unanswered: it does not answer any more"
                    )
                time.sleep(0.01)
                workers.check()
            with sent.lock:
                sent.open += 1
                sent.requests += 1
            # Daemons, so that a service that hangs does not keep a stopped sweep waiting.
            threading.Thread(
                target=self._request, args=(bulk, n, prompts[n * share : (n + 1) * share], sent), daemon=True
            ).start()
        while sent.open:
            time.sleep(0.01)
            workers.check()
        if sent.refused > MOST_REFUSED * sent.requests:
            raise Failed(
                f"{part(sent.refused, sent.requests, 'request')} of {bulk} to {self.plan.request.url} "
                f"{agree(sent.refused, 'was', 'were')} refused: {sent.problem}"
            )
        return sent

    def _request(self, bulk: str, n: int, prompts: list[str], sent: _Sent) -> None:
        problem = "it could not be sent"
        try:
            problem = self._problem(bulk, n, prompts)
        finally:
            # Whatever happened: the step waits until none is open.
            with sent.lock:
                sent.open -= 1
                if problem:
                    sent.refused += 1
                    sent.problem = printable(problem)
                else:
                    sent.accepted += len(prompts)

    def _problem(self, bulk: str, n: int, prompts: list[str]) -> str:
        """Send a request; return what went wrong, or nothing."""
        plan = self.plan
        fields = {"bulk_id": bulk, "request_id": f"{bulk}-{n + 1}", "prompts": prompts, "prompt": prompts[0]}
        quoted = {name: urllib.parse.quote(str(fields[name]), safe="") for name in ("bulk_id", "request_id")}
        # The id travels in W3C baggage too: a service may refuse one body id twice, or make its own.
        request = plan.request
        headers = {"Content-Type": "application/json", "baggage": f"bulk.id={quoted['bulk_id']}", **request.headers}
        body = json.dumps(sweep_plan.fill(request.body, fields)).encode()
        url = sweep_plan.fill(request.url, quoted)
        try:
            with self._client.stream(request.method, url, content=body, headers=headers) as answer:
                return _refusal(answer) if answer.is_error else _read(answer)
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            return f"{type(error).__name__}: {error}"

    def _drain(self, bulk: str, jobs: int, workers: Children) -> None:
        """Wait until the store has the end of all jobs."""
        deadline = time.monotonic() + self.plan.drain
        while (ended := self._progress(bulk)["ended"]) < jobs:
            workers.check()
            if time.monotonic() > deadline:
                raise Failed(
                    f"after {seconds(self.plan.drain)} {part(ended, jobs, 'job')} of {bulk} have ended in the store; "
                    "if they take longer, raise drain; else check that API and workers run under 'bulkscope run', that "
                    f"one prompt makes one job, and that they send to {self.receiver}"
                )
            time.sleep(POLL_S)

    def _progress(self, bulk: str) -> dict[str, int]:
        with _studio(self.db) as studio:
            return studio.progress(bulk)


def _read(answer: httpx.Response) -> str:
    for _ in answer.iter_raw():  # to its end: an answer that breaks off is none
        pass
    return ""


def _refusal(answer: httpx.Response) -> str:
    """Return the status of a refusal and how its body begins, as far as that came."""
    said = b""
    with contextlib.suppress(httpx.HTTPError):
        for part_of_it in answer.iter_bytes():
            said += part_of_it
            if len(said) >= MOST_SAID:
                break
    return f"{answer.status_code}: {said[:MOST_SAID].decode(errors='replace') or answer.reason_phrase}"


@contextlib.contextmanager
def _studio(db: Path) -> Iterator[StudioSource]:
    """Give the studio that runs now: it may have been started again since the sweep began."""
    with resolve.running(db, _warn) as studio:
        if studio is None:
            raise Failed("the studio has ended; start it again, and the same command continues")
        yield studio


def _warn(message: str) -> None:
    _tell(message)


def _prompts(plan: Plan, bulk: str, jobs: int) -> list[str]:
    """Return the prompts of a step: all of them, in a new order each time, as often as it takes.

    In the order of the file each step would begin with the same few. A mark before each one keeps engines from
    answering what they have seen in an earlier step from their cache.
    """
    random = np.random.default_rng([plan.seed, zlib.crc32(bulk.encode())])
    rounds = -(-jobs // len(plan.request.prompts))
    order = np.concatenate([random.permutation(len(plan.request.prompts)) for _ in range(rounds)])[:jobs]
    marks = random.integers(0, 2**24, jobs)
    return [
        f"[{mark:06x}] {plan.request.prompts[index]}" if plan.request.mark else plan.request.prompts[index]
        for index, mark in zip(order.tolist(), marks.tolist(), strict=True)
    ]


def _arrivals(seed: int, step: Step, length: float) -> list[float]:
    """Return the times of a Poisson stream within ``length`` s; the same for the same plan."""
    assert step.rate is not None
    random = np.random.default_rng([seed, step.workers, round(step.rate * 1e6)])
    gaps = random.exponential(1 / step.rate, max(20, round(length * step.rate * 3 + 50)))
    at = np.cumsum(gaps)
    found: list[float] = at[at < length].tolist()
    return found or [float(at[0])]


def _tell(line: str) -> None:
    say(f"sweep: {line}", error=True)


def _ask(db: Path, question: Question) -> dict[str, Any]:
    with _studio(db) as studio:
        return studio.capacity(question)


def _now(found: dict[str, Any], model: str | None) -> dict[str, Any] | None:
    """Return what was seen of the model asked for, or of the first, with the places there were last."""
    models = _models(found, model)
    now: dict[str, Any] | None = models[0]["now"] if models else None
    return now


def _models(found: dict[str, Any], model: str | None) -> list[dict[str, Any]]:
    return [m for pool in found["pools"] for m in pool["models"] if model is None or m["model"] == model]


def _result(plan: Plan, sweep: _Sweep, model: str | None, slo: float | None, quantile: float) -> dict[str, Any]:
    """Put the steps, the model fitted to all of them and a recommendation together."""
    _tell("fitting")
    steps = [step for step in plan.steps if step.key in sweep.state.done]
    bulks = {step.key: str(sweep.state.done[step.key]["bulk"]) for step in steps}
    capacity = _ask(sweep.db, Question(list(bulks.values()), model=model, quantile=quantile))
    measured = {bulk["id"]: bulk for pool in capacity["pools"] for bulk in pool["bulks"]}
    notes = list(sweep.notes)
    rows = []
    for step in steps:
        bulk = measured.get(bulks[step.key])
        if bulk is None:
            notes.append(f"Step {step.key}: the store no longer has {bulks[step.key]}.")
            continue
        if bulk["places"] != step.workers:
            notes.append(
                f"Step {step.key}: {count(bulk['places'], 'concurrency slot was', 'concurrency slots were')} there "
                f"though the sweep started {count(step.workers, 'worker')}: a worker has several slots, or other "
                "workers take from the queue."
            )
        expected = None
        if step.rate is not None and bulk["rate_per_s"] is not None:
            # From the jobs at once where there are some: then the waits measured here are not what they are held to.
            closed = bulks.get(Step(step.workers, None, 0).key, bulks[step.key])
            question = Question([closed], rate=bulk["rate_per_s"], workers=bulk["places"], model=model)
            forecast = _ask(sweep.db, question)["pools"][0]["forecast"]
            expected = None if forecast["wait"] is None else forecast["wait"]["p95_s"]
        rows.append(
            {
                "step": step.key, "bulk": bulks[step.key], "workers": step.workers, "places": bulk["places"],
                "asked_rate_per_s": step.rate, "rate_per_s": None if step.rate is None else bulk["rate_per_s"],
                "jobs": bulk["jobs"], "wait": bulk["wait"], "expected_p95_s": expected,
            }
        )  # fmt: skip
    recommended, sentence = _recommendation(sweep.db, capacity, rows, model, slo, quantile)
    return {
        "schema": SCHEMA, "name": plan.name, "recommendation": sentence, "recommended": recommended, "steps": rows,
        "notes": notes, "capacity": capacity,
    }  # fmt: skip


def _recommendation(
    db: Path, capacity: dict[str, Any], rows: list[dict[str, Any]], model: str | None, slo: float | None,
    quantile: float,
) -> tuple[dict[str, Any] | None, str]:  # fmt: skip
    models = _models(capacity, model)
    levels = [level for level in models[0]["levels"] if level["rate_per_s"] is not None] if models else []
    if not levels:
        return None, (
            "No number of workers reached its limit: give [closed] more jobs_per_worker, for a longer backlog."
        )
    fit = capacity["pools"][0]["memory"]["workers_that_fit"]
    fitting = [level for level in levels if fit is None or level["places"] <= max(1, fit)] or levels[:1]
    chosen, best = enough(fitting)
    places, rate = chosen["places"], chosen["rate_per_s"]
    words = f"Run {count(places, 'worker')}: {number(rate['value'])} jobs/s [{interval(rate, number)}]"
    if best is not chosen:
        more = best["rate_per_s"]["value"] / rate["value"] - 1
        words += f"; {count(best['places'], 'worker')} bring {percent(more)} more"
    elif chosen is levels[-1] and len(levels) > 1:
        words += ", the most that were tried"
    found: dict[str, Any] = {"workers": places, "rate_per_s": rate, "slo_s": slo, "quantile": quantile, "highest": None}
    if slo is None:
        return found, words + ". Give slo to get the arrival rate that keeps a queue wait."
    there = [row["bulk"] for row in rows if row["places"] == places]
    asked = _ask(db, Question(there, slo=f"{slo:.9f}s", quantile=quantile, workers=places, model=model))
    highest = asked["pools"][0]["highest_rate"]
    found["highest"] = highest
    goal = f"{percent(quantile)} of the queue waits under {seconds(slo)}"
    if highest is None or highest["rate_per_s"] is None:
        return found, words + f"; no arrival rate keeps {goal}."
    busy = percent(highest["utilization"])
    return found, words + f"; up to {number(highest['rate_per_s']['value'])} arrivals/s keep {goal} ({busy} busy)."
