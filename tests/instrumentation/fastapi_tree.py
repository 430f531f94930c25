"""Run under one FastAPI version or another: prints, as JSON, what a fixed set of requests leaves behind."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import fastapi
import httpx
from fastapi import APIRouter, FastAPI, HTTPException
from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from bulkscope._jobs.processor import BulkSpanProcessor
from bulkscope_instrumentation.fastapi import FastAPIInstrumentor

REQUESTS: list[tuple[str, str, Any]] = [
    ("GET", "/items/3", None),
    ("GET", "/items/word", None),
    ("DELETE", "/items/3", None),
    ("POST", "/v1/bulks", {"bulkId": "b1", "prompts": []}),
    ("GET", "/v1/bulks/b2", None),
    ("GET", "/v1/tenants/t/leaf", None),
    ("GET", "/v1/tenants/t/nowhere", None),
    ("PATCH", "/v1/tenants/t/leaf", None),
    ("GET", "/sub/a/there", None),
    ("GET", "/busy", None),
    ("GET", "/raises", None),
    ("GET", "/nowhere", None),
    ("GET", "/items", None),
]


def make_app() -> FastAPI:
    app, sub = FastAPI(), FastAPI()
    v1, tenants = APIRouter(prefix="/v1"), APIRouter()
    tracer = trace.get_tracer("app")

    @app.get("/items/{item}")
    async def item(item: int) -> int:
        return item

    @app.get("/items/")
    async def items() -> int:
        return 1

    @v1.post("/bulks", status_code=202)
    async def bulks(body: dict[str, Any]) -> None:
        with tracer.start_as_current_span("send jobs"):
            pass

    @v1.get("/bulks/{bulk_id}")
    def bulk(bulk_id: str) -> None:
        with tracer.start_as_current_span("look up"):
            pass

    @tenants.get("/leaf")
    async def leaf() -> int:
        return 1

    @sub.get("/there")
    async def there() -> int:
        return 1

    @app.get("/busy")
    async def busy() -> None:
        raise HTTPException(503)

    @app.get("/raises")
    async def raises() -> None:
        raise LookupError

    v1.include_router(tenants, prefix="/tenants/{tenant}")
    app.include_router(v1)
    app.mount("/sub/{name}", sub)
    return app


async def main() -> None:
    exporter, reader = InMemorySpanExporter(), InMemoryMetricReader()
    provider = TracerProvider()
    provider.add_span_processor(BulkSpanProcessor())
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    metrics.set_meter_provider(MeterProvider([reader]))
    if "--bare" not in sys.argv:
        FastAPIInstrumentor().instrument()
    transport = httpx.ASGITransport(make_app(), raise_app_exceptions=False)
    requests = []
    async with httpx.AsyncClient(transport=transport, base_url="http://api.test") as client:
        for method, path, body in REQUESTS:
            exporter.clear()
            response = await client.request(method, path, json=body, headers={"user-agent": "tests"})
            spans = exporter.get_finished_spans()
            names = {span.context.span_id: span.name for span in spans if span.context}
            requests.append(
                {
                    "request": f"{method} {path}",
                    "status": response.status_code,
                    "spans": [
                        {
                            "name": span.name,
                            "kind": span.kind.name,
                            "scope": span.instrumentation_scope.name if span.instrumentation_scope else None,
                            "parent": names.get(span.parent.span_id) if span.parent else None,
                            "status": span.status.status_code.name,
                            "attributes": dict(span.attributes or {}),
                        }
                        for span in spans
                    ],
                }
            )
    data = reader.get_metrics_data()
    points = [
        [metric.name, sorted((point.attributes or {}).items()), getattr(point, "count", None)]
        for resource in (data.resource_metrics if data else [])
        for scope in resource.scope_metrics
        for metric in scope.metrics
        for point in metric.data.data_points
    ]
    print(json.dumps({"fastapi": fastapi.__version__, "requests": requests, "points": sorted(points)}))


asyncio.run(main())
