"""Which of the thirteen numbers a library's version has been seen to deliver; ``docs/compatibility.md`` of it.

The tests are shared among processes: each adds what it has seen to one file, and who has started them reads it.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from tests.compatibility import libraries

DOCUMENT = Path(__file__).parents[2] / "docs" / "compatibility.md"

NUMBERS = {
    "1": "API requests", "2": "API failures", "3": "time to enqueue", "4": "jobs", "5": "job failures",
    "6": "queue wait", "7": "inference time", "8": "CPU", "9": "RAM", "10": "output tokens", "11": "input tokens",
    "12": "tokens/s", "13": "wait ratio",
}  # fmt: skip

# The part of a bulk's way that a kind of library sees; the other numbers are another kind's to deliver.
KINDS = {
    "API": (("1", "2"), ("fastapi", "starlette")),
    "queue": (
        ("3", "4", "5", "6", "13"),
        (
            "celery",
            "celery -P gevent",
            "celery -P eventlet",
            "rq",
            "dramatiq",
            "huey",
            "arq",
            "taskiq",
            "bullmq",
            "saq",
            "saq on PostgreSQL",
            "procrastinate",
            "celery on RabbitMQ",
            "dramatiq on RabbitMQ",
            "pika",
            "aio-pika",
            "aiokafka",
            "confluent-kafka",
            "boto3 (SQS)",
        ),
    ),
    "engine": (
        ("7", "8", "9", "10", "11", "12"),
        ("xllamacpp", "llama-cpp-python", "transformers", "openai", "urllib3", "aiohttp"),
    ),
}

NOTES = {
    "celery -P gevent": "As `-P eventlet`: Celery's patches are made before telemetry is set up, by `bulkscope run`, "
    "and by `opentelemetry-instrument` where no distribution has set up the SDK before that. Inferences of greenlets "
    "take turns in one thread: those that overlap share its CPU time as an estimate, and nothing is sent while one "
    "computes.",
    "openai": "Any server with OpenAI's, llama-server's, Ollama's or Anthropic's paths, through `openai`, `ollama`, "
    "`anthropic`, `httpx` or `httpx2`. The engine is another process: CPU and RAM are measured where it runs on this "
    "machine under the same user, outside of a container of its own, and are absent elsewhere. "
    "A stream has tokens when the server says them (`stream_options`, or llama.cpp's timings).",
    "urllib3": "As openai, also through `requests`.",
    "aiohttp": "As openai; `litellm` sends by `httpx` over it, and is seen once.",
    "bullmq": "A job that is tried again has no queue wait: the broker puts it back and does not say when. "
    "Its oldest age is reported where no job has a priority.",
    "pika": "RabbitMQ 3.10. Which messages are jobs, and where an attempt begins and ends: [messages.md](messages.md). "
    "A message that the broker puts back has no queue wait: it does not say when.",
    "aio-pika": "As pika.",
    "aiokafka": "Kafka 4.4. As pika; the depth of a topic is what the group has not committed, and an error is known "
    "when it leaves the consumer's loop, a task or a call in a pool.",
    "confluent-kafka": "As aiokafka.",
    "taskiq": "The depth of the queue is reported for lists and streams on Redis.",
    "huey": "A serializer of the application's own carries nothing: its jobs are in traces of their own, without wait.",
    "arq": "Cancelled jobs that are run again wait from the moment they were first due.",
    "transformers": "A prompt without an attention mask counts with all its tokens.",
    "saq": "Cron jobs begin traces of their own; their wait is from SAQ's own clock. `job.to_dict()`, and a worker "
    "without Bulkscope, show what travels as `meta.bulkscope`.",
    "saq on PostgreSQL": "As saq. There a job is wanted at a whole second, and 0.16 begins it up to 1 s before.",
    "procrastinate": "The bulk travels in one of a job's two locks: a job that has both of its own goes without, and "
    "is counted in `bulk.telemetry.dropped`. A worker without Bulkscope sees our text as the job's lock; as each text "
    "is another one, it locks nothing. Periodic jobs have no wait. The depth is reported with psycopg.",
    "boto3 (SQS)": "On ElasticMQ. Which messages are jobs, and where an attempt begins and ends: "
    "[messages.md](messages.md). A message that is received again has no queue wait: SQS does not say since when it "
    "could be. The age of the oldest is not reported: only CloudWatch has it. aiobotocore is left alone.",
    "rq": "Jobs of a queue with `is_async=False` belong to the caller's span: no queue is crossed.",
}

# The variable with the path of the file; without it nothing is noted.
NOTES_IN = "BULKSCOPE_COMPATIBILITY_NOTES"

Seen = Mapping[tuple[str, str], set[str]]


def note(library: str, version: str, *numbers: str) -> None:
    """Say that a test has seen these numbers, right, from this version of the library."""
    if path := os.environ.get(NOTES_IN):
        with open(path, "a") as file:  # a line is written at once, whoever writes beside us
            file.write(json.dumps([library, version, numbers]) + "\n")


def noted(path: Path) -> Seen:
    """Return by library and version which numbers were seen."""
    found: dict[tuple[str, str], set[str]] = {}
    for line in path.read_text().splitlines() if path.exists() else ():
        library, version, numbers = json.loads(line)
        found.setdefault((library, version), set()).update(numbers)
    return found


def complete(seen: Seen) -> bool:
    """Tell whether each library was seen in all of its versions."""
    wanted = Counter(each.name for each in libraries.ROWS)
    wanted.update({"fastapi": 2, "starlette": 1, "xllamacpp": 1})
    return all(sum(name == library for library, _ in seen) >= count for name, count in wanted.items())


def write(path: Path) -> None:
    """Write ``docs/compatibility.md`` when the notes are of every library in every version."""
    seen = noted(path)
    if complete(seen):
        DOCUMENT.write_text(markdown(seen))


def markdown(seen: Seen) -> str:
    """Return ``docs/compatibility.md``."""
    lines = [
        "# Compatibility",
        "",
        "Written by the tests in `tests/compatibility` and `tests/instrumentation`, which run each library in its",
        "oldest and newest supported version: `✔` was seen to be right by them. Each number comes from the part of a",
        "bulk's way that sees it; the columns are the thirteen numbers of the README. A version outside the range is",
        "not instrumented, and one line in the log says so.",
        "",
    ]
    for kind, (numbers, names) in KINDS.items():
        head = " | ".join(f"{number} {NUMBERS[number]}" for number in numbers)
        lines += [f"## {kind}", "", f"| library | version | {head} |", "|---|---|" + ":-:|" * len(numbers)]
        for name in names:
            versions = [version for library, version in seen if library == name]
            for version in sorted(versions, key=_order):
                cells = " | ".join("✔" if number in seen[name, version] else "–" for number in numbers)
                lines.append(f"| {name} | {version} | {cells} |")
        lines += ["", *(f"- {name}: {NOTES[name]}" for name in names if name in NOTES)]
        lines.append("")
    lines += [
        "Threads, thread pools, `run_in_executor`, `asyncio.to_thread` and process pools go on in the context of who",
        "started them. For a queue or an engine that is not here: [own-code.md](own-code.md).",
        "",
        "Where another instrumentation of the same library is installed (OpenTelemetry's contrib, OpenLLMetry's,",
        "Elastic's, the library's own), ours stays and the other does nothing, so that there is one span:",
        "`BULKSCOPE_<LIBRARY>=contrib` turns that round, for example `BULKSCOPE_CELERY=contrib`.",
        "",
    ]
    return "\n".join(lines)


def _order(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())
