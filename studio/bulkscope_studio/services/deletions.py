"""A bulk is deleted, by the thread that writes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from bulkscope_studio.services import bulks, listing
from bulkscope_studio.services.errors import Conflict, InvalidQuery
from bulkscope_studio.storage import saved_runs, summaries
from bulkscope_studio.storage.store import Store

# Deletes a bulk's records by its id, and returns how many went, by table; raises ``Unavailable``.
Delete = Callable[[str], Mapping[str, int]]


def delete(store: Store, remove: Delete, bulk_id: str, running: bool = False) -> dict[str, Any]:
    """Delete what is stored of a bulk by ``remove``, and return how much that was; runs in which it is kept stay.

    Raises ``NotFound``, ``Conflict`` for a bulk that runs unless ``running``, and ``InvalidQuery`` for ``latest``.
    """
    if bulk_id == "latest":
        raise InvalidQuery("'latest' is another bulk as soon as one is sent: name the bulk to delete by its id")
    if summaries.extent(store, bulk_id) is None:
        raise bulks.not_found(store, bulk_id)
    if not running and listing.state(store, bulk_id) == "running":
        raise Conflict(
            f"{bulk_id!r} runs: what comes of it after it was deleted would be stored as a bulk of its own",
            "wait until it has ended, or send it again with ?running=true",
        )
    kept = [run.name for run in saved_runs.of_bulks(store.path).get(bulk_id, ())]
    return {"deleted": bulk_id, **remove(bulk_id), "kept_in_runs": kept}
