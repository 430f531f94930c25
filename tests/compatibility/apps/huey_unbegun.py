"""Huey: revoked, expired, unregistered, not sent."""

import contextlib
import time

import unbegun
import work
from huey import RedisHuey

huey = RedisHuey("bulk", url=work.BROKER)
ok = huey.task()(unbegun.ok)


def publish():
    ok(bulk_id="b-revoked")
    for _ in range(2):
        ok(bulk_id="b-revoked").revoke()
    huey.enqueue(ok.s(bulk_id="b-expired", expires=1))

    @huey.task()
    def no_such(bulk_id=None):
        pass

    no_such(bulk_id="b-unregistered")
    down = RedisHuey("bulk", url=unbegun.nowhere())
    with contextlib.suppress(Exception):
        down.task()(unbegun.ok)(bulk_id="b-down")
    wanted = {
        "b-revoked": {"sent": 3, "done": 1, "cancelled": 2},
        "b-expired": {"sent": 1, "cancelled": 1},
        "b-unregistered": {"sent": 1, "cancelled": 1},
        "b-down": {"not_sent": 1},
    }
    unbegun.write(wanted)
    time.sleep(1.5)


def ask():
    assert (huey.pending_count(), huey.scheduled_count()) == (0, 0)
