"""One module per library, each an ``Instrumentor`` found through the entry points of OpenTelemetry."""
