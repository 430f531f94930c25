"""The numbers of requests and of inferences: each has its one formula here, for reports and for pages.

``docs/telemetry.md`` has the definitions in words. What Kibana and Prometheus compute by themselves is held against
this in ``tests/engines/test_numbers.py``.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import pyarrow as pa

from bulkscope import conventions
from bulkscope_studio.analysis.report.model import Inferences, Requests
from bulkscope_studio.analysis.statistics import stats

OUTCOMES = tuple(name for name in conventions.OUTCOMES if name != "retry")  # of jobs only


def requests(table: pa.Table) -> Requests:
    """Return numbers 1 to 3 of the rows of ``queries/report_requests.sql``."""
    starts = table["start_ns"].to_pylist()
    window = (max(starts) - min(starts)) / 1e9 if starts else 0.0
    counts = Counter(name or "unknown" for name in table["outcome"].to_pylist())
    return Requests(
        count=table.num_rows,
        rate_per_s=table.num_rows / window if window > 0 else None,
        outcomes={name: counts.pop(name, 0) for name in OUTCOMES} | dict(sorted(counts.items())),
        latency_s=stats.distribution(table["seconds"]),
        enqueue_s=stats.total(table["enqueue_duration"]),
    )


def inferences(table: pa.Table) -> Inferences:
    """Return numbers 7 to 12 of the rows of ``queries/report_inferences.sql``; of columns left out nothing is known.

    A ratio is a sum over a sum, of the inferences that have both: a mean of ratios would give an inference of one
    token the weight of one of a thousand.
    """
    names = set(table.column_names)

    def of(name: str) -> stats.Column:
        return table[name] if name in names else ()

    generated = stats.floats(of("output_tokens"))
    return Inferences(
        count=table.num_rows,
        prompts=None if "prompts" not in names else int(stats.total(of("prompts")) or 0),
        failed=int(np.sum(stats.floats(of("ok")) == 0)),
        duration_s=stats.distribution(of("seconds")),
        ttft_s=stats.distribution(of("ttft")),
        prefill_s=stats.distribution(of("prefill")),
        decode_s=stats.distribution(of("decode")),
        cpu_s=stats.total(of("cpu_time")),
        cpu_utilization=stats.distribution(of("cpu_utilization")),
        cpu_exact_share=stats.mean(of("cpu_exact")),
        cpu_pressure_share=stats.mean(of("cpu_pressure")),
        cpu_throttled_s=stats.total(of("cpu_throttled")),
        cpu_s_per_output_token=stats.paired(of("cpu_time"), generated),
        memory_start_bytes=stats.mean(of("memory_start")),
        memory_peak_bytes=stats.highest(of("memory_peak")),
        memory_growth_max_bytes=stats.highest(of("memory_growth")),
        memory_file_bytes=stats.highest(of("memory_file")),
        memory_anon_bytes=stats.highest(of("memory_anon")),
        memory_limit_bytes=stats.highest(of("memory_limit")),
        memory_exact_share=stats.mean(of("memory_exact")),
        output_tokens=stats.total(generated),
        input_tokens=stats.total(of("input_tokens")),
        cached_tokens=stats.total(of("cached_tokens")),
        tokens_per_s=stats.paired(generated, of("seconds")),
        decode_tokens_per_s=stats.paired(stats.after_first(generated), of("decode")),
    )


def by_model(table: pa.Table) -> dict[str, Inferences]:
    """Return the same for each model, the one with most inferences first."""
    codes = table["model"].combine_chunks().dictionary_encode() if table.num_rows else None
    if codes is None:
        return {}
    names, which = codes.dictionary.to_pylist(), codes.indices.to_numpy(zero_copy_only=False)
    table = table.combine_chunks()
    found = {name: inferences(table.take(pa.array(np.flatnonzero(which == n)))) for n, name in enumerate(names)}
    return dict(sorted(found.items(), key=lambda item: (-item[1].count, item[0])))
