"""The worker's side: ``celery -A demo.tasks worker``."""

from __future__ import annotations

from dataclasses import asdict

from celery import Celery
from celery.utils.log import get_task_logger

from demo import settings

logger = get_task_logger(__name__)

app = Celery("demo", broker=settings.BROKER, backend=settings.BROKER)
app.conf.update(
    task_default_queue=settings.QUEUE,
    # A job takes seconds: each worker takes one at a time, and a killed worker's job goes to another.
    task_acks_late=True,
    worker_prefetch_multiplier=1,
    task_track_started=True,
    result_expires=settings.KEEP_S,
    broker_connection_retry_on_startup=True,
)


@app.task(name="generate")
def generate(prompt: str, bulk_id: str, model: str, max_tokens: int) -> dict[str, object]:
    """Let ``model`` answer one prompt."""
    # Here, so that the API, which only sends, does not load the engine.
    from demo import engine

    answer = engine.chat(model, prompt, max_tokens)
    logger.info("%d tokens in, %d out, stopped by %s", answer.input_tokens, answer.output_tokens, answer.finish_reason)
    return asdict(answer)
