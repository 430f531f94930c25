"""A store of what a service did, and the explanation from there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bulkscope_studio.ingest.writer import Ingest
from bulkscope_studio.services.explanations import bulk_explanation
from bulkscope_studio.storage.store import Store
from tests import decoding
from tests.traces.otlp import messages, ns
from tests.traces.service import Done


def explained(done: Done) -> dict[str, Any]:
    """Send it all, and ask a minute after the last end."""
    store = Store(Path(":memory:"))
    ingest = Ingest(store)
    try:
        for signal, message in messages(done):
            decoded = getattr(decoding, signal)(message)
            assert not decoded.refused, decoded.refused
            ingest.submit(decoded, signal, "http").result()
        return bulk_explanation(store, "asked", now_ns=ns(max(prompt.end for prompt in done.prompts) + 60))
    finally:
        ingest.close()
        store.close()
