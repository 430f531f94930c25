"""Huey: ``python publish.py huey_app`` publishes, ``huey_consumer huey_app.huey`` works."""

import work
from huey import RedisHuey

huey = RedisHuey("bulk", url=work.BROKER)

ok = huey.task()(work.ok)
fails = huey.task()(work.fails)
flaky = huey.task(retries=2)(work.flaky)


@huey.task()
def outer(bulk_id=None):
    ok()


def publish():
    ok(bulk_id="b-ok")
    fails("b-fails")  # by position
    flaky(bulk_id="b-flaky")
    outer(bulk_id="b-outer")
    ok.schedule(kwargs={"bulk_id": "b-later"}, delay=1)
