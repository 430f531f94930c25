"""``/inference``: models side by side."""

from __future__ import annotations

from nicegui import ui

from bulkscope_studio.web import bulks, charts, layout
from bulkscope_studio.web.data import Data


def register(data: Data) -> None:
    """Add the page."""

    @ui.page("/inference")
    async def page() -> None:
        with layout.frame(data, "Inference", "/inference"):
            empty = ui.element("div")
            with empty:
                layout.hint(data)
            box = layout.card("Models side by side", "Estimated: share whose CPU or memory could not be read exactly.")
            with box:
                table = layout.table(bulks.MODEL_COLUMNS, [], "model", bulks.MODEL_NUMERIC)
            cloud = layout.card("Time against output tokens", "A sample of at most 2,000 inferences.")
            with cloud:
                axis = {"splitLine": {"lineStyle": {"color": charts.FAINT}}, "nameLocation": "middle"}
                chart = ui.echart({
                    "animation": False, "legend": {"textStyle": {"color": charts.GREY}, "type": "scroll"},
                    "grid": {"left": 56, "right": 16, "top": 36, "bottom": 44}, "tooltip": {"confine": True, "renderMode": "richText"},
                    "xAxis": {**axis, "name": "output tokens", "nameGap": 28}, "yAxis": {**axis, "name": "s", "nameGap": 36},
                    "series": [],
                }).style("height:420px;width:100%")  # fmt: skip

            async def show() -> None:
                found, sample = await data.rows("models", bulk_id=None), await data.rows("scatter")
                empty.set_visibility(not found)
                box.set_visibility(bool(found))
                cloud.set_visibility(bool(sample))
                table.rows = [bulks.model_row(row) for row in found]
                table.update()
                chart.options["series"] = [
                    {"type": "scatter", "name": row["model"], "symbolSize": 6,
                     "symbol": ("circle", "triangle", "rect", "diamond")[n % 4],
                     "itemStyle": {"color": charts.CYCLE[n % 7], "opacity": 0.7},
                     "data": [[p["output_tokens"], p["seconds"]] for p in sample if p["model"] == row["model"]]}
                    for n, row in enumerate(found)
                ]  # fmt: skip
                chart.update()

            layout.live(show, box, 5.0)
