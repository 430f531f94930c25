"""One module per library; each is an ``Instrumentor`` found through the ``opentelemetry_instrumentor`` entry points."""
