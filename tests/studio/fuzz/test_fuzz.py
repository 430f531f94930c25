"""Damaged requests through everything that takes them, into a real store: refused with a reason, or stored.

The same draws each time; others, and a hundred times as many (an hour)::

    ./run test --chance=100 tests/studio/fuzz

A request that fails is written to the folder of the test, and its path is said. ``corpus/`` has requests that our
exporter sent, and one of each kind that failed once.
"""

from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path
from random import Random

import pytest
from google.protobuf import json_format

from bulkscope_studio.ingest import otlp_decode
from bulkscope_studio.ingest.intake import SIGNALS, Refusal, decoded, response
from bulkscope_studio.ingest.otlp_http import JSON, PROTOBUF, parse, unpack
from bulkscope_studio.storage.store import Store
from tests import chance
from tests.studio.fuzz import generator

CORPUS = sorted((Path(__file__).parent / "corpus").glob("*.bin"))
REQUESTS = 3500  # they take twenty seconds
LIMIT = 1 << 20
KINDS = {signal: (kind, answer, count) for signal, kind, answer, count in SIGNALS.values()}


def take(store: Store, signal: str, body: bytes, encoding: str, content_type: str) -> int:
    """Decode and store a request as the receiver does; return how many records were taken. Raises ``Refusal``."""
    kind, answer, count = KINDS[signal]
    parts = otlp_decode.parts(signal, parse(unpack(body, encoding, LIMIT), content_type, kind))
    whole, last = otlp_decode.Decoded(), False
    while not last:
        part = decoded(parts, kind)
        last = part.last
        whole.add_counts(part)
        tables = part.arrow()
        rows = otlp_decode.ingest_rows(part, signal, "http")
        if rows:
            tables["ingest"] = otlp_decode.to_arrow("ingest", rows)
        with store.writing() as connection:
            for name, table in tables.items():
                assert table.schema.names == [column for column, _ in otlp_decode.TABLES[name]]
                table.validate(full=True)
                connection.register("incoming", table)
                conflict = "OR IGNORE " if name == "resources" else ""
                connection.execute(f"INSERT {conflict}INTO {name} SELECT * FROM incoming")
    response(answer, whole, count).SerializeToString()
    return whole.accepted


def draw(rng: Random) -> tuple[str, bytes, str, str]:
    """Return signal, body, content encoding and content type."""
    signal = rng.choice(list(KINDS))
    message = generator.request(signal, rng)
    if rng.random() < 0.3:
        captured = rng.choice([file for file in CORPUS if signal in file.name])
        message = generator.REQUESTS[signal].FromString(captured.read_bytes())
    if rng.random() < 0.4:
        message = generator.rearranged(message, rng)
    content_type = JSON if rng.random() < 0.15 else PROTOBUF
    body: bytes = message.SerializeToString()
    if content_type == JSON:
        body = json_format.MessageToJson(message, indent=None).encode()
        if rng.random() < 0.1:
            body = json.dumps(rng.choice((None, True, 1, 1.5, "x", [], [{}], {"resourceSpans": {}}))).encode()
    if rng.random() < 0.5:
        body = generator.damaged(body, rng)
    encoding = rng.choice(("", "", "", "gzip", "gzip"))
    if encoding:
        cut = rng.randrange(len(body) + 1)
        body = gzip.compress(body[:cut], 1) + gzip.compress(body[cut:], 1)
        if rng.random() < 0.3:
            body = generator.damaged(body, rng)
    return signal, body, encoding, content_type


@pytest.mark.slow
@pytest.mark.chance
def test_no_request_does_anything_but_be_refused_or_stored(tmp_path: Path) -> None:
    rng, store, seen = chance.rng(1), Store(tmp_path / "s.duckdb"), Counter[str]()
    for _ in range(REQUESTS * chance.TIMES):
        signal, body, encoding, content_type = draw(rng)
        try:
            seen["taken"] += bool(take(store, signal, body, encoding, content_type))
        except Refusal as refusal:
            seen[str(refusal.status)] += 1
        except Exception as error:
            kept = tmp_path / f"{signal}.bin"
            kept.write_bytes(body)
            raise AssertionError(f"{signal} as {content_type} {encoding}: {error!r}; the body is {kept}") from error
    store.close()
    assert seen.keys() <= {"taken", "400", "413"}, seen
    assert seen["taken"] > 20, seen
    assert seen["400"] > 20, seen


@pytest.mark.parametrize("file", CORPUS, ids=lambda file: file.stem)
def test_what_failed_once_and_what_the_exporter_sends_is_stored(file: Path, tmp_path: Path) -> None:
    store = Store(tmp_path / "s.duckdb")
    signal = next(signal for signal in KINDS if signal in file.name)
    assert take(store, signal, file.read_bytes(), "", PROTOBUF) > 0
    store.close()
