"""``/inference``: models side by side."""

from __future__ import annotations

import asyncio
from typing import Any

from nicegui import ui

from bulkscope_studio.server.pages import bulks, charts, layout
from bulkscope_studio.server.pages.data import Data, Row
from bulkscope_studio.services import figures

# What is plotted: names of the axes, then the columns.
CLOUDS = (
    ("output tokens", "inference, s", "output_tokens", "seconds"),
    ("output tokens", "decode, s", "output_tokens", "decode"),
    ("input tokens not cached", "prefill, s", "computed_tokens", "prefill"),
)


def _scatter(x: str, y: str) -> ui.echart:
    axis = {
        "splitLine": {"lineStyle": {"color": charts.FAINT}}, "nameLocation": "middle",
        "axisLabel": {"color": charts.GREY}, "nameTextStyle": {"color": charts.GREY},
    }  # fmt: skip
    return ui.echart({
        "animation": False, "legend": {"top": 0, "textStyle": {"color": charts.GREY}, "type": "scroll"},
        "grid": {"left": 52, "right": 16, "top": 36, "bottom": 44},
        "tooltip": {"confine": True, "renderMode": "richText"},
        "xAxis": {**axis, "name": x, "nameGap": 28}, "yAxis": {**axis, "name": y, "nameGap": 34}, "series": [],
    }).style("height:320px;width:100%")  # fmt: skip


def _cloud(n: int, model: str, sample: list[Row], x: str, y: str) -> dict[str, Any]:
    return {
        "type": "scatter", "name": model, "symbolSize": 6, "symbol": ("circle", "triangle", "rect", "diamond")[n % 4],
        "itemStyle": {"color": charts.CYCLE[n % 7], "opacity": 0.7},
        "data": [[p[x], p[y]] for p in sample if p["model"] == model and p[x] is not None and p[y] is not None],
    }  # fmt: skip


def register(data: Data) -> None:
    """Add the page."""

    @ui.page("/inference")
    async def page() -> None:
        with layout.frame(data, "Inference", "/inference"):
            empty = ui.element("div")
            with empty:
                layout.hint(data)
            box = layout.card("Models side by side", "~: estimate, since not all of it could be measured exactly.")
            with box:
                about = ui.label().classes("bs-mute")
                table = layout.table(bulks.MODEL_COLUMNS, [], "model", bulks.MODEL_NUMERIC)
            cloud = layout.card("Time against tokens", "A sample of at most 2,000 inferences.")
            with cloud, ui.element("div").classes("bs-pair"):
                made = [(_scatter(x_name, y_name), x, y) for x_name, y_name, x, y in CLOUDS]

            async def show() -> None:
                found = await data.rows("model_counts")
                share = min(1.0, figures.MOST / max(1, sum(row["n"] for row in found)))
                measured, sample = await asyncio.gather(
                    data.asked(lambda: figures.of_models(data.store, share)), data.sampled("scatter", share)
                )
                # A model may be too rare for the sample; what is counted is counted of all.
                models = {row["model"]: figures.counted(row, measured.get(row["model"])) for row in found}
                about.set_text(f"Times, rates and shares are from a sample, {share:.1%} of them." if share < 1 else "")
                empty.set_visibility(not found)
                box.set_visibility(bool(found))
                cloud.set_visibility(bool(sample))
                table.rows = [bulks.model_row(name, of) for name, of in models.items()]
                table.update()
                for chart, x, y in made:
                    chart.options["series"] = [_cloud(n, row["model"], sample, x, y) for n, row in enumerate(found)]
                    chart.update()

            layout.live(show, box, 5.0)
