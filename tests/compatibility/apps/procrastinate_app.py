"""Procrastinate: ``publish.py procrastinate_app`` publishes, ``procrastinate --app=… worker`` works."""

import procrastinate
import work

app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=work.BROKER))


@app.task(queue="bulk", name="ok")
def ok(bulk_id=None):
    return work.ok(bulk_id)


@app.task(queue="bulk", name="fails")
async def fails(bulk_id=None):
    work.fails(bulk_id)


@app.task(queue="bulk", name="flaky", retry=procrastinate.RetryStrategy(max_attempts=3, wait=1))
def flaky(bulk_id=None):
    return work.flaky(bulk_id)


@app.task(queue="bulk", name="outer", pass_context=True)
async def outer(context, bulk_id=None):
    assert context.job.queueing_lock is None, "what travels is not the task's to see"
    await ok.defer_async()


async def publish():
    async with app.open_async():
        await app.schema_manager.apply_schema_async()
        await ok.defer_async(bulk_id="b-ok")
        await fails.configure(queueing_lock="one", lock=None).defer_async(bulk_id="b-fails")
        await flaky.defer_async(bulk_id="b-flaky")
        await outer.defer_async(bulk_id="b-outer")
        await ok.configure(schedule_in={"seconds": 1}).defer_async(bulk_id="b-later")
