"""What the machines did while a bulk ran, in the bins of its time (``services/overtime.py``)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bulkscope_studio.services import bulks
from bulkscope_studio.services.axis import Axis, plain, sizes
from bulkscope_studio.services.times import AFTER_NS
from bulkscope_studio.storage import credible, sql, summaries
from bulkscope_studio.storage.store import Store

# Their series are of one size each.
MOST_HOSTS = 16
# A host's memory is told by states, each an own series: those of one host are taken together.
_OF_HOSTS = "SELECT * FROM (\n{hosts}\n) WHERE coalesce(host_name, '') IN (SELECT unnest($hosts))"


def machine(
    store: Store, bulk_id: str, bins: int = 600, from_ns: int | None = None, to_ns: int | None = None
) -> dict[str, Any]:
    """Return hosts and tokens of a bulk from ``from_ns`` to ``to_ns`` (default: all of it) in ``bins``.

    Bins are those of ``overtime`` with the same arguments. Of each host that worked on the bulk: CPU and memory in
    use, the share of the time in which work waited for CPU (PSI, some), what the bulk's workers used of the cores that
    they may use (a mean over workers). A sample stands for the time since the one before it; null where there was none.
    Tokens are spread over the time in which they were read or generated.
    Raises ``NotFound``, ``InvalidQuery``.
    """
    if bulk_id == "latest":
        bulk_id = bulks.latest(store)
    known = summaries.extent(store, bulk_id)
    window = None if known is None else bulks.window(store, bulk_id, known)
    if known is None or window is None:
        raise bulks.not_found(store, bulk_id)
    first, last = window
    axis = Axis.of(first if from_ns is None else from_ns, max(last, first + 1) if to_ns is None else to_ns, bins)
    named = {"bulk": bulk_id, **known.bounds}
    there = store.query(sql.load("v1_workers"), named).to_pylist()
    shown = [row["host"] for row in there[:MOST_HOSTS]]
    cpu = store.query(
        sql.load("v1_workers_cpu"), {**named, **axis.named, "until_ns": axis.last_ns + AFTER_NS, "hosts": shown}
    )
    found = hosts(store, axis, shown)
    for row, host in zip(there, found, strict=False):
        mine = cpu.filter(pc.equal(cpu["host_name"], row["host"]))
        host["workers"], host["attempts"] = row["workers"], row["attempts"]
        host["workers_cpu_share"] = plain(axis.sampled(mine, "cpu"))
    return {
        "bulk": bulk_id, **axis.said, "hosts": found, "more_hosts": len(there) - len(shown),
        "tokens": tokens(store, axis, bulk=bulk_id),
    }  # fmt: skip


def hosts(store: Store, axis: Axis, names: Sequence[str]) -> list[dict[str, Any]]:
    """Return CPU, pressure and memory of each named host by bin, in the order of the names."""
    bin_ns = max(1, (axis.last_ns - axis.first_ns) // axis.bins)
    text = _OF_HOSTS.replace("{hosts}", credible.reading(sql.part("explain_hosts")))
    times = {"first": axis.first_ns, "last": axis.last_ns + AFTER_NS, "bin_ns": bin_ns, "hosts": list(names)}
    rows = store.query(text, times)
    # Its bins are whole ns long, and in the end a part of one off: by their middles they are put into ours.
    middles = (np.asarray(rows["time_ns"].to_numpy(), np.float64) - axis.first_ns + bin_ns / 2) / 1e9
    rows = rows.append_column("bin", pa.array(np.floor(middles / axis.bin_s), pa.float64()))
    found = []
    for name in names:
        of = rows.filter(pc.equal(pc.fill_null(rows["host_name"], ""), name))
        found.append(
            {
                "host": name,
                "cpu_share": plain(axis.sampled(of, "cpu")),
                "cpu_pressure_share": plain(axis.sampled(of, "cpu_pressure")),
                "memory_used_bytes": sizes(axis.sampled(of, "memory_used")),
                "memory_limit_bytes": sizes(axis.sampled(of, "memory_total")),
            }
        )
    return found


def tokens(
    store: Store, axis: Axis, bulk: str | None = None, host: str | None = None, service: str | None = None
) -> dict[str, list[float | None] | None]:
    """Return tokens/s by bin of prompts and of what was generated; None where no inference told of any."""
    given = {**axis.named, "bulk": bulk, "host": host, "service": service}
    rows = store.query(sql.load("v1_tokens"), given)
    return {
        f"{name}_per_s": plain(axis.rates(rows, name), 2) if pc.any(pc.is_valid(rows[f"{name}_rate"])).as_py() else None
        for name in ("input", "output")
    }
