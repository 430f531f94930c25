"""Bulks by chance: those of a queue, and those that no queue makes."""

from __future__ import annotations

from hypothesis import Phase
from hypothesis import strategies as st

from bulkscope_studio.rendering import capacity as render_capacity
from bulkscope_studio.rendering import comparison as render_compare
from bulkscope_studio.rendering import report as render
from bulkscope_studio.services import capacities, comparisons, reports
from bulkscope_studio.services.capacities import Question
from bulkscope_studio.services.errors import InvalidQuery, NotFound
from bulkscope_studio.services.sides import StoredSides
from bulkscope_studio.storage.store import Store
from tests.rows import Places
from tests.studio.explaining import Job, Tables, alive, written

# Without the phase that explains a failure, which takes minutes.
PHASES = (Phase.explicit, Phase.generate, Phase.shrink)


@st.composite
def queues(draw: st.DrawFn) -> tuple[list[Job], int]:
    """A queue on a few workers, first come first served and without gaps, with the jobs of up to two bulks."""
    workers = draw(st.integers(1, 4))
    jobs = draw(st.lists(st.tuples(st.integers(0, 3000), st.integers(1, 4000), st.booleans()), min_size=1, max_size=30))
    places = Places(workers, 0.0)
    made = []
    for number, (gap, work, other) in enumerate(jobs):
        put = made[-1].put + gap / 1000 if made else 1.0
        who, start = places.take(put)
        places.free[who] = start + work / 1000
        bulk = "other" if other and number else "bulk"
        made.append(Job(f"j{number}", put, start, places.free[who], who + 1, bulk))
    return made, workers


def told(jobs: list[Job], workers: int) -> Tables:
    last = max(job.end or 0.0 for job in jobs)
    points = [point for worker in range(1, workers + 1) for point in alive(worker, 0.5, last + 1)]
    return written(jobs, points=points)


@st.composite
def messes(draw: st.DrawFn) -> list[Job]:
    """Attempts as no queue makes them: overlapping, before they were put, without a worker, again and again."""
    at = st.floats(0, 200, allow_nan=False).map(lambda value: round(value, 3))
    jobs = []
    for number in range(draw(st.integers(1, 14))):
        put, start = draw(st.none() | at), draw(st.none() | at)
        if put is None and start is None:
            start = 1.0
        end = None if start is None else draw(st.none() | at.map(lambda by, start=start: start + by / 10))
        name = draw(st.sampled_from([f"j{number}", "again", None] if start is not None else [f"j{number}"]))
        jobs.append(
            Job(
                name, put, start, end, draw(st.none() | st.integers(1, 3)), draw(st.sampled_from(["bulk", "other"])),
                1 if start is None else draw(st.integers(1, 3)), draw(st.none() | at.map(lambda by: by / 20)),
                draw(st.none() | st.floats(-5, 50) | st.just(float("nan"))), None,
                draw(st.sampled_from(["h", "g", None])),
                {"outcome": draw(st.sampled_from(["ok", "retry", "internal_error"]))},
                draw(
                    st.none()
                    | st.fixed_dictionaries(
                        {"model": st.sampled_from(["m", "modèle <b>"])},
                        optional={
                            "prefill": st.floats(allow_infinity=False), "decode": st.floats(-1, 9),
                            "output_tokens": st.integers(-3, 99), "input_tokens": st.integers(0, 99),
                            "cpu_time": st.floats(-1, 5), "cpu_wait": st.floats(0, 5),
                            "memory_peak": st.integers(0, 2**40), "memory_limit": st.integers(0, 2**40),
                        },
                    )
                ),
            )
        )  # fmt: skip
    if not any(job.bulk == "bulk" and (job.name is not None or job.end is not None) for job in jobs):
        jobs.append(Job("sure", 1.0, 2.0, 3.0))
    return jobs


def answers(store: Store) -> list[str]:
    """Ask for all but the explanation, and return what is said in words, where there is an answer."""
    said: list[str] = []
    report = reports.bulk_report(store, "bulk")
    if report is not None:
        render.markdown(report)
        said += report["notes"]
    try:
        capacity = capacities.system_capacity(store, Question(["bulk"]))
        render_capacity.markdown(capacity)
        said += [line for pool in capacity["pools"] for line in (*render_capacity.sentences(pool), *pool["notes"])]
    except InvalidQuery as nothing:
        said.append(str(nothing))
    try:
        compared = comparisons.compare(StoredSides(store), "bulk", "other")
        render_compare.markdown(compared)
        said += [line[3:] for line in render_compare.sides(compared)]  # without "A  "
        said += [*render_compare.pairing(compared), *render_compare.notes(compared), compared["answer"]]
        said += [caution["text"] for caution in compared["cautions"]]
        said += [render_compare.effect(row) for row in compared["rows"] if row["effect"] is not None]
    except NotFound:
        pass  # by chance there is no job of another bulk
    return said
