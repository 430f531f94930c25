"""What Procrastinate has besides: locks of the application's own, batches, jobs that are aborted or refused."""

import asyncio

import procrastinate
import work
from procrastinate import exceptions

app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=work.BROKER))


@app.task(queue="bulk", name="ok")
def ok(bulk_id=None):
    return work.ok(bulk_id)


@app.task(queue="bulk", name="seen", pass_context=True)
def seen(context, bulk_id=None, lock=None, queueing_lock=None):
    assert (context.job.lock, context.job.queueing_lock) == (lock, queueing_lock), "locks are the application's"
    return work.ok(bulk_id)


@app.task(queue="bulk", name="endless")
async def endless(bulk_id=None):
    await asyncio.sleep(60)


async def main():
    async with app.open_async():
        await app.schema_manager.apply_schema_async()
        for name, locks in (
            ("none", {}), ("queueing", {"queueing_lock": "q1"}), ("lock", {"lock": "l1"}),
            ("both", {"queueing_lock": "q2", "lock": "l2"}),
        ):  # fmt: skip
            await seen.configure(**locks).defer_async(bulk_id=f"c-{name}", **locks)
        try:
            await seen.configure(queueing_lock="q1").defer_async(bulk_id="c-refused")
        except exceptions.AlreadyEnqueued:
            pass
        else:
            raise AssertionError("taken twice")
        if hasattr(ok, "batch_defer_async"):
            await ok.batch_defer_async(*({"bulk_id": "c-batch"} for _ in range(5)))
        jobs = list(await app.job_manager.list_jobs_async(queue="bulk"))
        assert {job.queueing_lock for job in jobs} == {None, "q1", "q2"}
        aborted = await endless.defer_async(bulk_id="c-aborted")
        worker = asyncio.create_task(
            app.run_worker_async(queues=["bulk"], concurrency=2, install_signal_handlers=False, wait=True,
                                 fetch_job_polling_interval=0.2, abort_job_polling_interval=0.2)
        )  # fmt: skip
        while await app.job_manager.get_job_status_async(aborted) != procrastinate.jobs.Status.DOING:
            await asyncio.sleep(0.05)
        await app.job_manager.cancel_job_by_id_async(aborted, abort=True)
        while await app.job_manager.get_job_status_async(aborted) == procrastinate.jobs.Status.DOING:
            await asyncio.sleep(0.05)
        while list(await app.job_manager.list_jobs_async(queue="bulk", status="todo")):
            await asyncio.sleep(0.05)
        worker.cancel()
        await asyncio.gather(worker, return_exceptions=True)


asyncio.run(main())
