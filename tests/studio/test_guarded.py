"""SQL of a user's own against a store that must come through it: what is refused, and what it is refused for."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

from bulkscope_studio.services import questions
from bulkscope_studio.services.errors import InvalidQuery
from bulkscope_studio.storage import guarded, public
from bulkscope_studio.storage.store import Store, TooLong
from tests.studio.sample import fill

SECRET = "the content of a file beside the store"
TABLES = ("spans", "logs", "points", "resources", "ingest", "bulks", "bulk_changes", "bulk_rules")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    folder = tmp_path_factory.mktemp("guarded")
    (folder / "secret.csv").write_text(SECRET)
    found = Store(folder / "s.duckdb")
    fill(found.connection(), jobs=12)
    yield found
    found.close()


def content(store: Store) -> str:
    """Return a mark of all that is stored, of the settings, and of the names in the catalogue."""
    connection = store.connection()
    rows = [connection.execute(f"SELECT count(*), sum(hash(t)) FROM {name} t").fetchall() for name in TABLES]
    rows.append(connection.execute("SELECT name, value FROM duckdb_settings() ORDER BY name").fetchall())
    rows.append(connection.execute("SELECT database_name FROM duckdb_databases() ORDER BY ALL").fetchall())
    rows.append(connection.execute("SELECT table_name FROM duckdb_tables() ORDER BY ALL").fetchall())
    return hashlib.sha256(repr(rows).encode()).hexdigest()


WRITES = (
    "INSERT INTO drops VALUES (1)", "DELETE FROM spans", "UPDATE spans SET name = 'x'", "DROP TABLE spans",
    "TRUNCATE spans", "CREATE TABLE x (a INT)", "CREATE TEMP TABLE x (a INT)", "CREATE VIEW x AS SELECT 1",
    "CREATE SEQUENCE x", "ALTER TABLE spans ADD COLUMN x INT", "CREATE INDEX i ON spans (name)", "VACUUM", "ANALYZE",
    "CHECKPOINT", "FORCE CHECKPOINT", "BEGIN", "COMMIT", "ROLLBACK", "USE rules", "COMMENT ON TABLE spans IS 'x'",
    "MERGE INTO spans USING logs ON true WHEN MATCHED THEN DELETE",
    # DuckDB calls these SELECT.
    "WITH a AS (DELETE FROM spans RETURNING 1) SELECT * FROM a",
    "WITH a AS (INSERT INTO ingest VALUES (1,'a','b','c','d',1) RETURNING 1) SELECT * FROM a",
    "WITH a AS (UPDATE spans SET name = 'x' RETURNING 1) SELECT * FROM a",
    "SELECT (WITH a AS (DELETE FROM spans RETURNING 1) SELECT count(*) FROM a)",
    "SELECT * FROM (WITH a AS MATERIALIZED (DELETE FROM spans RETURNING 1) FROM a) UNION ALL SELECT 1",
    "SELECT nextval('x')", "SELECT setval('x', 1)", "SELECT setseed(0.5)", "SELECT write_log('x')",
    "SELECT * FROM checkpoint()", "SELECT * FROM force_checkpoint()", "SELECT * FROM truncate_duckdb_logs()",
    "SELECT * FROM enable_logging()", "SELECT * FROM enable_profiling()",
)  # fmt: skip
FILES = (
    "COPY spans TO '{folder}/out.csv'", "COPY spans FROM '{folder}/secret.csv'", "EXPORT DATABASE '{folder}/out'",
    "IMPORT DATABASE '{folder}'", "ATTACH '{folder}/x.duckdb'", "DETACH rules", "LOAD httpfs", "INSTALL httpfs",
    "FORCE INSTALL httpfs FROM community", "SELECT * FROM '{folder}/secret.csv'", "FROM '{folder}/*.csv'",
    "SELECT * FROM read_csv('{folder}/secret.csv')", "SELECT * FROM read_csv_auto('{folder}/secret.csv')",
    "SELECT * FROM read_text('{folder}/secret.csv')", "SELECT * FROM read_blob('{folder}/*')",
    "SELECT * FROM read_json('{folder}/secret.csv')", "SELECT * FROM read_ndjson_objects('{folder}/secret.csv')",
    "SELECT * FROM read_parquet('{folder}/x')", "SELECT * FROM parquet_metadata('{folder}/x')",
    "SELECT * FROM sniff_csv('{folder}/secret.csv')", "SELECT * FROM glob('{folder}/*')",
    "SELECT * FROM read_duckdb('{folder}/s.duckdb')", "SELECT * FROM READ_TEXT('{folder}/secret.csv')",
    "SELECT * FROM main.read_text('{folder}/secret.csv')", "SELECT * FROM system.main.read_text('{folder}/secret.csv')",
    'SELECT * FROM "read_text"(\'{folder}/secret.csv\')',
    "SELECT (SELECT content FROM read_text('{folder}/secret.csv'))",
    "SELECT * FROM spans, LATERAL read_text('{folder}/secret.csv')",
    "SELECT * FROM query('SELECT * FROM read_text(''{folder}/secret.csv'')')",
    "SELECT * FROM query_table('{folder}/secret.csv')", "SELECT * FROM query_table(['spans'])",
    "SELECT * FROM json_execute_serialized_sql(json_serialize_sql('SELECT 42'))",
    "SELECT json_serialize_plan('SELECT * FROM ''{folder}/secret.csv''')",
    "WITH \"{folder}/secret.csv\" AS (SELECT 1) FROM '{folder}/secret.csv' a, (FROM read_text('{folder}/secret.csv'))",
    "SELECT * FROM 'https://example.invalid/x.csv'", "SELECT getenv('HOME')",
)  # fmt: skip
SETTINGS = (
    "SET threads = 1", "SET GLOBAL enable_external_access = true", "SET lock_configuration = false", "RESET threads",
    "PRAGMA threads = 1", "PRAGMA database_list", "PRAGMA table_info('spans')", "SET VARIABLE x = 1",
    "SELECT current_setting('temp_directory')", "SELECT getvariable('x')", "SELECT * FROM duckdb_settings()",
    "SELECT * FROM duckdb_databases()", "FROM duckdb_databases", "FROM duckdb_secrets()",
    "FROM which_secret('a', 's3')",
    "CREATE SECRET (TYPE s3, KEY_ID 'a', SECRET 'b')", "SHOW DATABASES", "SHOW ALL TABLES", "SHOW TABLES",
    "FROM information_schema.tables", "FROM pg_catalog.pg_class", "FROM sqlite_master", "FROM duckdb_tables",
    "FROM duckdb_temporary_files()", "FROM duckdb_memory()", "FROM duckdb_logs()", "FROM pragma_storage_info('spans')",
    "SELECT current_query()", "SELECT current_schemas(true)", "SELECT version()", "SELECT * FROM pragma_version()",
    # The name of WITH holds inside of it alone.
    "SELECT * FROM (WITH duckdb_databases AS (SELECT 1) FROM duckdb_databases), duckdb_databases",
    "CALL pragma_version()", "CALL duckdb_settings()", "PREPARE x AS SELECT 1", "EXECUTE x", "DEALLOCATE x",
    "EXPLAIN SELECT 1", "EXPLAIN ANALYZE SELECT 1", "DESCRIBE duckdb_settings()", "SUMMARIZE FROM duckdb_settings()",
)  # fmt: skip
# Past what the store shows: its own tables by their real names, rules, Python's values.
HIDDEN = (
    "FROM main.spans", "FROM s.main.spans", 'FROM "s".spans', "FROM rules.inferences", "FROM temp.spans",
    "FROM rules.attempts([], 0, 1)", "FROM tries([], true)", "SELECT named_bulk('latest')", "FROM bulk_changes",
    "FROM bulk_rules", "FROM ingest", "FROM store", "FROM cursor", "FROM pandas_scan(1)", "FROM arrow_scan(1, 2, 3)",
    "FROM seq_scan('spans')", "FROM python_map_function(1)", "FROM test_all_types()",
    "FROM repeat_row(1, num_rows = 9)",
)  # fmt: skip
# What took gigabytes, minutes or the process.
COSTLY = (
    "SELECT length(repeat('x', 4000000000))", "SELECT length(rpad('x', 2000000000, 'y'))", "SELECT lpad('x', 9, 'y')",
    "SELECT printf('%2000000000d', 1)", "SELECT format('{{:2000000000}}', 1)", "SELECT bar(1, 0, 1, 1e9)",
    "SELECT json_contains(x, '1') FROM (SELECT '[]' AS x)", "SELECT '1'::JSON::VARIANT", "SELECT CAST(1 AS VARIANT)",
    "SELECT to_variant(1)", "SELECT sleep_ms(60000)", "SELECT pg_sleep(60)", "SELECT json_structure('[]')",
    "SELECT levenshtein('a', 'b')", "SELECT damerau_levenshtein('a', 'b')", "SELECT factorial(100000)",
    "SELECT ''::BIT", "SELECT 1::GEOMETRY", "SELECT list_resize([1], 1000000000)", "SELECT json_pretty('[]')",
    "SELECT a" + ".a" * 9000, "SELECT " + "(" * 9000 + "1" + ")" * 9000, "SELECT 1" + "+1" * 9000,
    "SELECT " + "CASE WHEN true THEN " * 800 + "1" + " END" * 800, "SELECT '" + "x" * 20_000 + "'",
    "WITH a AS (" * 900 + "SELECT 1" + ") SELECT 1" * 900,
)  # fmt: skip
NO_SELECT = ("", " ", ";", "SELECT 1; SELECT 2", "SELECT 1; DROP TABLE spans", "-- nothing", "SELEC 1", "\0", "/*")
WRONG = (
    "SELECT nothing FROM spans", "SELECT 1/0::INT, 'a'::INT", "SELECT $name", "FROM nowhere", "SELECT error('x')",
    "SELECT sum(name) FROM spans", "FROM jobs(1, 2, 3)",
)  # fmt: skip


@pytest.mark.parametrize(
    "text", [*WRITES, *FILES, *SETTINGS, *HIDDEN, *COSTLY, *NO_SELECT, *WRONG], ids=lambda t: t[:60]
)
def test_it_is_refused_and_nothing_has_changed(store: Store, text: str) -> None:
    folder = store.path.parent
    before, files, opened = content(store), sorted(folder.iterdir()), store.opened
    with pytest.raises(InvalidQuery) as refused:
        questions.ask(store, text.replace("{folder}", str(folder)))
    assert SECRET not in str(refused.value)
    assert str(refused.value).strip()
    assert content(store) == before
    assert sorted(folder.iterdir()) == files
    assert store.opened == opened


# These end the transaction, or are of the connection alone.
@pytest.mark.parametrize(
    "text",
    [each for each in WRITES if not each.startswith(("BEGIN", "COMMIT", "ROLLBACK", "USE", "CREATE TEMP", "FORCE"))],
    ids=lambda text: text[:60],
)
def test_without_the_look_the_transaction_still_refuses_what_writes(store: Store, text: str) -> None:
    """The second wall, by itself: what gets past the syntax tree meets a transaction that may only read."""
    before = content(store)
    cursor = store.connection()
    cursor.execute("BEGIN TRANSACTION READ ONLY")
    try:
        cursor.execute(text).fetchall()
    except duckdb.Error:
        pass
    finally:
        cursor.close()
    assert content(store) == before


@pytest.mark.parametrize("text", [each for each in FILES if "DETACH" not in each], ids=lambda text: text[:60])
def test_without_the_look_duckdb_still_opens_no_file(store: Store, text: str) -> None:
    cursor = store.connection()
    files = sorted(store.path.parent.iterdir())
    try:
        found = str(cursor.execute(text.replace("{folder}", str(store.path.parent))).fetchall())
    except duckdb.Error:
        found = ""
    finally:
        cursor.close()
    assert SECRET not in found
    assert sorted(store.path.parent.iterdir()) == files


@pytest.mark.parametrize(
    "text",
    [
        "SELECT status, count(*) AS n FROM jobs('latest') GROUP BY ALL ORDER BY n DESC",
        "SELECT model, quantile_cont(work_s, 0.95) FROM jobs('sample-001') WHERE status = 'done' GROUP BY model",
        "SELECT job, list(worker ORDER BY attempt) FROM attempts('sample-001') a GROUP BY a.job HAVING count(*) > 0",
        "SELECT b.id, count(s.span_id) FROM bulks b LEFT JOIN spans s ON s.bulk = b.id GROUP BY b.id",
        "SELECT time_bucket(INTERVAL 1 SECOND, make_timestamp_ns(time_ns)) t, count(*) FROM logs GROUP BY t ORDER BY t",
        "SELECT attributes->>'service.name', json_extract_string(attributes, '$.\"host.name\"') FROM resources",
        "SELECT avg(value) OVER (PARTITION BY name ORDER BY time_ns ROWS 5 PRECEDING) FROM points WHERE value > 0",
        "WITH slow AS (SELECT * FROM jobs() WHERE work_s > 0.5), other AS (FROM slow) SELECT count(*) FROM other",
        "SELECT * EXCLUDE (bulk) FROM jobs() QUALIFY row_number() OVER (PARTITION BY bulk ORDER BY work_s DESC) <= 3",
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5) SELECT sum(i) FROM n",
        "SELECT key, value FROM resources, json_each(attributes) WHERE key LIKE 'service%'",
        "SELECT list_transform([1, 2], lambda x: x + 1), {'a': 1}.a, [3, 4][1], CASE WHEN true THEN 1 END, 1 IN (1, 2)",
        "FROM spans TABLESAMPLE 50% LIMIT 3", "DESCRIBE spans", "DESCRIBE FROM jobs('x')", "SUMMARIZE bulks",
        "SELECT 1 UNION SELECT 2 EXCEPT SELECT 2 ORDER BY 1", "VALUES (1, 'a'), (2, 'b')", "FROM range(3)",
        "FROM drops",
        "SELECT date_trunc('minute', to_timestamp(started_ns / 1e9)), extract('hour' FROM now()) FROM spans LIMIT 1",
        "SELECT * FROM bulks PIVOT (sum(done_jobs) FOR id IN ('sample-001', 'sample-002'))",
    ],
    ids=lambda text: text[:60],
)  # fmt: skip
def test_what_people_ask_is_answered(store: Store, text: str) -> None:
    assert questions.ask(store, text).rows.num_columns


def test_parameters_are_values_whatever_they_hold(store: Store) -> None:
    found = questions.ask(
        store, "SELECT $a AS a, $b AS b, $c AS c, $d AS d", {"a": "'; DROP", "b": 1, "c": None, "d": True}
    )
    assert found.rows.to_pylist() == [{"a": "'; DROP", "b": 1, "c": None, "d": True}]
    rows = questions.ask(store, "FROM jobs($bulk)", {"bulk": "latest"}).rows
    assert set(rows["bulk"].to_pylist()) == {"sample-002"}


def test_what_cuts_an_answer_is_said(store: Store) -> None:
    found = questions.ask(store, "FROM range(10)", limit=3)
    assert found.rows.to_pydict() == {"range": [0, 1, 2]}
    assert found.cut == "the first 3 rows are here, there are more"
    assert questions.ask(store, "FROM range(3)", limit=3).cut is None
    many = questions.ask(store, "SELECT range FROM range(100000000)", size=2**20)
    assert many.cut is not None
    assert "MiB" in many.cut
    assert 0 < many.rows.nbytes <= 2**20
    with pytest.raises(InvalidQuery, match="limit"):
        questions.ask(store, "SELECT 1", limit=0)


def test_what_takes_too_long_or_too_much_ends_and_leaves_the_others_alone(store: Store) -> None:
    opened = store.opened
    with pytest.raises(TooLong):
        store.run(
            lambda cursor: cursor.execute("SELECT count(*) FROM range(10000000000) a, range(9999) b"), seconds=0.5
        )
    with pytest.raises(TooLong):
        questions.ask(store, "SELECT list(range) FROM range(1000000000)")
    assert questions.ask(store, "SELECT count(*) AS n FROM spans").rows["n"][0].as_py() > 0
    assert store.opened == opened


def test_no_function_that_is_let_in_is_one_that_acts(store: Store) -> None:
    """What DuckDB itself says has side effects is not among ours, but for chance."""
    acts = "SELECT DISTINCT function_name FROM duckdb_functions() WHERE has_side_effects"
    known = {name for (name,) in store.connection().execute(acts).fetchall()}
    assert known & guarded.FUNCTIONS <= {"random", "uuid", "gen_random_uuid", "error"}
    tables = "SELECT DISTINCT function_name FROM duckdb_functions() WHERE function_type = 'table'"
    reads = {name for (name,) in store.connection().execute(tables).fetchall()}
    assert reads & guarded.TABLE_FUNCTIONS == guarded.TABLE_FUNCTIONS
    assert not {name for name in guarded.FUNCTIONS if name.startswith(("read_", "pg_", "duckdb_", "pragma_"))}


def test_every_table_can_be_read_from_a_file_that_is_open_for_reading_alone(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "closed.duckdb"
    made = Store(path)
    fill(made.connection(), jobs=3)
    made.close()
    closed = Store(path, read_only=True)
    try:
        for name in (*public.TABLES, "jobs()", "attempts()", "jobs('sample-001')", "attempts('latest')"):
            assert questions.ask(closed, f"FROM {name}").rows.num_columns
    finally:
        closed.close()
