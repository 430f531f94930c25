"""``bulkscope doctor``: which Python it asks, and what it says of that Python's libraries and variables."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import venv as environments
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from bulkscope._doctor import engine, interpreter, libraries, meter, numbers
from bulkscope._doctor.command import examine
from bulkscope._doctor.findings import FAULT, OK, WARNING, Finding, Number, Result, read, text
from bulkscope._host.proc import Proc
from tests.processes import BIN, environment, free_port
from tests.venvs import Unavailable, venv

ROOT = Path(__file__).parents[2]
# Nothing listens there, and nothing needs to.
NOWHERE = "http://127.0.0.1:9"


def states(result: Result, subject: str) -> list[tuple[str, str]]:
    return [(found.state, found.what) for found in result.findings if found.subject == subject]


def one(result: Result, word: str) -> Finding:
    """Return the only finding that says ``word``."""
    found = [finding for finding in result.findings if word in finding.what]
    assert len(found) == 1, (word, [finding.what for finding in result.findings])
    return found[0]


def script(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o755)
    return path


# --- what is shown -----------------------------------------------------------------------------


def test_the_worst_finding_is_the_exit_code() -> None:
    assert Result(()).code == 0
    assert Result((Finding("a", OK, "b"),)).code == 0
    assert Result((Finding("a", WARNING, "b"), Finding("a", OK, "b"))).code == 1
    assert Result((Finding("a", FAULT, "b", "c"), Finding("a", WARNING, "b"))).code == 2


def test_text_has_subjects_states_remedies_and_no_control_characters() -> None:
    found = (
        Finding("end point", FAULT, "http://x:1: nothing\x1b[2J listens there", "start it " * 20),
        Finding("meter", OK, "fine"),
    )
    same = [Number(n, f"name {n}", "exact", "celery") for n in (4, 5, 6, 13)]
    shown = text(Result(found, (*same, Number(8, "CPU", "absent", "no engine"))), 80)
    assert shown.splitlines()[0] == "bulkscope doctor: nothing will arrive (1 fault)"
    assert "  FAULT    http://x:1: nothing [2J listens there\n           -> start it" in shown
    assert "meter\n  ok       fine\n" in shown
    assert "  exact      4-6, 13: celery\n  absent     8 CPU: no engine" in shown
    assert max(map(len, shown.splitlines())) <= 80
    assert "\x1b" not in shown


def test_json_is_read_as_it_was_written() -> None:
    result = Result((Finding("a", WARNING, "b", "c"),), (Number(1, "n", "exact", "w"),))
    assert read(json.loads(result.json())) == result
    with pytest.raises(KeyError):
        read({})
    with pytest.raises(TypeError):
        read({"findings": [{"subject": "a", "state": "odd", "what": "b", "todo": ""}], "numbers": []})


# --- which Python ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "python"),
    [
        (f"#!{sys.executable}\n", sys.executable),
        ("#!/usr/bin/env python\n", None),
        ("#!/usr/bin/env -S python -u\n", None),
        (f"#!/bin/sh\n'''exec' \"{sys.executable}\" \"$0\" \"$@\"\n' '''\n", sys.executable),
        (f"#!/bin/sh\n'''exec' {sys.executable} \"$0\" \"$@\"\n' '''\n", sys.executable),
    ],
)
def test_the_python_of_a_script_is_that_of_its_first_line(tmp_path: Path, first: str, python: str | None) -> None:
    name = str(script(tmp_path / "serve", first + "raise SystemExit('started')\n"))
    target = interpreter.of([name, "--port", "1"], {"PATH": f"{BIN}:/usr/bin:/bin"})
    assert target == interpreter.Target(python or str(BIN / "python"))


@pytest.mark.parametrize(
    ("words", "ignored"),
    [
        (["python", "-I", "-m", "app"], "-I"),
        (["python", "-uE", "app.py"], "-E"),
        (["python", "-X", "dev", "-S", "app.py"], "-S"),
        (["python", "-m", "app", "-I"], ""),
        (["python", "-u", "app.py", "-E"], ""),
        (["python", "-c", "print()", "-S"], ""),
        (["python", "-s", "-P", "app.py"], ""),
    ],
)
def test_python_that_ignores_the_hook_is_a_fault(words: list[str], ignored: str) -> None:
    target = interpreter.of(words, {"PATH": str(BIN)})
    assert [finding.state for finding in target.findings] == ([FAULT] if ignored else [])
    assert all(f"with {ignored}" in finding.what for finding in target.findings)


def test_a_first_line_that_ignores_the_hook_is_a_fault_and_really_does(tmp_path: Path) -> None:
    """The remedy's reason, with the real launcher: under -I the hook does not run, without it does."""
    for option, set_up in (("-I", "False"), ("-u", "True")):
        name = script(
            tmp_path / "serve", f"#!{sys.executable} {option}\nimport sys\nprint('bulkscope' in sys.modules)\n"
        )
        done = subprocess.run(
            [BIN / "bulkscope", "run", name], env=environment(NOWHERE, BULKSCOPE_FLUSH_TIMEOUT="0.1"),
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert done.stdout.split()[-1] == set_up
        target = interpreter.of([str(name)], dict(os.environ))
        assert bool(target.findings) is (set_up == "False")


def test_a_command_that_is_no_python_or_not_there(tmp_path: Path) -> None:
    name = str(script(tmp_path / "serve.sh", "#!/bin/sh\nexec python app.py\n"))
    target = interpreter.of([name], {"PATH": str(BIN)})
    assert target.python == str(BIN / "python")
    assert [finding.state for finding in target.findings] == [WARNING]
    target = interpreter.of(["no-such-command"], {"PATH": str(tmp_path)})
    assert target.python is None
    assert [finding.state for finding in target.findings] == [FAULT]
    gone = str(script(tmp_path / "gone", f"#!{tmp_path}/env/bin/python\n"))
    assert "is not there" in interpreter.of([gone], {"PATH": str(BIN)}).findings[0].what


def test_an_environment_without_bulkscope(tmp_path: Path) -> None:
    environments.create(tmp_path / "env", with_pip=False, symlinks=True)
    python = tmp_path / "env" / "bin" / "python"
    started = tmp_path / "started"
    name = script(tmp_path / "serve", f"#!{python}\nopen({str(started)!r}, 'w')\n")
    result = examine([str(name)], environment(NOWHERE))
    assert result.code == 2
    (found,) = result.findings
    assert f"Bulkscope is not in the environment of {python}" in found.what
    assert found.todo == (f"install it there, where the service's libraries are: {python} -m pip install bulkscope")
    assert not started.exists()


def test_the_command_is_not_started_and_its_python_is_asked(tmp_path: Path) -> None:
    started = tmp_path / "started"
    name = script(tmp_path / "serve", f"#!{sys.executable}\nopen({str(started)!r}, 'w')\n")
    result = examine([str(name)], environment(NOWHERE))
    assert f"{sys.executable}" in one(result, "Python 3.").what
    assert not started.exists()


# --- libraries and variables ----------------------------------------------------------------------


def test_each_instrumentation_of_ours_is_of_a_kind() -> None:
    points = {point.name for point in metadata.entry_points(group="opentelemetry_instrumentor")}
    ours = {name.removeprefix("bulkscope_") for name in points if name.startswith("bulkscope_")}
    assert ours == {name for names in libraries.KINDS.values() for name in names}


def test_the_numbers_are_those_of_the_readme() -> None:
    rows = re.findall(r"^\| (\d+) \| (.+?) \|", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert {number: name for number, (name, _) in numbers.NAMES.items()} == {int(n): name for n, name in rows}


def test_this_environment_is_well_but_for_the_end_point() -> None:
    result = examine([], environment(f"http://127.0.0.1:{free_port()}"))
    assert [what for state, what in states(result, "libraries") if state != OK] == []
    assert {"celery", "fastapi", "openai", "starlette", "xllamacpp"} <= {
        what.rpartition("(")[2].rstrip(")") for _, what in states(result, "libraries") if "instrumented (" in what
    }
    assert [what for state, what in states(result, "surroundings") if state != OK] == []
    assert one(result, "reach the worker").state == OK
    assert [number.number for number in result.numbers] == list(range(1, 14))
    assert {number.state for number in result.numbers if number.number not in (8, 9)} == {"exact"}
    assert one(result, "nothing listens there").state == FAULT
    assert result.code == 2


def test_switches_samplers_and_propagators() -> None:
    result = examine(
        ["celery", "-A", "app", "worker"],
        environment(
            NOWHERE, BULKSCOPE_CELERY="contrib", OTEL_PYTHON_DISABLED_INSTRUMENTATIONS="bulkscope_xllamacpp,redis",
            OTEL_TRACES_SAMPLER="traceidratio", OTEL_TRACES_SAMPLER_ARG="0.3", BULKSCOPE_SAMPLING="respect",
            OTEL_METRICS_EXPORTER="none", BULKSCOPE_LOGS="0", OTEL_PYTHON_FASTAPI_EXCLUDED_URLS="health",
        ),
    )  # fmt: skip
    celery = one(result, "celery ")
    assert (celery.state, celery.todo) == (WARNING, "unset BULKSCOPE_CELERY")
    assert "BULKSCOPE_CELERY=contrib, and none is installed" in celery.what
    assert "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS (bulkscope_xllamacpp)" in one(result, "xllamacpp ").what
    sampled = one(result, "OTEL_TRACES_SAMPLER=traceidratio")
    assert sampled.state == WARNING
    share = re.search(r"about (\d+)%", sampled.what)
    assert share is not None
    assert 20 <= int(share[1]) <= 40
    assert one(result, "OTEL_METRICS_EXPORTER=none").state == WARNING
    assert one(result, "BULKSCOPE_LOGS=0").state == WARNING
    assert "health" in one(result, "OTEL_PYTHON_FASTAPI_EXCLUDED_URLS").what
    absent = {number.number: number.why for number in result.numbers if number.state == "absent"}
    assert absent.keys() == {4, 5, 6, 8, 9, 13}
    assert absent[4].startswith("celery ")


@pytest.mark.parametrize("propagators", ["none", "tracecontext", "baggage,tracecontext"])
def test_whether_a_job_keeps_its_bulk_is_tried_and_not_read_off_a_variable(propagators: str) -> None:
    """Whatever the propagators: what the finding says is what a job between two processes shows."""
    env = environment(NOWHERE, OTEL_PROPAGATORS=propagators, BULKSCOPE_FLUSH_TIMEOUT="0.1")
    env["PATH"] = f"{BIN}:/usr/bin:/bin"

    def ran(code: str) -> str:
        words = [BIN / "bulkscope", "run", "python", "-c", f"import bulkscope, json\n{code}"]
        return subprocess.run(words, env=env, capture_output=True, text=True, check=True).stdout.splitlines()[0]

    headers = ran("with bulkscope.enqueue('q', bulk_id='b-1') as job: print(json.dumps(job.headers))")
    known = ran(
        "from bulkscope._jobs import bulks\n"
        f"with bulkscope.dequeue('q', headers=json.loads({headers!r})): print(bulks.current().id)"
    )
    found = one(examine([], env), "propagators: ")
    assert ("does not reach the worker" in found.what) is (known != "b-1"), (known, found)


def test_a_sampler_that_records_nothing_is_a_fault() -> None:
    result = examine([], environment(NOWHERE, OTEL_TRACES_SAMPLER="always_off", BULKSCOPE_SAMPLING="respect"))
    assert one(result, "no span is recorded").state == FAULT


def test_switched_off_altogether() -> None:
    result = examine([], environment(NOWHERE, OTEL_SDK_DISABLED="true"))
    assert result.code == 2
    assert one(result, "OTEL_SDK_DISABLED=true").todo == "unset OTEL_SDK_DISABLED"
    assert {number.state for number in result.numbers} == {"absent"}


def test_no_traces_no_telemetry() -> None:
    result = examine([], environment(NOWHERE, OTEL_TRACES_EXPORTER="none"))
    assert one(result, "OTEL_TRACES_EXPORTER=none").state == FAULT


@pytest.mark.compat
def test_an_environment_with_an_old_library_and_none_of_ours() -> None:
    try:
        python = venv("doctor-old", ["-e", str(ROOT), "rq==1.15.1"])
    except Unavailable as reason:
        if os.environ.get("BULKSCOPE_NO_SKIP") == "1":
            raise
        pytest.skip(f"no environment with an old RQ: {reason}")
    result = examine([str(python), "-m", "app"], environment(NOWHERE))
    rq = one(result, "rq 1.15.1")
    assert (rq.state, rq.todo) == (WARNING, 'pip install "rq >= 1.16"')
    assert "its version is not supported: Bulkscope needs rq >= 1.16" in rq.what
    assert not [finding for finding in result.findings if finding.what.startswith("celery")]
    states = {number.number: number.state for number in result.numbers}
    # Of no API; the telemetry itself brings a client for HTTP, which an engine may be called with.
    assert (states[1], states[4], states[7]) == ("elsewhere", "absent", "exact")


# --- the meter ------------------------------------------------------------------------------------


@pytest.fixture
def machine(tmp_path: Path) -> Callable[..., Proc]:
    """Return what makes a machine of files: ``/proc`` by paths, with underscores for slashes' sake left alone."""

    def make(**files: str) -> Proc:
        there = {
            "proc/self/status": "VmHWM:\t2048 kB\nVmRSS:\t1024 kB\nCpus_allowed_list:\t0-3\n",
            "proc/self/clear_refs": "",
            "proc/self/cgroup": "0::/app\n",
            "proc/self/task/1/schedstat": "1 2 3\n",
            "proc/pressure/cpu": "some avg10=0.00 avg60=0.00 avg300=0.00 total=5\n",
            "proc/meminfo": "MemTotal: 4194304 kB\n",
            "cgroup/cgroup.controllers": "cpu memory",
            "cgroup/app/memory.max": "2147483648\n",
            "cgroup/app/memory.current": "1073741824\n",
            "cgroup/app/cpu.stat": "throttled_usec 1500000\n",
        } | {name.replace("__", "/"): content for name, content in files.items()}
        for name, content in there.items():
            if content != "absent":
                path = tmp_path / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(content)
        return Proc(tmp_path / "proc", tmp_path / "cgroup")

    return make


def said(sight: meter.Sight) -> dict[str, Any]:
    return {finding.what: finding.state for finding in sight.findings}


def test_a_machine_that_shows_everything(machine: Callable[..., Proc]) -> None:
    sight = meter.sight(machine())
    assert (sight.cpu, sight.peak) == ("exact", "exact")
    assert set(said(sight).values()) == {OK}
    assert "memory limit 2,048 MiB, of its cgroup, 50% in use" in said(sight)
    assert "4 cores may be used; cgroup v2, held back by its quota for 1.5 s so far" in said(sight)


def test_a_machine_without_pressure_schedstat_and_a_peak_to_reset(machine: Callable[..., Proc]) -> None:
    sight = meter.sight(
        machine(proc__pressure__cpu="absent", proc__self__task__1__schedstat="absent", proc__self__clear_refs="absent")
    )
    # A folder in the place of the file: what is not there could be made by whoever may write into a folder.
    assert [what.partition(":")[0] for what, state in said(sight).items() if state == WARNING] == [
        "no PSI",
        "no schedstat",
    ]


def test_a_peak_that_may_not_be_reset_is_an_estimate(machine: Callable[..., Proc], tmp_path: Path) -> None:
    proc = machine(proc__self__clear_refs="absent")
    (tmp_path / "proc/self/clear_refs").mkdir()
    sight = meter.sight(proc)
    assert (sight.peak, "clear_refs" in sight.peak_why) == ("estimated", True)
    there = [libraries.Library("xllamacpp", "xllamacpp 1", "engine")]
    states = {number.number: number.state for number in numbers.numbers(there, sight, set_up=True)}
    assert states[9] == "estimated"


def test_without_proc_memory_is_absent(tmp_path: Path) -> None:
    sight = meter.sight(Proc(tmp_path / "proc", tmp_path / "cgroup"))
    assert sight.peak == "absent"
    assert WARNING in said(sight).values()


# --- an engine behind HTTP ------------------------------------------------------------------------


def behind(engines: list[engine.Engine]) -> dict[int, Number]:
    there = [libraries.Library("openai", "httpx 1", "client"), libraries.Library("rq", "rq 2", "queue")]
    return {number.number: number for number in numbers.numbers(there, meter.sight(), True, engines)}


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="this machine cannot: it has no /proc")
def test_the_process_of_an_engine_is_found_by_its_port(monkeypatch: pytest.MonkeyPatch) -> None:
    code = "import socket, time; s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1], flush=True)"
    with subprocess.Popen([sys.executable, "-c", f"{code}; time.sleep(600)"], stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        url = f"http://127.0.0.1:{int(server.stdout.readline())}"
        try:
            monkeypatch.setenv("OPENAI_BASE_URL", url.replace("http://", "http://anna:hunter2@") + "/v1")
            found = engine.engines("")[:1]
            result = examine([], environment(NOWHERE), engine=url)
        finally:
            server.kill()
    assert (found[0].shown, found[0].unseen) == (url, "")
    assert found[0].process.startswith(f"process {server.pid} (")
    assert engine.findings(found)[0].state == OK
    assert one(result, f"{url}: process {server.pid} (").subject == "engine"
    assert (behind(found)[8].state, behind(found)[9].state) == ("exact", "estimated")


def test_an_engine_that_cannot_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLAMA_HOST", f"0.0.0.0:{free_port()}")
    found = engine.engines("http://192.0.2.1:8000")[:2]
    assert [each.unseen.partition(" on port")[0] for each in found] == [
        "192.0.2.1 is another machine", "nothing in this network namespace listens",
    ]  # fmt: skip
    assert [(each.state, each.subject) for each in engine.findings(found)] == [(WARNING, "engine")] * 2
    assert (behind(found)[7].state, behind(found)[8].state, behind(found)[9].state) == ("exact", "absent", "absent")
    assert behind([])[8].state == "elsewhere"
    assert behind([])[1].state == "elsewhere"


def test_the_command_in_the_terminal_and_that_run_does_not_load_it() -> None:
    shown = subprocess.run([BIN / "bulkscope", "doctor", "--help"], capture_output=True, text=True, check=True).stdout
    assert "exit code: 0 all is well, 1 something will be missing, 2 nothing will arrive" in shown
    done = subprocess.run(
        [BIN / "bulkscope", "run", "python", "-c", "import sys; print([n for n in sys.modules if '_doctor' in n])"],
        env=environment(NOWHERE, BULKSCOPE_FLUSH_TIMEOUT="0.1"), capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == "[]"
