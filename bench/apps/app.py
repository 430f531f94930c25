"""The application measured: ``ROUTES`` routes, of which the last one declared is the one asked for."""

import os

from fastapi import FastAPI

app = FastAPI()


def _add(number: int) -> None:
    @app.get(f"/things{number}/{{thing}}/parts/{{part}}")
    async def other(thing: int, part: str) -> dict[str, int]:
        return {"thing": thing}


for _number in range(int(os.environ.get("ROUTES", "1")) - 1):
    _add(_number)


@app.get("/items/{item}")
async def item(item: int) -> dict[str, int]:
    return {"item": item}
