"""A second generator of bulks, which shares no code and no structure with ``tests/simulator``: time goes on in steps of
5 ms, and what happened leaves as OTLP protobuf. Its truth is the same service with one thing changed."""
