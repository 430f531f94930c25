"""The data streams that are read and written."""

from __future__ import annotations

TRACES, LOGS, HOSTS = "traces-*.otel-*", "logs-*.otel-*", "metrics-hostmetricsreceiver.otel-*"
VERDICTS = "bulkscope-verdicts"  # `bulkscope explain --publish` writes to it
