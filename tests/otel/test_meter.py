"""CPU and memory of a stretch of work, against work whose use is known from elsewhere."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from bulkscope._host.meter import Meter, Usage, _thread_clock_ns
from bulkscope._host.proc import Proc
from tests.otel.burning import burn

MIB = 1024**2

pytestmark = [
    pytest.mark.alone,
    pytest.mark.skipif(sys.platform != "linux", reason="the kernel's clocks and /proc are Linux's"),
]


@pytest.fixture
def meter() -> Meter:
    return Meter()


def in_thread(work: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=work)
    thread.start()
    return thread


class Busy:
    """A Python thread that burns CPU until it is told to stop."""

    def __init__(self) -> None:
        self.used = 0.0
        self._begun, self._stop = threading.Event(), threading.Event()
        self.thread = in_thread(self._run)
        self._begun.wait()

    def _run(self) -> None:
        self._begun.set()
        while not self._stop.is_set():
            burn(0.02)
        self.used = time.thread_time()

    def stop(self) -> float:
        self._stop.set()
        self.thread.join()
        return self.used


def test_own_thread(meter: Meter) -> None:
    window = meter.begin()
    used = burn()
    usage = meter.end(window)
    assert usage.cpu == pytest.approx(used, rel=0.02)
    assert usage.cpu_exact
    assert usage.utilization == pytest.approx(usage.cpu / (usage.wall * meter.cores))


def test_a_busy_neighbour_is_not_counted(meter: Meter) -> None:
    neighbour = Busy()
    window = meter.begin()
    used = burn()
    usage = meter.end(window)
    neighbour.stop()
    assert usage.cpu == pytest.approx(used, rel=0.02)
    assert usage.cpu_exact


NATIVE = """
import sys, time, numpy
from bulkscope._host.meter import Meter
matrix = numpy.random.default_rng(1).standard_normal((900, 900))
matrix @ matrix  # the pool's threads begin
meter = Meter()
window, before = meter.begin(), time.process_time()
while time.process_time() - before < 0.5:
    matrix @ matrix
used = time.process_time() - before
usage = meter.end(window)
print(len(__import__("os").listdir("/proc/self/task")), used, usage.cpu, usage.cpu_exact)
"""


def test_native_threads_are_the_works() -> None:
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "2"}
    output = subprocess.run([sys.executable, "-c", NATIVE], env=environment, check=True, stdout=-1, text=True).stdout
    threads, used, cpu, exact = output.split()
    assert int(threads) > 1, "the library has no threads of its own here, and the test says nothing"
    assert float(cpu) == pytest.approx(float(used), rel=0.02)
    assert exact == "True"


def test_python_threads_that_begin_inside_are_the_works_by_estimate(meter: Meter) -> None:
    window = meter.begin()
    with ThreadPoolExecutor(2) as pool:
        used = sum(pool.map(burn, (0.2, 0.2)))
    usage = meter.end(window)
    assert usage.cpu == pytest.approx(used, rel=0.05)
    # The pool's threads have ended: who they were is not known any more, but nothing was taken off.
    window = meter.begin()
    with ThreadPoolExecutor(2) as pool:
        used = sum(pool.map(burn, (0.2, 0.2)))
        usage = meter.end(window)
    assert usage.cpu == pytest.approx(used, rel=0.05)
    assert not usage.cpu_exact


def test_a_thread_that_ends_inside_makes_an_estimate(meter: Meter) -> None:
    neighbour = Busy()
    window = meter.begin()
    neighbour.stop()
    assert not meter.end(window).cpu_exact


def test_several_at_once_share_what_was_used(meter: Meter) -> None:
    def inference(seconds: float) -> tuple[float, Usage]:
        window = meter.begin()
        used = burn(seconds)
        return used, meter.end(window)

    gate = threading.Barrier(2)

    def together(seconds: float) -> tuple[float, Usage]:
        gate.wait()
        return inference(seconds)

    with ThreadPoolExecutor(2) as pool:
        done = list(pool.map(together, (0.2, 0.4)))
    for used, usage in done:
        assert usage.cpu == pytest.approx(used, rel=0.05), "each burns in its own thread"
        assert not usage.cpu_exact
    assert sum(usage.cpu for _, usage in done) == pytest.approx(sum(used for used, _ in done), rel=0.02)


BURN = "import time\nwhile time.process_time() < 0.5: pass"


def test_child_processes_are_the_works_by_estimate(meter: Meter) -> None:
    before = os.times()
    window = meter.begin()
    subprocess.run([sys.executable, "-c", BURN], check=True)
    usage = meter.end(window)
    after = os.times()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    assert used > 0.4
    assert usage.cpu == pytest.approx(used, rel=0.05, abs=0.02)
    assert not usage.cpu_exact


def test_a_child_that_lives_on(meter: Meter) -> None:
    code = f"{BURN}\nprint('burnt', flush=True)\ninput()"
    window = meter.begin()
    with subprocess.Popen([sys.executable, "-c", code], stdin=-1, stdout=-1, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "burnt\n"
        busy = meter.end(window)
        window = meter.begin()
        used = burn(0.1)
        idle = meter.end(window)
        child.communicate("\n")
    assert busy.cpu >= 0.45
    assert not busy.cpu_exact
    assert idle.cpu == pytest.approx(used, rel=0.02), "a child that does nothing takes nothing away"
    assert idle.cpu_exact


def test_a_window_that_crosses_a_fork_is_an_estimate(meter: Meter) -> None:
    window = meter.begin()
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        usage = meter.end(window)
        os.write(write, b"estimate" if not (usage.cpu_exact or usage.memory_exact) else b"exact")
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(read, 20) == b"estimate"
    meter.end(window)


# --- memory ---------------------------------------------------------------------------------------


def touch(size: int) -> mmap.mmap:
    """Return ``size`` bytes of anonymous memory, every page written; closing it gives them back at once."""
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    for offset in range(0, size, mmap.PAGESIZE):
        memory[offset] = 1
    return memory


def growth(usage: Usage) -> int:
    assert usage.memory_peak is not None
    assert usage.memory_start is not None
    return usage.memory_peak - usage.memory_start


def test_peak_of_known_allocations(meter: Meter) -> None:
    window = meter.begin()
    touch(64 * MIB).close()
    usage = meter.end(window)
    assert usage.memory_exact
    assert growth(usage) == pytest.approx(64 * MIB, abs=2 * MIB)


def test_an_earlier_peak_is_forgotten(meter: Meter) -> None:
    touch(96 * MIB).close()
    window = meter.begin()
    kept = touch(8 * MIB)
    usage = meter.end(window)
    kept.close()
    assert growth(usage) == pytest.approx(8 * MIB, abs=2 * MIB)


def test_windows_that_overlap_keep_their_own_peaks(meter: Meter) -> None:
    first = meter.begin()
    touch(64 * MIB).close()
    second = meter.begin()
    touch(16 * MIB).close()
    small = meter.end(second)
    large = meter.end(first)
    assert growth(large) == pytest.approx(64 * MIB, abs=2 * MIB)
    assert growth(small) == pytest.approx(16 * MIB, abs=2 * MIB)


@pytest.fixture
def weights(tmp_path: Path) -> Iterator[mmap.mmap]:
    path = tmp_path / "weights"
    path.write_bytes(b"w" * (48 * MIB))
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        yield mapped


def test_mapped_weights_are_file_and_allocations_are_anonymous(meter: Meter, weights: mmap.mmap) -> None:
    idle = meter.end(meter.begin())
    window = meter.begin()
    assert sum(weights[offset] for offset in range(0, len(weights), mmap.PAGESIZE)) > 0
    cache = touch(16 * MIB)
    usage = meter.end(window)
    cache.close()
    assert usage.memory_file is not None
    assert idle.memory_file is not None
    assert usage.memory_anon is not None
    assert idle.memory_anon is not None
    assert usage.memory_file - idle.memory_file == pytest.approx(48 * MIB, abs=2 * MIB)
    assert usage.memory_anon - idle.memory_anon == pytest.approx(16 * MIB, abs=2 * MIB)


class NoReset(Proc):
    """A kernel that does not let the peak be reset, as in a container with a read-only /proc."""

    def reset_peak(self) -> bool:
        return False


def test_where_the_peak_cannot_be_reset_it_is_sampled_and_marked() -> None:
    touch(96 * MIB).close()  # the process's own peak is above anything that follows
    proc = NoReset()
    seen = threading.Event()
    status = proc.status

    def watched():  # type: ignore[no-untyped-def]
        whole = kept is not None  # before it looks, or what it has seen may be half of it
        found = status()
        if threading.current_thread().name == "bulkscope-sampler" and whole:
            seen.set()
        return found

    kept: mmap.mmap | None = None
    proc.status = watched  # type: ignore[method-assign]
    meter = Meter(proc)
    window = meter.begin()
    start = window.start or 0
    kept = touch(32 * MIB)
    assert seen.wait(30), "the sampler looks while the stretch is open"
    kept.close()
    usage = meter.end(window)
    assert not usage.memory_exact
    assert usage.memory_peak is not None
    assert 30 * MIB <= usage.memory_peak - start <= 34 * MIB


def samplers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "bulkscope-sampler"]


def test_without_threads_left_the_next_stretch_asks_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    for sampler in samplers():  # of a test before, on its way out
        sampler.join()
    meter = Meter(NoReset())
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refused)
        usage = meter.end(meter.begin())
    assert usage.memory_peak is not None
    assert not usage.memory_exact
    window = meter.begin()
    assert samplers()
    meter.end(window)
    for sampler in samplers():
        sampler.join(30)
    assert not samplers()


@pytest.mark.parametrize("step", ["begin", "end"])
def test_what_cannot_be_measured_does_not_stay_open(meter: Meter, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    """Else each later stretch would count as overlapping it, and be an estimate."""

    def broken(thread: int) -> None:
        raise OverflowError

    windows = [meter.begin()] if step == "end" else []
    with monkeypatch.context() as patched:
        patched.setattr("bulkscope._host.meter._thread_clock_ns", broken)
        with pytest.raises(OverflowError):
            meter.end(windows[0]) if windows else meter.begin()
    window = meter.begin()
    burn(0.05)
    usage = meter.end(window)
    assert usage.cpu_exact
    assert usage.cpu_wait is not None


def test_a_system_without_proc(tmp_path: Path) -> None:
    meter = Meter(Proc(tmp_path, tmp_path))
    usage = meter.end(meter.begin())
    assert (usage.memory_start, usage.memory_peak, usage.memory_file, usage.memory_anon) == (None,) * 4
    assert (usage.pressure, usage.throttled) == (None, None)
    assert not usage.memory_exact
    assert usage.cpu >= 0


def test_clock_of_a_thread_that_has_ended_is_no_value() -> None:
    numbers: list[int] = []
    in_thread(lambda: numbers.append(threading.get_native_id())).join()
    # join() returns when the thread's state is gone; the kernel's task may live a moment longer.
    while Path(f"/proc/self/task/{numbers[0]}").exists():
        pass
    assert _thread_clock_ns(numbers[0]) is None


def test_two_on_one_core_wait_for_it_half_of_the_time() -> None:
    """The kernel's account of a thread that could have run: as long as the neighbour had the core."""
    core = min(os.sched_getaffinity(0))
    code = f"""
import os; os.sched_setaffinity(0, [{core}])
from bulkscope._host.meter import Meter
from tests.otel.burning import burn
import sys
print("ready", flush=True); sys.stdin.readline()
meter = Meter(); window = meter.begin(); burn(0.6); usage = meter.end(window)
print(usage.cpu_wait / (usage.cpu_wait + usage.cpu), flush=True)
burn(5)
"""
    pair = [
        subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    try:
        for child in pair:
            assert child.stdout is not None
            assert child.stdout.readline() == "ready\n"
        for child in pair:
            assert child.stdin is not None
            child.stdin.write("go\n")
            child.stdin.flush()
        shares = [float(child.stdout.readline()) for child in pair if child.stdout]
    finally:
        for child in pair:
            child.kill()
            child.communicate()
    assert all(share > 0.4 for share in shares), shares


def test_where_stretches_overlap_nobody_can_say_whose_threads_waited(meter: Meter) -> None:
    first = meter.begin()
    second = meter.begin()
    assert [meter.end(window).cpu_wait for window in (second, first)] == [None, None]
    alone = meter.end(meter.begin())
    assert alone.cpu_wait is not None
