"""What the attempts at one job waited for, as the explanation of its bulk adds them up."""

from __future__ import annotations

from bulkscope_studio.analysis.timeline import timeline
from bulkscope_studio.analysis.timeline.progress import progress
from bulkscope_studio.services import explanations
from bulkscope_studio.storage.store import Store

CAUSES = ("own", "others", "dispatch", "absent")


def of_job(store: Store, beside: explanations.Beside, job: str) -> dict[str, dict[str, float]]:
    """Return the seconds by cause of each attempt's wait, by the id of its span; absent where the wait is not known.

    ``own`` and ``others``: its slot was busy with jobs of this bulk, of others; ``dispatch``: the slot was free and the
    job was not taken; ``absent``: before anything is known of its worker.
    """
    known = explanations.facts_of(store, beside)
    where = progress(known)
    waits = timeline.build(known, where.running and not where.complete).waits
    # The bulk's own attempts are the first rows of all.
    spans, jobs = (beside.bulk.handed_out[name].to_pylist() for name in ("span_id", "job_id"))
    found = {}
    for n, row in enumerate(waits.rows.tolist()):
        if row < len(spans) and job in (jobs[row], spans[row]):
            found[spans[row]] = {cause: float(getattr(waits, cause)[n]) for cause in CAUSES}
    return found
