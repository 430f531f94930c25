"""Every name that Bulkscope writes or reads, in one place.

Standard names (OpenTelemetry semantic conventions: HTTP, messaging, gen_ai, process, system)
come first; names of our own exist only where no standard one does, all under ``bulk.``.
``docs/telemetry.md`` is generated from this module (``python -m bulkscope.conventions``).

The module imports nothing, so that the reading side can share it without carrying an SDK.
"""

from __future__ import annotations

from dataclasses import dataclass

# --- bulk and job -------------------------------------------------------------------------
BULK_ID = "bulk.id"
BULK_ID_SOURCE = "bulk.id.source"
BULK_SIZE = "bulk.size"
BULK_OUTCOME = "bulk.outcome"
BULK_ENQUEUE_DURATION = "bulk.enqueue.duration"
BULK_FAILURE_DOMAIN = "bulk.failure.domain"
JOB_ID = "bulk.job.id"
JOB_ATTEMPT = "bulk.job.attempt"
JOB_DELAY = "bulk.job.delay"
JOB_IMPORT = "bulk.job.import.duration"
JOB_WAIT_RATIO = "bulk.job.wait_ratio"
JOB_WAIT_NEGATIVE = "bulk.job.wait_negative"
LOG_TRUNCATED = "bulk.log.truncated"
OOM_KILLS = "bulk.worker.oom_kills"
JOB_QUEUE_WAIT = "bulk.job.queue_wait"
TIME_IN_QUEUE = "gen_ai.latency.time_in_queue"

# --- standard names used -------------------------------------------------------------------
ERROR_TYPE = "error.type"
HTTP_REQUEST_METHOD = "http.request.method"
HTTP_RESPONSE_STATUS_CODE = "http.response.status_code"
HTTP_ROUTE = "http.route"
URL_PATH = "url.path"
URL_SCHEME = "url.scheme"
MESSAGING_SYSTEM = "messaging.system"
MESSAGING_OPERATION_NAME = "messaging.operation.name"
MESSAGING_OPERATION_TYPE = "messaging.operation.type"
MESSAGING_DESTINATION = "messaging.destination.name"
MESSAGING_MESSAGE_ID = "messaging.message.id"
TASK_NAME = "bulk.task.name"
GEN_AI_OPERATION = "gen_ai.operation.name"
GEN_AI_PROVIDER = "gen_ai.provider.name"
GEN_AI_MODEL = "gen_ai.request.model"
GEN_AI_RESPONSE_MODEL = "gen_ai.response.model"
GEN_AI_MAX_TOKENS = "gen_ai.request.max_tokens"
GEN_AI_FINISH_REASONS = "gen_ai.response.finish_reasons"
GEN_AI_INPUT_TOKENS = "gen_ai.usage.input_tokens"
GEN_AI_OUTPUT_TOKENS = "gen_ai.usage.output_tokens"
GEN_AI_CACHED_TOKENS = "gen_ai.usage.cache_read.input_tokens"
GEN_AI_TOKEN_TYPE = "gen_ai.token.type"
GEN_AI_TTFT = "gen_ai.latency.time_to_first_token"
GEN_AI_PREFILL = "gen_ai.latency.time_in_model_prefill"
GEN_AI_DECODE = "gen_ai.latency.time_in_model_decode"

# --- one inference -------------------------------------------------------------------------
CPU_TIME = "bulk.inference.cpu.time"
CPU_UTILIZATION = "bulk.inference.cpu.utilization"
CPU_EXACT = "bulk.inference.cpu.exact"
CPU_PRESSURE = "bulk.inference.cpu.pressure"
CPU_THROTTLED = "bulk.inference.cpu.throttled"
CPU_WAIT = "bulk.inference.cpu.wait"
MEMORY_START = "bulk.inference.memory.start"
MEMORY_PEAK = "bulk.inference.memory.peak"
MEMORY_GROWTH = "bulk.inference.memory.growth"
MEMORY_FILE = "bulk.inference.memory.file"
MEMORY_ANON = "bulk.inference.memory.anon"
MEMORY_LIMIT = "bulk.inference.memory.limit"
MEMORY_EXACT = "bulk.inference.memory.exact"
ENGINE_PID = "bulk.inference.engine.pid"
ENGINE_COMMAND = "bulk.inference.engine.command"
BATCH_SIZE = "bulk.inference.batch_size"
PROMPT_INDEX = "bulk.inference.prompt.index"
TOKENS_PER_SECOND = "bulk.inference.tokens_per_second"
DECODE_TOKENS_PER_SECOND = "bulk.inference.decode_tokens_per_second"

# --- resource ------------------------------------------------------------------------------
SERVICE_NAME = "service.name"
SERVICE_INSTANCE_ID = "service.instance.id"
HOST_NAME = "host.name"
PROCESS_PID = "process.pid"
CONTAINER_ID = "container.id"
# Read where others give it: of a pod it says what a container's id says.
K8S_POD_NAME = "k8s.pod.name"
WORKER_SLOT = "bulk.worker.slot"
WORKER_CPUS = "bulk.worker.cpus"
WORKER_CPU_SET = "bulk.worker.cpu.set"
WORKER_MEMORY_LIMIT = "bulk.worker.memory.limit"
SAMPLING = "bulk.sampling"
SAMPLING_RATIO = "bulk.sampling.ratio"

# --- log events ----------------------------------------------------------------------------
EVENT_JOB_STARTED = "bulk.job.started"
EVENT_JOB_HEARTBEAT = "bulk.job.heartbeat"
JOB_ELAPSED = "bulk.job.elapsed"
EVENT_REQUEST = "http.server.request"
EVENT_PROMPT = "bulk.inference.prompt"

# --- metrics -------------------------------------------------------------------------------
M_HTTP_SERVER_DURATION = "http.server.request.duration"
M_CLIENT_OPERATION_DURATION = "messaging.client.operation.duration"
M_PROCESS_DURATION = "messaging.process.duration"
M_SENT_MESSAGES = "messaging.client.sent.messages"
M_CONSUMED_MESSAGES = "messaging.client.consumed.messages"
M_QUEUE_WAIT = JOB_QUEUE_WAIT
M_WAIT_RATIO = JOB_WAIT_RATIO
M_INFERENCE_DURATION = "gen_ai.client.operation.duration"
M_TOKEN_USAGE = "gen_ai.client.token.usage"
M_INFERENCE_CPU_TIME = CPU_TIME
M_INFERENCE_MEMORY_PEAK = MEMORY_PEAK
M_TOKENS_PER_SECOND = TOKENS_PER_SECOND
M_PROCESS_CPU_UTILIZATION = "process.cpu.utilization"
M_PROCESS_MEMORY_USAGE = "process.memory.usage"
M_QUEUE_DEPTH = "bulk.queue.depth"
M_QUEUE_OLDEST_AGE = "bulk.queue.oldest_age"
M_WORKER_BUSY = "bulk.worker.busy"
M_WORKER_MEMORY_UTILIZATION = "bulk.worker.memory.utilization"
M_WORKER_CPU_THROTTLED = "bulk.worker.cpu.throttled"
M_DROPPED = "bulk.telemetry.dropped"
M_SYSTEM_CPU_UTILIZATION = "system.cpu.utilization"
M_SYSTEM_MEMORY_UTILIZATION = "system.memory.utilization"
M_SYSTEM_MEMORY_USAGE = "system.memory.usage"
M_SYSTEM_PAGING_FAULTS = "system.paging.faults"
M_SYSTEM_CPU_LOAD_1M = "system.cpu.load_average.1m"
# PSI has no OpenTelemetry name yet: share of the last interval (0..1) in which work stalled,
# attributes resource=cpu|memory|io, level=some|full.
M_SYSTEM_PRESSURE = "bulk.system.pressure"
# Nor has this: processes that the kernel has killed for memory since it started.
M_SYSTEM_OOM_KILLS = "bulk.system.oom_kills"

# --- closed sets ---------------------------------------------------------------------------
# `retry` is an attempt of a job that failed and will be made again: no failure of the job.
OUTCOMES = ("ok", "client_error", "overload", "internal_error", "retry")
FAILURE_DOMAINS = ("input", "model", "resource", "infra", "timeout", "code")

# --- bucket boundaries ---------------------------------------------------------------------
_REQUEST_SECONDS = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 30.0, 60.0,
)  # fmt: skip
_WAIT_SECONDS = (
    0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0,
    3600.0, 7200.0, 21600.0,
)  # fmt: skip
_INFERENCE_SECONDS = (
    0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 60.0, 120.0, 300.0, 600.0, 1200.0, 1800.0,
)  # fmt: skip
_TOKENS = (1, 4, 16, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 65536, 262144, 1048576)
_BYTES = tuple(float(2**n) for n in range(24, 40))  # 16 MiB to 512 GiB
_RATIO = tuple(round(0.05 * n, 2) for n in range(1, 21))
_RATE = (0.5, 1, 2, 5, 10, 20, 30, 50, 75, 100, 150, 200, 500, 1000)


@dataclass(frozen=True, slots=True)
class Metric:
    """One instrument: kind is ``histogram``, ``counter``, ``updown`` or ``gauge``."""

    name: str
    kind: str
    unit: str
    description: str
    number: str  # of the thirteen numbers, "" where it stands beside them
    buckets: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Number:
    """One of the thirteen numbers, and what it is of: the one definition, whoever computes it."""

    number: int
    name: str
    definition: str


@dataclass(frozen=True, slots=True)
class Attribute:
    """One span or log attribute; ``type`` is ``str``, ``int``, ``float`` or ``bool``."""

    name: str
    type: str
    unit: str
    description: str
    number: str


NUMBERS: tuple[Number, ...] = (
    Number(1, "API requests", "Requests that a service answered. Of one bulk: those that named it and could send jobs; one that reads (GET, HEAD, OPTIONS) counts where it sent one. Per second: their number over the time from the first start to the last."),
    Number(2, "API success and failure", "Requests by `bulk.outcome`. Where there is none the HTTP status decides: 429 and 503 are overload, other 4xx client_error, other 5xx, and an error after a good status, internal_error, the rest ok; without either the outcome is unknown."),
    Number(3, "API latency", "Seconds from a request's start to the end of its answer. Apart: `bulk.enqueue.duration`, the part of it that handing jobs to the broker took, a sum."),
    Number(4, "jobs over time", "Jobs done: those whose last attempt (the highest, of equal ones the one that began last) was good. Per second: jobs done over the makespan, from the first enqueue to the last end; jobs that failed are not in it."),
    Number(5, "job success and failure", "Jobs whose last attempt failed and is not tried again, by `bulk.failure.domain`, unknown where there is none."),
    Number(6, "time to process", "Of each attempt that ended, retried ones too. Wait: start of work - enqueue - delay; negative ones (clock skew) are left out and counted. Work: end - start."),
    Number(7, "inference time", "Seconds from the start of an inference to its end. First token, prefill and decode as the engine says."),
    Number(8, "CPU during inference", "CPU seconds, a sum; for each output token: a sum over a sum. Share of the cores: the mean of the inferences' `bulk.inference.cpu.utilization`."),
    Number(9, "RAM during inference", "The highest peak and the highest growth; of the start the mean."),
    Number(10, "tokens generated", "Output tokens, a sum."),
    Number(11, "tokens used", "Input tokens, a sum, cached ones included; of these the cached ones apart."),
    Number(12, "tokens per second", "Output tokens over inference time: a sum over a sum. In decode: output tokens but the first of each inference, which prefill yields, over time in decode, n - 1 tokens of n; of inferences with two tokens or more."),
    Number(13, "wait ratio", "Wait over wait + delay + work of an attempt, without negative waits; the mean over the attempts."),
)  # fmt: skip

METRICS: tuple[Metric, ...] = (
    Metric(M_HTTP_SERVER_DURATION, "histogram", "s", "Duration of HTTP server requests, by route, status and bulk.outcome.", "1,2,3", _REQUEST_SECONDS),
    Metric(M_CLIENT_OPERATION_DURATION, "histogram", "s", "Time to hand one job to the broker.", "3", _REQUEST_SECONDS),
    Metric(M_PROCESS_DURATION, "histogram", "s", "Time one job was worked on, by outcome and bulk.failure.domain.", "4,5,6", _INFERENCE_SECONDS),
    Metric(M_SENT_MESSAGES, "counter", "{message}", "Jobs handed to the broker.", "4"),
    Metric(M_CONSUMED_MESSAGES, "counter", "{message}", "Jobs taken from the broker.", "4"),
    Metric(M_QUEUE_WAIT, "histogram", "s", "Queue wait of a job: start of work - enqueue - scheduled delay. Negative waits (clock skew) are left out.", "6", _WAIT_SECONDS),
    Metric(M_INFERENCE_DURATION, "histogram", "s", "Duration of one inference.", "7", _INFERENCE_SECONDS),
    Metric(M_INFERENCE_CPU_TIME, "histogram", "s", "CPU seconds of one inference.", "8", _INFERENCE_SECONDS),
    Metric(M_INFERENCE_MEMORY_PEAK, "histogram", "By", "Peak resident memory of the process during one inference.", "9", _BYTES),
    Metric(M_TOKEN_USAGE, "histogram", "{token}", "Tokens of one inference, by gen_ai.token.type.", "10,11", _TOKENS),
    Metric(M_TOKENS_PER_SECOND, "histogram", "{token}/s", "Output tokens over inference time.", "12", _RATE),
    Metric(M_WAIT_RATIO, "histogram", "1", "Queue wait over total latency (wait, delay and work) of the attempt.", "13", _RATIO),
    Metric(M_PROCESS_CPU_UTILIZATION, "gauge", "1", "CPU of this process as a share of the cores it may use.", "8"),
    Metric(M_PROCESS_MEMORY_USAGE, "updown", "By", "Resident memory of this process.", "9"),
    Metric(M_WORKER_MEMORY_UTILIZATION, "gauge", "1", "Memory that the limited cgroup of this process holds, caches it could give back left out, over the limit; absent without a limit.", "9"),
    Metric(M_WORKER_CPU_THROTTLED, "counter", "s", "Time for which the quota of this process's cgroup has held its tasks back; absent without a quota.", "8"),
    Metric(M_QUEUE_DEPTH, "gauge", "{job}", "Jobs waiting in the queue.", ""),
    Metric(M_QUEUE_OLDEST_AGE, "gauge", "s", "Age of the oldest waiting job.", ""),
    Metric(M_WORKER_BUSY, "updown", "{worker}", "Jobs being worked on in this process.", ""),
    Metric(M_DROPPED, "counter", "{record}", "Telemetry records that could not be delivered, by signal and reason.", ""),
)  # fmt: skip

ATTRIBUTES: tuple[Attribute, ...] = (
    Attribute(BULK_ID, "str", "", "Id of the bulk; on every span and log record of its jobs, never on a metric.", "all"),
    Attribute(BULK_ID_SOURCE, "str", "", "Where the id came from: baggage, body, path, query, header, payload, trace.", "all"),
    Attribute(BULK_SIZE, "int", "{job}", "Jobs of this bulk that the request published; those of other bulks are left out.", "3"),
    Attribute(BULK_OUTCOME, "str", "", "ok, client_error, overload or internal_error; of a job's attempt also retry (failed, will be tried again).", "2"),
    Attribute(BULK_ENQUEUE_DURATION, "float", "s", "Sum over the request's jobs of the time to hand each to the broker.", "3"),
    Attribute(BULK_FAILURE_DOMAIN, "str", "", "input, model, resource, infra, timeout or code.", "5"),
    Attribute(JOB_ID, "str", "", "Id of the job, as its queue knows it.", "4"),
    Attribute(JOB_ATTEMPT, "int", "", "1 for the first try.", "6"),
    Attribute(JOB_DELAY, "float", "s", "Scheduled delay (ETA, countdown, retry back-off); not part of the queue wait.", "6"),
    Attribute(JOB_IMPORT, "float", "s", "Of the attempt's time: importing the module of its task. Where a worker forks a process for each job, as RQ's does, each job pays for it; absent where the module was there.", "6"),
    Attribute(TIME_IN_QUEUE, "float", "s", "Queue wait, raw and signed.", "6"),
    Attribute(JOB_WAIT_NEGATIVE, "bool", "", "True when the wait came out negative (clock skew).", "6"),
    Attribute(JOB_WAIT_RATIO, "float", "1", "Wait over total latency (wait, delay and work), 0..1; absent when the wait is negative.", "13"),
    Attribute(PROCESS_PID, "int", "", "On the span of a job whose process was killed, which its parent records: that process; the resource is the parent's.", "5"),
    Attribute(WORKER_SLOT, "str", "", "On such a span: the slot that this process filled in its pool, as on the resource of its own spans.", "5"),
    Attribute(TASK_NAME, "str", "", "Name of the task, as its queue knows it.", "4"),
    Attribute(GEN_AI_MODEL, "str", "", "Model asked for.", "7"),
    Attribute(GEN_AI_INPUT_TOKENS, "int", "{token}", "Tokens of the prompt, cached ones included.", "11"),
    Attribute(GEN_AI_CACHED_TOKENS, "int", "{token}", "Prompt tokens taken from the cache.", "11"),
    Attribute(GEN_AI_OUTPUT_TOKENS, "int", "{token}", "Tokens generated.", "10"),
    Attribute(GEN_AI_TTFT, "float", "s", "Time to the first token.", "7"),
    Attribute(GEN_AI_PREFILL, "float", "s", "Time in prefill, from the engine.", "7"),
    Attribute(GEN_AI_DECODE, "float", "s", "Time in decode, from the engine.", "7"),
    Attribute(CPU_TIME, "float", "s", "CPU seconds of the inference, native threads included.", "8"),
    Attribute(CPU_UTILIZATION, "float", "1", "CPU time over wall time times the cores the process may use.", "8"),
    Attribute(CPU_EXACT, "bool", "", "False when the CPU time is an estimate (inferences overlapped, threads came or went, child processes worked).", "8"),
    Attribute(CPU_PRESSURE, "float", "1", "Share of the inference in which some task waited for a CPU (PSI).", "8"),
    Attribute(CPU_THROTTLED, "float", "s", "Time throttled by the cgroup's quota.", "8"),
    Attribute(CPU_WAIT, "float", "s", "Time in which threads of the process could have run and had no CPU, summed over threads (schedstat); beside the CPU time it says whether the cores were too few.", "8"),
    Attribute(MEMORY_START, "int", "By", "Resident memory when the inference began.", "9"),
    Attribute(MEMORY_PEAK, "int", "By", "Highest resident memory during the inference.", "9"),
    Attribute(MEMORY_GROWTH, "int", "By", "Peak minus start.", "9"),
    Attribute(MEMORY_FILE, "int", "By", "File-backed part of resident memory at the end (mapped weights).", "9"),
    Attribute(MEMORY_ANON, "int", "By", "Anonymous part of resident memory at the end.", "9"),
    Attribute(MEMORY_LIMIT, "int", "By", "Memory the process may use.", "9"),
    Attribute(MEMORY_EXACT, "bool", "", "False when the peak was sampled, not read from the kernel.", "9"),
    Attribute(ENGINE_PID, "int", "", "Process of this host that answered the call, where it is another one: CPU and memory of the inference are that process's and its children's.", "8,9"),
    Attribute(ENGINE_COMMAND, "str", "", "Name of that process, as the kernel has it.", "8,9"),
    Attribute(TOKENS_PER_SECOND, "float", "{token}/s", "Output tokens over inference time.", "12"),
    Attribute(DECODE_TOKENS_PER_SECOND, "float", "{token}/s", "Output tokens after the first (which prefill yields) over decode time; absent below two tokens.", "12"),
    Attribute(BATCH_SIZE, "int", "{prompt}", "Prompts in the one call, where the engine was given several; tokens are their sums.", "7"),
    Attribute(PROMPT_INDEX, "int", "", "On the event bulk.inference.prompt: which prompt of the batch, from 0.", "10,11"),
    Attribute(JOB_ELAPSED, "float", "s", "On heartbeats: time since the job began.", ""),
    Attribute(OOM_KILLS, "int", "{process}", "On job events: processes that the kernel has killed for memory, ever, in the worker's memory cgroup, else on its host.", "5"),
    Attribute(M_WORKER_MEMORY_UTILIZATION, "float", "1", "On job events: as the metric of this name, at most half a second before.", "9"),
    Attribute(LOG_TRUNCATED, "int", "{char}", "On log records: characters cut off the body and the attributes; absent when none were.", ""),
)  # fmt: skip

RESOURCE: tuple[Attribute, ...] = (
    Attribute(WORKER_SLOT, "str", "", "The slot that the process fills in a pool whose processes come and go: the pool's process and the slot's number, as `1234#2`. With it a worker is the slot, whichever process fills it: one of Celery's pool, or RQ's worker with its work horses. Absent of any other process.", "4"),
    Attribute(WORKER_CPUS, "float", "{core}", "Cores that the process may use; a quota makes it a fraction.", "8"),
    Attribute(WORKER_CPU_SET, "str", "", "Which cores these are, as `0-3,8`.", "8"),
    Attribute(WORKER_MEMORY_LIMIT, "int", "By", "Memory that the process's cgroup may hold.", "9"),
    Attribute(SAMPLING, "str", "", "Description of the sampler that our spans are left to (`BULKSCOPE_SAMPLING=respect`): jobs and requests are missing, and counts by spans are too low. Absent where every span of ours is recorded, which is the default whatever sampler is configured.", "all"),
    Attribute(SAMPLING_RATIO, "float", "1", "Share of the traces that this sampler keeps; absent where it has no ratio of its own, as when the caller decides.", "all"),
)  # fmt: skip


def markdown() -> str:
    """Return ``docs/telemetry.md``."""
    lines = [
        "# Telemetry",
        "",
        "Generated from `otel/bulkscope/conventions.py` by `python -m bulkscope.conventions`; do not edit.",
        "",
        "## The thirteen numbers",
        "",
        "Each has this one definition in the studio's pages, reports, Kibana and Prometheus;",
        "`tests/engines/test_numbers.py` loads one bulk into all of them and compares. A ratio that is said to be a sum",
        "over a sum is of the inferences that have both.",
        "",
        "| # | number | definition |",
        "|---|---|---|",
        *(f"| {n.number} | {n.name} | {n.definition} |" for n in NUMBERS),
        "",
        "Quantiles are exact in reports and pages: linear interpolation between order statistics (Hyndman and Fan,",
        "type 7), of a sample where a page says so. Kibana's are those of a t-digest. Prometheus has histograms: a",
        "quantile is right to within its bucket, a sum, a count and a mean are exact. Three things Prometheus cannot",
        "tell apart: it counts attempts where the others count jobs, so that a job that was delivered twice counts",
        "twice; it has the tokens per second of inferences without an error, and none of decode; cached tokens and the",
        "highest value of anything are not in it.",
        "",
        "## Metrics",
        "",
        "The column *number* refers to the numbers above.",
        "",
        "| name | kind | unit | number | meaning |",
        "|---|---|---|---|---|",
    ]
    lines += [f"| `{m.name}` | {m.kind} | `{m.unit}` | {m.number} | {m.description} |" for m in METRICS]
    lines += ["", "## Attributes of spans and log records", "", "| name | type | unit | number | meaning |"]
    lines += ["|---|---|---|---|---|"]
    lines += [f"| `{a.name}` | {a.type} | `{a.unit or '-'}` | {a.number} | {a.description} |" for a in ATTRIBUTES]
    lines += ["", "## Attributes of the resource", "", "| name | type | unit | number | meaning |"]
    lines += ["|---|---|---|---|---|"]
    lines += [f"| `{a.name}` | {a.type} | `{a.unit or '-'}` | {a.number} | {a.description} |" for a in RESOURCE]
    lines += [
        "",
        "## Log events",
        "",
        f"- `{EVENT_JOB_STARTED}`: a job begins; carries the ids of the span to come.",
        f"- `{EVENT_JOB_HEARTBEAT}`: every second while it runs, at severity DEBUG, with elapsed time, CPU and memory so far.",
        f"- `{EVENT_REQUEST}`: an API hit, where the server wrote no access log line of its own.",
        "",
        "## Span events",
        "",
        f"- `{EVENT_PROMPT}`: one prompt of a batch, on the inference's span, with its own tokens.",
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    print(markdown(), end="")
