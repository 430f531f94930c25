"""Taskiq: unregistered, refused by a middleware, not sent."""

import contextlib

import unbegun
import work
from taskiq import TaskiqMiddleware
from taskiq_redis import ListQueueBroker


class Refusing(TaskiqMiddleware):
    async def pre_execute(self, message):
        if message.kwargs.get("bulk_id") == "b-refused":
            raise PermissionError("not today")
        return message


broker = ListQueueBroker(work.BROKER, queue_name="bulk").with_middlewares(Refusing())


@broker.task
async def ok(bulk_id=None):
    unbegun.ok(bulk_id)


async def publish():
    @broker.task
    async def no_such(bulk_id=None):
        pass

    await broker.startup()
    await ok.kiq(bulk_id="b-unregistered")
    await no_such.kiq(bulk_id="b-unregistered")
    await ok.kiq(bulk_id="b-refused")
    down = ListQueueBroker(unbegun.nowhere(), queue_name="bulk")
    with contextlib.suppress(Exception):
        await ok.kicker().with_broker(down).kiq(bulk_id="b-down")
    await broker.shutdown()
    wanted = {
        "b-unregistered": {"sent": 2, "done": 1, "cancelled": 1},
        "b-refused": {"sent": 1, "cancelled": 1},
        "b-down": {"not_sent": 1},
    }
    unbegun.write(wanted)


def ask():
    import redis

    assert redis.Redis.from_url(work.BROKER).llen("bulk") == 0
