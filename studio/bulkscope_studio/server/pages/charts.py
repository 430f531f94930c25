"""Chart options: several panels on one shared time axis."""

from __future__ import annotations

from typing import Any

# Okabe and Ito's palette: told apart by colour-blind readers. One meaning, one colour, on all pages.
COLOURS = {
    "ok": "#0072b2", "client_error": "#cc79a7", "overload": "#e69f00", "internal_error": "#d55e00",
    "done": "#0072b2", "failed": "#d55e00",
}  # fmt: skip
CYCLE = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#8a8f98"]
GREY = "#808a96"
FAINT = "rgba(128,138,150,.22)"


def panels(
    names: list[str],
    height: int = 92,
    lane_height: int = 0,
    left: int = 58,
    keys: dict[int, list[tuple[str, str]]] | None = None,
) -> dict[str, Any]:
    """Return the option for one panel a name, stacked on one time axis; the first may be taller.

    All numbers are pixels; ``left`` is the room for the labels of the vertical axes. ``keys`` explains the
    colours of a panel beside its name: by panel, (label, colour).
    """
    grids, xs, ys, titles, top = [], [], [], [], 28
    for n, name in enumerate(names):
        tall = lane_height if n == 0 and lane_height else height
        last = n == len(names) - 1
        shown = (keys or {}).get(n, [])
        titles.append({
            "text": name + "".join(f"    {{k{i}|●}} {{t|{label}}}" for i, (label, _) in enumerate(shown)),
            "top": top - 22, "left": 4,
            "textStyle": {"fontSize": 12, "color": GREY, "rich": {
                "t": {"fontSize": 12, "color": GREY},
                **{f"k{i}": {"fontSize": 12, "color": colour} for i, (_, colour) in enumerate(shown)},
            }},
        })  # fmt: skip
        grids.append({"top": top, "height": tall - 34, "left": left, "right": 16})
        xs.append({
            "type": "time", "gridIndex": n, "axisLabel": {"show": last, "color": GREY, "hideOverlap": True},
            "axisLine": {"lineStyle": {"color": FAINT}}, "axisTick": {"show": last}, "splitLine": {"show": False},
        })  # fmt: skip
        ys.append({
            "type": "value", "gridIndex": n, "min": 0, "splitNumber": 2, "axisLabel": {"color": GREY, "fontSize": 11},
            "splitLine": {"lineStyle": {"color": FAINT}},
        })  # fmt: skip
        top += tall
    every = list(range(len(names)))
    return {
        "animation": False, "backgroundColor": "transparent", "title": titles, "grid": grids, "xAxis": xs, "yAxis": ys,
        "tooltip": {"trigger": "axis", "confine": True}, "axisPointer": {"link": [{"xAxisIndex": "all"}]},
        "dataZoom": [
            {"type": "inside", "xAxisIndex": every, "zoomOnMouseWheel": "ctrl"},
            {"type": "slider", "xAxisIndex": every, "top": top, "height": 16, "brushSelect": False,
             "showDataShadow": False, "textStyle": {"color": GREY}},
        ],
        "series": [],
    }  # fmt: skip


def height(names: list[str], each: int = 92, lane_height: int = 0) -> str:
    """Return the CSS height that ``panels`` needs."""
    return f"{28 + each * (len(names) - (1 if lane_height else 0)) + lane_height + 30}px"


def series(
    panel: int, name: str, points: list[list[Any]], colour: str, kind: str = "line", stack: str = ""
) -> dict[str, Any]:
    """Return one line or stacked bar series."""
    made: dict[str, Any] = {
        "type": kind, "name": name, "xAxisIndex": panel, "yAxisIndex": panel, "data": points,
        "itemStyle": {"color": colour}, "showSymbol": len(points) < 3, "symbolSize": 5,
    }  # fmt: skip
    if kind == "line":
        made["lineStyle"] = {"width": 1.5, "color": colour}
    if kind == "bar":
        made["barMaxWidth"] = 8
    if stack:
        made["stack"] = stack
    return made
