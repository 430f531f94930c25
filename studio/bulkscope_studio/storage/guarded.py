"""SQL of a user's own: looked at before DuckDB is given it, and run where it can change nothing.

That a statement is a SELECT says little: ``WITH a AS (DELETE FROM spans RETURNING 1) FROM a`` is one to DuckDB. So
its syntax tree is read, and whatever is not named here is refused: kinds of nodes, tables, functions, types. A later
version's new ones are refused until somebody has looked at them. What is left out on purpose: what reads files,
settings or other statements; what waits; what makes a text of gigabytes from a number (``repeat('x', 4000000000)``
took 3.9 GB past DuckDB's own limit, and 28 s after it was interrupted); JSON functions that end the process by a
value that is nested deeply (``json_contains`` at 200,000, a cast to VARIANT).

It is run in a transaction that may only read, over views of its connection alone (``public.py``), by the same bounded
reader as every other question (``store.Store.run``).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Set
from typing import Any

import duckdb

# A question that somebody writes has some hundred characters. Of 20,000 the slowest took the binder 0.1 s.
MOST_CHARACTERS = 20_000
# `a.a.a…` of 10,000 names took the binder 25 s, in which it could not be interrupted.
_MOST_NAMES = 10

_QUERIES = {"SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE", "CTE_NODE"}
_TABLES = {
    "BASE_TABLE", "SUBQUERY", "JOIN", "TABLE_FUNCTION", "EXPRESSION_LIST", "EMPTY", "EMPTY_FROM", "SHOW_REF", "PIVOT",
}  # fmt: skip
_MODIFIERS = {"ORDER_MODIFIER", "LIMIT_MODIFIER", "LIMIT_PERCENT_MODIFIER", "DISTINCT_MODIFIER"}
_NODES = _QUERIES | _TABLES | _MODIFIERS
_EXPRESSIONS = {
    "BETWEEN", "CASE", "CAST", "COLLATE", "COLUMN_REF", "COMPARISON", "CONJUNCTION", "CONSTANT", "DEFAULT", "FUNCTION",
    "LAMBDA", "LAMBDA_REF", "OPERATOR", "PARAMETER", "POSITIONAL_REFERENCE", "STAR", "SUBQUERY", "TYPE", "WINDOW",
}  # fmt: skip
# Of a table of ours (DESCRIBE, SUMMARIZE), not of settings, databases or variables.
_SHOWN = {"DESCRIBE", "SUMMARY"}
_TYPE_NAMES = (
    "bigint blob bool boolean char date datetime decimal double float float4 float8 hugeint int int1 int2 int4 int8 "
    "int16 int32 int64 integer interval json list map numeric real smallint string struct text time timestamp "
    "timestamp_ms timestamp_ns timestamp_s timestamptz tinyint ubigint uhugeint uint16 uint32 uint64 uint8 uinteger "
    "usmallint utinyint uuid varchar"
)
_TYPES = frozenset((*_TYPE_NAMES.split(), "timestamp with time zone", "time with time zone"))
TABLE_FUNCTIONS = {"range", "generate_series", "unnest", "json_each"}
_FUNCTION_NAMES = (
    # aggregates
    "any_value approx_count_distinct approx_quantile approx_top_k arbitrary arg_max arg_max_null arg_min "
    "arg_min_null argmax argmin array_agg avg bit_and bit_or bit_xor bool_and bool_or corr count count_if "
    "count_star countif covar_pop covar_samp entropy favg first fsum geomean geometric_mean group_concat histogram "
    "kurtosis last list listagg mad max max_by mean median min min_by mode product quantile quantile_cont "
    "quantile_disc regr_avgx regr_avgy regr_count regr_intercept regr_r2 regr_slope regr_sxx regr_sxy regr_syy "
    "reservoir_quantile sem skewness stddev stddev_pop stddev_samp string_agg sum sumkahan kahan_sum var_pop "
    "var_samp variance wavg weighted_avg grouping grouping_id "
    # windows
    "cume_dist dense_rank fill first_value lag last_value lead nth_value ntile percent_rank rank rank_dense "
    "row_number "
    # numbers
    "% & * ** + - / // << <-> <=> >> ^ | ~ @ ! abs acos add asin atan atan2 bin bit_count cbrt ceil ceiling cos cot "
    "degrees divide even exp floor fmod gcd greatest hex isfinite isinf isnan lcm least ln log log10 log2 mod "
    "multiply nextafter pi pow power radians random round round_even sign signbit sin sqrt subtract tan trunc xor "
    "hash fdiv equi_width_bins "
    # texts
    "!~~ !~~* ~~ ~~* ~~~ ^@ || ascii chr concat concat_ws contains ends_with ilike_escape instr jaccard "
    "jaro_similarity jaro_winkler_similarity lcase left length like_escape lower ltrim md5 not_ilike_escape "
    "not_like_escape octet_length ord overlay position prefix regexp_extract regexp_extract_all regexp_full_match "
    "regexp_matches regexp_replace regexp_split_to_array replace reverse right rtrim sha256 split split_part "
    "starts_with str_split string_split string_to_array strip_accents strlen strpos substr substring suffix "
    "translate trim ucase upper url_decode format_bytes formatreadablesize "
    # times
    "age ago current_date current_localtime current_localtimestamp get_current_time get_current_timestamp date_add "
    "date_diff date_part date_sub date_trunc datediff datepart datesub datetrunc day dayname dayofmonth dayofweek "
    "dayofyear epoch epoch_ms epoch_ns epoch_us hour isodow isoyear last_day make_date make_time make_timestamp "
    "make_timestamp_ms make_timestamp_ns make_timestamptz microsecond millisecond minute month monthname nanosecond "
    "now quarter second strftime strptime time_bucket timezone to_days to_hours to_microseconds to_milliseconds "
    "to_minutes to_months to_seconds to_timestamp to_weeks to_years today transaction_timestamp try_strptime week "
    "weekday weekofyear year yearweek "
    # lists, structs, maps
    "&& <@ @> array_extract array_length array_slice array_to_string array_value cardinality element_at flatten "
    "list_aggregate list_any_value list_append list_avg list_concat list_contains list_count list_distinct "
    "list_element list_extract list_filter list_first list_has list_has_all list_has_any list_indexof list_last "
    "list_max list_median list_min list_pack list_position list_prepend list_reduce list_reverse list_select "
    "list_slice list_apply list_sort list_reverse_sort list_string_agg list_sum list_transform list_unique "
    "list_value list_where list_zip len map map_contains map_entries map_extract map_extract_value map_from_entries "
    "map_keys map_values row struct_extract struct_insert struct_keys struct_pack array_contains array_distinct "
    "array_sort array_filter array_transform "
    # JSON
    "-> ->> json_array_length json_exists json_extract json_extract_path json_extract_path_text json_extract_string "
    "json_keys json_type json_valid json_value "
    # the rest
    "coalesce if ifnull nullif error typeof alias constant_or_null not_distinct uuid gen_random_uuid unnest"
)
FUNCTIONS = frozenset(_FUNCTION_NAMES.split())


class Refused(Exception):
    """A statement that is not run; the message says why, and what would be."""


def check(connection: duckdb.DuckDBPyConnection, text: str, tables: Set[str], macros: Set[str]) -> None:
    """Raise ``Refused`` for what is not one SELECT from ``tables`` and ``macros``, which are named in lower case."""
    if len(text) > MOST_CHARACTERS:
        raise Refused(f"the statement has {len(text)} characters; at most {MOST_CHARACTERS} are read")
    try:
        statements = connection.extract_statements(text)
    except duckdb.Error as error:
        raise Refused(str(error).strip()) from error
    if len(statements) != 1:
        raise Refused(f"one SELECT is run at a time; these are {len(statements)} statements")
    kind = str(statements[0].type).rpartition(".")[2]
    if kind != "SELECT":
        raise Refused(f"only SELECT is run, and this is {kind}: the store is only read")
    try:
        row = connection.execute("SELECT json_serialize_sql($text)", {"text": text}).fetchone()
        found = json.loads(row[0]) if row else {}
    except (RecursionError, duckdb.Error) as error:
        raise Refused("the statement is nested too deeply") from error
    if found.get("error") is not False or len(found.get("statements", ())) != 1:
        raise Refused(f"only a SELECT is run: {found.get('error_message', 'this is none')}")
    for node, known in _nodes(found["statements"][0]["node"]):
        _look(node, tables | known, macros)


def _nodes(root: Any) -> Iterator[tuple[dict[str, Any], frozenset[str]]]:
    """Yield each node of a syntax tree, with the names of WITH that hold there."""
    pending: list[tuple[Any, frozenset[str]]] = [(root, frozenset())]
    while pending:
        node, known = pending.pop()
        if isinstance(node, list):
            pending.extend((each, known) for each in node)
        elif isinstance(node, dict):
            named = [each["key"].lower() for each in (node.get("cte_map") or {}).get("map", ())]
            if isinstance(node.get("cte_name"), str):
                named.append(node["cte_name"].lower())
            known = known.union(named)
            yield node, known
            pending.extend((each, known) for each in node.values())


def _look(node: Mapping[str, Any], tables: Set[str], macros: Set[str]) -> None:
    kind, of = node.get("type"), node.get("class")
    if isinstance(of, str):
        if of not in _EXPRESSIONS:
            raise Refused(f"{of} is not run here")
    elif isinstance(kind, str) and kind not in _NODES and ("modifiers" in node or "alias" in node):
        raise Refused(f"{kind.removesuffix('_QUERY_NODE').removesuffix('_NODE')} is not run: the store is only read")
    if kind == "BASE_TABLE":
        _of_ours("table", node["table_name"], node, tables)
        if node.get("at_clause"):
            raise Refused("AT is not run here")
    if kind == "SHOW_REF" and (node.get("show_type") not in _SHOWN or not node.get("query")):
        raise Refused("DESCRIBE and SUMMARIZE are run of a table or a SELECT, and no other SHOW")
    if kind == "TABLE_FUNCTION":
        if node["function"].get("class") != "FUNCTION":
            raise Refused("a table function has to be named")
        _of_ours("table function", node["function"]["function_name"], node["function"], TABLE_FUNCTIONS | macros)
    elif isinstance(node.get("function_name"), str):
        # A method `x.f()` has `x` where a schema would stand. Macros are looked at where they are tables.
        name = node["function_name"].lower()
        if name not in FUNCTIONS and name not in macros | TABLE_FUNCTIONS:
            raise Refused(f"the function {node['function_name']} is not run here; docs/sql.md names those that are")
    if of == "COLUMN_REF" and len(node.get("column_names", ())) > _MOST_NAMES:
        raise Refused(f"a column of more than {_MOST_NAMES} names is not looked for")
    named = node.get("type_name") if of == "TYPE" else node.get("id") if "type_info" in node else None
    if isinstance(named, str) and named.lower() not in _TYPES | {
        "unbound",
        "unknown",
        "sqlnull",
        "null",
        "enum",
        "any",
    }:
        raise Refused(f"values of type {named} are not made here")


def _of_ours(what: str, name: str, node: Mapping[str, Any], known: Set[str]) -> None:
    if node.get("catalog_name") or node.get("schema_name") or node.get("catalog") or node.get("schema"):
        raise Refused(f"name the {what} {name} alone, without a schema")
    if name.lower() not in known:
        raise Refused(f"there is no {what} {name!r} to be asked; there are {', '.join(sorted(known))}")
