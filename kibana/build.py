"""Build ``kibana/dashboards/*.json`` from ``kibana/source/*.yaml``: ``python -m kibana.build``, ``--check`` to compare.

Each file is the body of ``PUT /api/dashboards/{id}``, the Dashboards API of Kibana 9.5, its id the file's name. The
bodies follow these schemas of Kibana's source, from which its OpenAPI document (``put-dashboards-id``) is made:

- dashboard, panel, grid, options: ``src/platform/plugins/shared/dashboard/server/api/dashboard_state_schemas.ts``
- charts (``xy``, ``metric``, ``data_table``) with ES|QL and with a data view, columns, formats:
  ``src/platform/packages/shared/kbn-lens-embeddable-utils/config_builder/schema``
- data sources: ``src/platform/packages/shared/as-code/data-views-schema``
- the control: ``src/platform/packages/shared/controls/controls-schemas``, ``esql_control`` with ``VALUES_FROM_QUERY``
- markdown: ``src/platform/plugins/shared/dashboard_markdown/server/embeddable/schemas.ts``
- links: ``src/platform/plugins/private/links/server/embeddable_schemas.ts`` (from 9.5 on)
- Discover's table: ``src/platform/plugins/shared/discover/server/embeddable/schema.ts``
- service map: ``service_map_embeddable_schema.ts`` of the APM plugin (from 9.5 on)

``tests/production/kibana-dashboards.json`` is that document; each body is held against it.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from stack import generated
from stack.generated import BadSource

Json = dict[str, Any]

HERE = Path(__file__).resolve().parent
SOURCE = HERE / "source"
BUILT = HERE / "dashboards"
BLOCKS = "_blocks.yaml"

COLUMNS = 48
STEPS = 60  # of a time axis; BUCKET takes the next round interval that gives no more
ROWS = 10_000  # the most that Elasticsearch gives by default
# 9.3 and 9.4 have it as a preview, 9.5 for good: a field that no document has had yet is null and not an error.
HEAD = 'SET unmapped_fields="nullify";'

XY = ("line", "area", "area_stacked", "bar", "bar_stacked", "bar_horizontal")
KINDS = (*XY, "metric", "table", "linked", "log", "service_map", "navigation", "markdown")
FORMATS: dict[str, Json] = {
    "count": {"type": "number", "decimals": 0},
    "plain": {"type": "custom", "pattern": "0"},  # a status is no quantity: no separator of thousands
    "number": {"type": "number", "decimals": 2},
    "seconds": {"type": "number", "decimals": 3, "suffix": " s"},
    "fine_seconds": {"type": "number", "decimals": 5, "suffix": " s"},
    "rate": {"type": "number", "decimals": 1, "suffix": " /s"},
    "percent": {"type": "percent", "decimals": 1},
    "bytes": {"type": "bytes", "decimals": 1},
}
PANEL_KEYS = frozenset(
    {"title", "kind", "numbers", "w", "h", "description", "query", "x", "y", "split", "rows", "value", "beside", "text"}
    | {"data_view", "field", "label"}
)
DASHBOARD_KEYS = frozenset({"title", "description", "time_range", "bulk", "panels"})
COLUMN_KEYS = frozenset({"column", "label", "format", "axis"})

# `*`, all bulks, comes first and is always there: a variable without a value would be an error in every panel.
# The rest is newest first. VALUES keeps no order, so that the time travels in front of the id.
CHOICES = """
FROM traces-*.otel-*
| WHERE @timestamp >= ?_tstart AND @timestamp <= ?_tend
| EVAL bulk = attributes.bulk.id::keyword
| WHERE bulk IS NOT NULL
| STATS began = MAX(@timestamp) BY bulk
| SORT began DESC
| LIMIT 500
| EVAL choice = CONCAT(DATE_FORMAT("yyyy-MM-dd HH:mm:ss.SSS", began), "|", bulk)
| STATS choices = VALUES(choice)
| EVAL choices = COALESCE(MV_APPEND(choices, "~|*"), "~|*")
| MV_EXPAND choices
| SORT choices DESC
| EVAL bulk = SUBSTRING(choices, LOCATE(choices, "|") + 1)
| KEEP bulk
"""


def read(path: Path) -> Json:
    """Return what a YAML file holds; raises ``BadSource``."""
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise BadSource(f"{path.name} cannot be read as YAML: {error}") from error
    if not isinstance(found, dict):
        raise BadSource(f"{path.name} must be a mapping with title, description and panels")
    return found


def esql(text: str, blocks: Mapping[str, str], bulk: bool) -> str:
    """Return a query with its blocks put in, and ``HEAD`` before it."""

    def block(match: re.Match[str]) -> str:
        indent, name = match[1], match[2]
        if name == "bulk" and not bulk:
            return ""
        if name not in blocks:
            raise BadSource(f"there is no block {{{name}}}; {BLOCKS} has {', '.join(sorted(blocks))}")
        return "".join(f"{indent}{line}\n" for line in blocks[name].rstrip("\n").splitlines())

    before = ""
    while before != text:
        before, text = text, re.sub(r"^([ ]*)\{(\w+)\}[ ]*\n", block, text.rstrip("\n") + "\n", flags=re.MULTILINE)
    text = text.replace("{n}", str(STEPS)).replace("{steps}", json.dumps(list(range(STEPS)), separators=(",", ":")))
    if left := re.search(r"(?<!%)\{\w+\}", text):
        raise BadSource(f"a block stands on a line of its own: {left[0]}")
    return f"{HEAD}\n{text.strip()}"


def dashboard(source: Mapping[str, Any], blocks: Mapping[str, str], titles: Mapping[str, str]) -> Json:
    """Return the API's body of one source; ``titles`` of all dashboards by id. Raises ``BadSource``."""
    _known(source, DASHBOARD_KEYS, "the dashboard")
    bulk = bool(source.get("bulk"))
    panels: list[Json] = []
    x = y = row = 0
    for panel in source["panels"]:
        where = f"panel {panel.get('title')!r}"
        _known(panel, PANEL_KEYS, where)
        width, height = panel.get("w", COLUMNS // 2), panel.get("h", 12)
        if not 1 <= width <= COLUMNS:
            raise BadSource(f"{where}: w is {width}; the grid has {COLUMNS} columns")
        if x + width > COLUMNS:
            x, y, row = 0, y + row, 0
        try:
            kind, config = _config(panel, blocks, bulk, titles)
        except (BadSource, KeyError) as error:
            raise BadSource(f"{where}: {'lacks ' if isinstance(error, KeyError) else ''}{error}") from error
        identity = re.sub(r"[^a-z0-9]+", "-", panel["title"].lower()).strip("-")
        if any(other["id"] == identity for other in panels):
            raise BadSource(f"{where}: another panel of this dashboard has the same title")
        grid = {"x": x, "y": y, "w": width, "h": height}
        panels.append({"id": identity, "type": kind, "grid": grid, "config": config})
        x, row = x + width, max(row, height)
    body: Json = {
        "title": source["title"],
        "description": source["description"],
        "time_range": source["time_range"],
        "refresh_interval": {"pause": True, "value": 60_000},
        "options": {"use_margins": True, "sync_colors": True, "sync_cursor": True, "sync_tooltips": True},
        "panels": panels,
    }
    if bulk:
        body["pinned_panels"] = [
            {
                "type": "esql_control",
                "width": "large",
                "grow": True,
                "config": {
                    "title": "Bulk (* for all)",
                    "variable_name": "bulk",
                    "variable_type": "values",
                    "control_type": "VALUES_FROM_QUERY",
                    "esql_query": esql(CHOICES, blocks, bulk),
                    "selected_options": ["*"],
                    "single_select": True,
                },
            }
        ]
    return body


def _config(
    panel: Mapping[str, Any], blocks: Mapping[str, str], bulk: bool, titles: Mapping[str, str]
) -> tuple[str, Json]:
    kind = panel["kind"]
    if kind not in KINDS:
        raise BadSource(f"kind {kind!r} is none of {', '.join(KINDS)}")
    about: Json = {"title": panel["title"]}
    words = [panel["description"].strip()] if "description" in panel else []
    if numbers := panel.get("numbers"):
        words.append(f"Number{'s' if len(numbers) > 1 else ''} {', '.join(map(str, numbers))} of the thirteen.")
    if words:
        about["description"] = " ".join(words)
    if kind == "markdown":
        # 9.6 wants the settings spelt out.
        return "markdown", about | {"content": panel["text"], "settings": {"open_links_in_new_tab": True}}
    if kind == "navigation":
        return "links", about | {
            "hide_title": True,
            "layout": "horizontal",
            "links": [_link(*one) for one in titles.items()],
        }
    if kind == "service_map":
        return "apm_service_map", about
    if kind == "linked":
        terms = {
            "operation": "terms", "fields": [panel["field"]], "limit": 100, "label": panel["label"],
            "rank_by": {"type": "custom", "operation": "max", "field": "@timestamp", "direction": "desc"},
        }  # fmt: skip
        return "vis", about | {
            "type": "data_table",
            "data_source": {"type": "data_view_reference", "ref_id": panel["data_view"]},
            "rows": [terms],
            "metrics": [{"operation": "count", "label": "spans"}],
        }
    text = esql(panel["query"], blocks, bulk)
    if kind in XY:
        # ES|QL gives 1,000 rows unless told otherwise, which 17 workers on one time axis exceed.
        text += f"\n| LIMIT {ROWS}"
    source = {"data_source": {"type": "esql", "query": text}}
    if kind == "log":
        return "discover_session", about | {"tabs": [{**source, "column_order": panel["rows"], "row_height": "auto"}]}
    if kind == "metric":
        metrics = [{"type": "primary", **_column(panel["value"])}]
        if "beside" in panel:
            metrics.append({"type": "secondary", **_column(panel["beside"])})
        return "vis", about | {"type": "metric", **source, "metrics": metrics}
    columns = [_column(column) for column in panel["y"]] if "y" in panel else []
    if kind == "table":
        table: Json = {"type": "data_table", **source, "rows": [_column(column) for column in panel["rows"]]}
        return "vis", about | table | ({"metrics": columns} if columns else {})
    layer: Json = {"type": kind, **source, "x": {"column": panel["x"]}, "y": columns}
    if "split" in panel:
        layer["breakdown_by"] = {"column": panel["split"]}
    # That an axis is time can be seen.
    timed = panel["x"] == "time"
    # A time axis is drawn as one also where the answer is empty and tells no types.
    time_axis = {"title": {"visible": False}, "scale": "temporal"}
    axes: Json = {"x": time_axis if timed else {"title": {"text": panel["x"].replace("_", " "), "visible": True}}}
    for axis in ("y", "y2"):
        labels = [column["label"] for column in columns if column.get("axis", "y") == axis]
        if labels:
            axes[axis] = {"title": {"text": ", ".join(labels), "visible": True}}
    chart: Json = {
        "type": "xy",
        "layers": [layer],
        "axis": axes,
        "legend": {"visibility": "visible", "placement": "outside", "position": "bottom"},
    }
    if not kind.startswith("bar"):
        # Where nothing was measured nothing is drawn: a line through a gap would be a guess. A point stands for itself.
        chart["styling"] = {"fitting": {"type": "none"}, "points": {"visibility": "visible"}}
    return "vis", about | chart


def _link(identity: str, title: str) -> Json:
    """Return a link to another dashboard, which takes the time range along."""
    return {
        "type": "dashboardLink",
        "destination": identity,
        "label": title.partition(": ")[2],
        "options": {"open_in_new_tab": False, "use_filters": True, "use_time_range": True},
    }


def _column(column: Mapping[str, Any]) -> Json:
    _known(column, COLUMN_KEYS, "a column")
    found = {key: column[key] for key in ("column", "label", "axis") if key in column}
    if "format" in column:
        if column["format"] not in FORMATS:
            raise BadSource(f"format {column['format']!r} is none of {', '.join(FORMATS)}")
        found["format"] = FORMATS[column["format"]]
    return found


def _known(found: Mapping[str, Any], keys: frozenset[str], where: str) -> None:
    if unknown := sorted(set(found) - keys):
        raise BadSource(f"{where}: {', '.join(unknown)} is not known; there are {', '.join(sorted(keys))}")


def sources(folder: Path = SOURCE) -> Iterator[tuple[str, Json]]:
    """Yield (id, source) of each dashboard."""
    for path in sorted(folder.glob("*.yaml")):
        if path.name != BLOCKS:
            yield path.stem, read(path)


def built(folder: Path = SOURCE) -> dict[str, str]:
    """Return each dashboard's JSON text by id; raises ``BadSource``."""
    blocks = read(folder / BLOCKS)
    found = {}
    wanted = dict(sources(folder))
    titles = {identity: str(source.get("title")) for identity, source in wanted.items()}
    for identity, source in wanted.items():
        try:
            body = dashboard(source, blocks, titles)
        except (BadSource, KeyError) as error:
            raise BadSource(f"{identity}.yaml: {'lacks ' if isinstance(error, KeyError) else ''}{error}") from error
        found[identity] = json.dumps(body, indent=2, ensure_ascii=False) + "\n"
    return found


def main(arguments: list[str] | None = None) -> int:
    """Write the dashboards, or with ``--check`` compare them."""
    about = __doc__.partition("\n")[0]
    return generated.main(
        arguments, "kibana.build", about, BUILT, ".json",
        lambda: {f"{identity}.json": text for identity, text in built().items()},
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
