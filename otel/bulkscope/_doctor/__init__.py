"""``bulkscope doctor``: why telemetry does or does not arrive, and what to do about it.

``command`` finds the interpreter that would run the service and starts a check in it, with the environment that
``bulkscope run`` would set and nothing exported (``inside``). There, one module a subject returns ``Finding`` objects;
``findings`` makes text, JSON and the exit code of them. Nothing here is imported by ``bulkscope run``.
"""
