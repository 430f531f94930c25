"""A question of a user's own, in SQL."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response
from pydantic import BaseModel, Field, StrictBool, StrictFloat, StrictInt, StrictStr

from bulkscope_studio.server.v1.answer import Route, attached, json, not_json
from bulkscope_studio.services import questions
from bulkscope_studio.storage.store import Store

# Says why an answer holds no more than it does, where it is not JSON.
CUT = "bulkscope-cut"


class Question(BaseModel):
    """One SELECT, and the values of its parameters (`$name`)."""

    query: str
    params: dict[str, StrictBool | StrictInt | StrictFloat | StrictStr | None] = Field(default_factory=dict)
    limit: int = questions.MOST_ROWS


def router(store: Store) -> APIRouter:
    """Return the route of SQL."""
    routes = APIRouter(route_class=Route, tags=["sql"])

    def answered(question: Question, format: str) -> Response:
        found = questions.ask(store, question.query, question.params, question.limit)
        if format != "json":
            return attached(found.rows, "answer", format, **({CUT: found.cut} if found.cut else {}))
        columns = [{"name": field.name, "type": str(field.type)} for field in found.rows.schema]
        values = [column.to_pylist() for column in found.rows.columns]
        return json({"columns": columns, "rows": list(zip(*values, strict=True)), "cut": found.cut})

    async def asked(
        request: Request, question: Question, format: Literal["json", "jsonl", "csv", "parquet", "arrow"] = "json"
    ) -> Response:
        """One SELECT of the tables of docs/sql.md, read only: `bulks`, `jobs('ID')`, `attempts('ID')`, `inferences`,
        `spans`, `logs`, `points`, `resources`, `drops`. At most `limit` rows come; `cut` says that there are more, as
        the header `bulkscope-cut` does."""
        if (refused := not_json(request)) is not None:
            return refused
        return await run_in_threadpool(answered, question, format)

    routes.add_api_route("/sql", asked, methods=["POST"])
    return routes
