"""A real studio in a process of its own, on free ports."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.processes import BIN, PATIENCE_S, wait_for_line


@dataclass(frozen=True)
class Addresses:
    """Where a running studio listens."""

    web: str
    otlp_http: str
    otlp_grpc: str


def asked(at: Addresses, path: str, **params: Any) -> Any:
    """Return what the API answers to a page's question."""
    answer = httpx.get(f"{at.web}/api/v1{path}", params=params, timeout=PATIENCE_S)
    assert answer.status_code == 200, answer.text
    return answer.json()


@contextmanager
def studio(db: Path, *options: str, **variables: str) -> Iterator[Addresses]:
    """Run ``bulkscope studio`` on ``db`` with ``variables`` until the block ends, then end it by SIGTERM."""
    words = [str(BIN / "bulkscope"), "studio", "--db", str(db), "--port", "0"]
    words += ["--otlp-http-port", "0", "--otlp-grpc-port", "0", *options]
    env = {**os.environ, **variables}
    process = subprocess.Popen(words, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        lines = wait_for_line(process, "Data  ").splitlines()
        where = [line.split()[-1] for line in lines if " http://" in line]
        yield Addresses(*where)
    finally:
        process.terminate()
        assert process.wait(PATIENCE_S) == 0
