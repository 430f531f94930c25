"""The libraries whose oldest and newest supported versions are tested, each in an environment of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Queue:
    """One library at one version; ``delayed`` is False where its broker cannot delay a job."""

    name: str
    age: str
    requirements: tuple[str, ...]
    worker: tuple[str, ...]
    delayed: bool = True
    # What only this library has: outcome and failure domain of the job that its application publishes last.
    own: tuple[str, str] | None = None
    # The broker puts a job back itself and does not say when, so that there is no wait to report.
    wait_of_a_retry: bool = True
    # Its application also publishes this many jobs that ask a model, beside each other in one thread.
    greenlets: int = 0
    package: str = ""
    application: str = ""
    # A name in ``brokers.BROKERS``, and what its jobs' spans call it.
    broker: str = "valkey"
    system: str = "redis"

    def __str__(self) -> str:
        return f"{self.name} {self.age}"


def both(name: str, old: tuple[str, ...], new: tuple[str, ...], worker: str, **rest: Any) -> tuple[Queue, Queue]:
    words = tuple(worker.split())
    return Queue(name, "oldest", old, words, **rest), Queue(name, "newest", new, words, **rest)


QUEUES = [
    # The newest with contrib's instrumentation beside it: still one span, ours.
    *both("celery", ("celery[redis]==5.3.*", "kombu<5.4", "redis<6"),
          ("celery[redis]", "opentelemetry-instrumentation-celery"),
          "celery -A celery_app worker -P prefork -c 1 --without-mingle -Q bulk -l INFO",
          own=("internal_error", "code")),
    *(
        Queue(f"celery -P {pool}", "newest", ("celery[redis]", pool),
              tuple(f"celery -A celery_greenlets_app worker -P {pool} -c 4 --without-mingle -Q bulk -l INFO".split()),
              own=("internal_error", "code"), greenlets=4, package="celery", application="celery_greenlets_app")
        for pool in ("gevent", "eventlet")
    ),
    *both("rq", ("rq==1.16.*", "redis<6"), ("rq", "redis"), "rq worker --with-scheduler --url $BROKER bulk"),
    *both("dramatiq", ("dramatiq[redis]==1.15.*", "redis<6"), ("dramatiq[redis]",),
          "dramatiq dramatiq_app -p 1 -t 1"),
    *both("huey", ("huey==2.4.*", "redis<6"), ("huey", "redis"), "python -m huey.bin.huey_consumer huey_app.huey"),
    *both("arq", ("arq==0.25.*", "redis<6"), ("arq",), "arq arq_app.Settings", own=("internal_error", "timeout")),
    *both("taskiq", ("taskiq==0.11.*", "taskiq-redis<1.1", "redis<6"), ("taskiq", "taskiq-redis"),
          "taskiq worker taskiq_app:broker --workers 1", delayed=False),
    *both("bullmq", ("bullmq==2.9.*", "redis<6"), ("bullmq",), "python bullmq_app.py", wait_of_a_retry=False),
    *both("saq", ("saq[redis]==0.16.*",), ("saq[redis]",), "saq -v saq_app.settings",
          own=("internal_error", "timeout")),
    *both("saq on PostgreSQL", ("saq[postgres]==0.16.*", "psycopg[binary]"), ("saq[postgres]", "psycopg[binary]"),
          "saq -v saq_app.settings", own=("internal_error", "timeout"), package="saq", application="saq_app",
          broker="postgres", system="postgres"),
    *both("procrastinate", ("procrastinate==2.0.*", "psycopg[binary]", "psycopg-pool==3.2.*"),
          ("procrastinate", "psycopg[binary]"),
          "procrastinate --app=procrastinate_app.app worker", broker="postgres", system="postgres"),
    # The newest with both of contrib's beside it: of boto3's SQS ours, botocore's calls as they are.
    *both("boto3 (SQS)", ("boto3==1.26.*",),
          ("boto3", "opentelemetry-instrumentation-botocore", "opentelemetry-instrumentation-boto3sqs"),
          "python sqs_app.py", package="boto3", application="sqs_app", broker="sqs", system="aws_sqs",
          wait_of_a_retry=False),
]  # fmt: skip


# Hand-written producers and consumers; ``messages/`` runs them. The newest with contrib's instrumentation beside it.
MESSAGES = [
    *both("pika", ("pika==1.2.*",), ("pika", "opentelemetry-instrumentation-pika"), "python pika_app.py",
          delayed=False, wait_of_a_retry=False, system="rabbitmq"),
    *both("aio-pika", ("aio-pika==9.0.*",), ("aio-pika", "opentelemetry-instrumentation-aio-pika"),
          "python aio_pika_app.py", delayed=False, wait_of_a_retry=False, system="rabbitmq",
          application="aio_pika_app"),
    *both("aiokafka", ("aiokafka==0.10.*",), ("aiokafka", "opentelemetry-instrumentation-aiokafka"),
          "python aiokafka_app.py", delayed=False, system="kafka"),
    *both("confluent-kafka", ("confluent-kafka==2.0.*",),
          ("confluent-kafka", "opentelemetry-instrumentation-confluent-kafka"), "python confluent_kafka_app.py",
          delayed=False, system="kafka", application="confluent_kafka_app"),
]  # fmt: skip

# Queues whose broker is RabbitMQ, asked there too: Dramatiq's sends by pika, and no job is two.
ON_RABBITMQ = [
    Queue("celery on RabbitMQ", "newest", ("celery",),
          ("celery", "-A", "celery_app", "worker", "-c", "1", "--without-mingle", "-l", "INFO", "-Q",
           "celery-on-RabbitMQ-newest"),
          own=("internal_error", "code"), system="rabbitmq", package="celery", application="celery_app"),
    Queue("dramatiq on RabbitMQ", "newest", ("dramatiq[rabbitmq]", "opentelemetry-instrumentation-pika"),
          ("dramatiq", "dramatiq_app", "-p", "1", "-t", "1"), system="rabbitmq", package="dramatiq",
          application="dramatiq_app"),
]  # fmt: skip


@dataclass(frozen=True)
class Engine:
    """One library at one version, and which of the thirteen numbers its tests look at."""

    name: str
    age: str
    module: str
    requirements: tuple[str, ...]
    numbers: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.name} {self.age}"


OWN = ("7", "8", "9", "10", "11", "12")
ENGINES = [
    Engine("transformers", "oldest", "engine_transformers", ("transformers==4.40.*", "torch<2.6", "numpy<2"), OWN),
    Engine("transformers", "newest", "engine_transformers", ("transformers", "torch"), OWN),
    Engine("llama-cpp-python", "newest", "engine_llama_cpp", ("llama-cpp-python", "gguf"), OWN),
    Engine("openai", "oldest", "engine_openai", ("openai==1.30.*", "httpx<0.28", "xllamacpp", "gguf"), OWN),
    Engine("openai", "newest", "engine_openai", ("openai", "xllamacpp", "gguf"), OWN),
    Engine("urllib3", "oldest", "engine_urllib3", ("requests==2.28.*", "urllib3==1.26.*", "xllamacpp", "gguf"), OWN),
    Engine("urllib3", "newest", "engine_urllib3", ("requests", "xllamacpp", "gguf"), OWN),
    Engine("aiohttp", "oldest", "engine_aiohttp", ("aiohttp==3.8.*", "xllamacpp", "gguf"), OWN),
    Engine("aiohttp", "newest", "engine_aiohttp", ("aiohttp", "xllamacpp", "gguf"), OWN),
]  # fmt: skip

# Those that the page of compatibility has rows of, beside the APIs and the demo's engine.
ROWS = (*QUEUES, *MESSAGES, *ON_RABBITMQ, *ENGINES)
