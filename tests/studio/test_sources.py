"""One body of tests over the file, a running studio, and an Elasticsearch that has nothing yet.

`tests/engines/test_sources.py` holds it against a real Elasticsearch that has bulks.
"""

from __future__ import annotations

import argparse
import importlib
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bulkscope_studio.elastic.client import Client
from bulkscope_studio.services import reports
from bulkscope_studio.sources import resolve
from bulkscope_studio.sources.elasticsearch import ElasticsearchSource
from bulkscope_studio.sources.file import FileSource
from bulkscope_studio.sources.source import InvalidQuery, NotFound, Question, Source, Trouble, Wanted
from bulkscope_studio.sources.studio import StudioSource
from bulkscope_studio.storage import address
from bulkscope_studio.storage.store import Store
from tests import sink
from tests.studio import answering, asking

KINDS = {"file": FileSource, "studio": StudioSource}


def never(message: str) -> None:
    raise AssertionError(message)


@contextmanager
def opened(kind: str, db: Path, warn: Callable[[str], None] = never) -> Iterator[Source]:
    options = argparse.Namespace(source="studio", db=db)
    if kind == "file":
        with resolve.open(options, warn) as source:
            yield source
        return
    with answering.studio(db), resolve.open(options, warn) as source:
        yield source


@pytest.fixture(params=KINDS)
def source(request: pytest.FixtureRequest, db: Path) -> Iterator[Source]:
    with opened(request.param, db) as found:
        assert type(found) is KINDS[request.param]
        assert found.place == str(db)
        yield found


def test_bulks_are_listed_reported_explained_and_compared(source: Source) -> None:
    jobs = {row["id"]: row["jobs"] for row in source.bulks()}
    assert len(jobs) == 3
    asking.bulks(source, "sample-001", "sample-002", jobs["sample-001"])


def test_the_list_is_filtered_and_sorted(source: Source) -> None:
    asking.listed(source, "sample-001")
    verdicts = [row["verdict"] for row in source.listed(Wanted())["bulks"]]
    assert any(each is not None for each in verdicts)
    by_host = source.listed(Wanted(host="sample-host"), verdicts=False)
    assert [row["id"] for row in by_host["bulks"]] == ["sample-002", "sample-refused", "sample-001"]
    assert source.listed(Wanted(service="nobody"), verdicts=False)["bulks"] == []


def test_what_is_not_there_is_not_found(source: Source) -> None:
    asking.unknown(source, ["sample-001", "sample-002", "sample-refused"])


def test_what_makes_no_sense_is_an_invalid_query(source: Source) -> None:
    asking.senseless(source, "sample-001")


def test_runs_are_kept(source: Source) -> None:
    asking.runs(source, "sample-001", "sample-002")


def test_each_source_gives_the_same_answers(db: Path) -> None:
    answers = []
    for kind in KINDS:
        with opened(kind, db) as source:
            found = [ask(source, "sample-002") for ask in asking.OF_ONE.values()]
            found += [source.bulks(), source.capacity(Question(last="1h", rate=0.5, slo="30s", workers=2))]
            answers.append(asking.plain(found))
    assert answers[0] == answers[1]


@pytest.mark.parametrize("kind", [*KINDS, "elasticsearch"])
def test_where_nothing_is_yet_each_source_says_so(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    db = tmp_path / "s.duckdb"
    Store(db).close()
    with sink.serve() as empty:  # 404 to each question: no data stream is there yet
        monkeypatch.setenv("ELASTICSEARCH_URL", empty.url)
        with (
            resolve.open(argparse.Namespace(source="elasticsearch", db=None), never)
            if kind == "elasticsearch"
            else opened(kind, db)
        ) as source:
            assert source.place == (empty.url if kind == "elasticsearch" else str(db))
            assert source.bulks() == source.runs() == source.listed(Wanted(), verdicts=False)["bulks"] == []
            asking.unknown(source, [])
            with pytest.raises(NotFound, match="no bulk 'latest'"):
                source.report("latest")
            with pytest.raises(NotFound, match="no run 'r'"):
                source.run("r")
            with pytest.raises((InvalidQuery, NotFound)):
                source.keep("r", ["b"])


def test_what_the_studio_cannot_be_asked_is_trouble(db: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        port = nobody.getsockname()[1]
    address.write(db, address.Runtime(os.getpid(), f"http://127.0.0.1:{port}", "", ""))
    try:
        with (
            resolve.open(argparse.Namespace(source="studio", db=db), never) as source,
            pytest.raises(Trouble, match=rf"does not answer at http://127.0.0.1:{port}/api/bulks: .*; restart it"),
        ):
            source.bulks()
    finally:
        address.remove(db)


def test_a_name_that_is_no_text_is_an_invalid_query_of_a_studio(db: Path) -> None:
    with opened("studio", db) as source:
        for ask in (
            lambda: source.comparison("\udcff", "b"), lambda: source.keep("a", ["\udcff"]),
            lambda: source.capacity(Question(["\udcff"])),
        ):  # fmt: skip
            with pytest.raises(InvalidQuery, match="cannot be asked"):
                ask()


@pytest.mark.parametrize("words", [["report", "\udcff"], ["compare", "a", "\udcff"], ["capacity", "--model", "\udcff"]])
def test_an_argument_that_is_no_text_is_told(words: list[str], db: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Python has undecodable bytes of the command line as lone surrogates."""
    name, *given = words
    command = importlib.import_module(f"bulkscope_studio.cli.{name}").command
    assert command([*given, "--db", str(db)]) == 2
    assert r"'\udcff' is not UTF-8" in capsys.readouterr().err


def test_no_proxy_of_the_environment_comes_between(db: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.setenv("no_proxy", "")
    with opened("studio", db) as source:
        assert source.bulks()


def test_a_store_in_trouble_is_told_beside_the_answer(db: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    whole = Store.__init__

    def made(self: Store, *given: object, **more: object) -> None:
        whole(self, *given, **more)  # type: ignore[arg-type]
        self.trouble = "the disk is füll"

    monkeypatch.setattr(Store, "__init__", made)
    with opened("studio", db, said.append) as source:
        assert source.bulks()
    assert said == ["the studio has trouble: the disk is füll"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_fault_of_ours_is_not_told_as_the_users(kind: str, db: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ValueError("shapes do not match")

    monkeypatch.setattr(reports, "analyse", broken)
    with opened(kind, db) as source, pytest.raises(Exception) as raised:
        source.report("sample-001")
    assert not isinstance(raised.value, InvalidQuery | NotFound)
    if kind == "studio":
        assert isinstance(raised.value, Trouble)
        assert "answered 500" in str(raised.value)
    else:
        assert isinstance(raised.value, ValueError)


def test_elasticsearch_reads_one_bulk_at_a_time_and_keeps_no_runs() -> None:
    with sink.serve() as empty:
        source: Source = ElasticsearchSource(Client("Elasticsearch", empty.url))
        with pytest.raises(InvalidQuery, match="one bulk at a time"):
            source.capacity(Question(["a", "b"]))
        with pytest.raises(InvalidQuery, match="one bulk at a time"):
            source.capacity(Question(last="1h"))
        with pytest.raises(InvalidQuery, match="leave --source out"):
            source.keep("r", ["a"])
