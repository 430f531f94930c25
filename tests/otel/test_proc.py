"""What is read of ``/proc`` and of cgroups, from folders that stand for machines we do not have."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from bulkscope._host.proc import Proc, Status

MIB = 1024**2
ID = "3f" * 32

STATUS = """Name:\tpython
VmPeak:\t  900000 kB
VmHWM:\t    2048 kB
VmRSS:\t    1024 kB
RssAnon:\t     600 kB
RssFile:\t     400 kB
RssShmem:\t      24 kB
Cpus_allowed_list:\t0-3,8
"""
MEMINFO = "MemTotal:       16777216 kB\nMemFree:         1000000 kB\n"


class Machine:
    def __init__(self, folder: Path) -> None:
        self.proc, self.cgroup = folder / "proc", folder / "cgroup"
        self.write(self.proc / "self/status", STATUS)
        self.write(self.proc / "meminfo", MEMINFO)

    @staticmethod
    def write(path: Path, text: str | bytes) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())

    def process(self, path: str, text: str | bytes) -> Machine:
        self.write(self.proc / path, text)
        return self

    def group(self, path: str, text: str) -> Machine:
        self.write(self.cgroup / path, text)
        return self

    def read(self) -> Proc:
        return Proc(self.proc, self.cgroup)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_without_cgroups_the_host_is_the_limit(machine: Machine) -> None:
    proc = machine.read()
    assert proc.status() == Status(rss=MIB, hwm=2 * MIB, anon=600 * 1024, file=400 * 1024, shmem=24 * 1024)
    assert proc.memory_limit() == 16 * 1024**3
    assert proc.allowed_cores() == 5
    assert (proc.pressure(), proc.throttled(), proc.container_id()) == (None, None, None)


def unified(machine: Machine) -> Machine:
    return (
        machine.process("self/cgroup", "0::/system.slice/worker.service\n")
        .group("cgroup.controllers", "cpu memory\n")
        .group("system.slice/worker.service/cpu.max", "150000 100000\n")
        .group("system.slice/worker.service/cpu.stat", "usage_usec 9\nnr_throttled 3\nthrottled_usec 2500000\n")
        .group("system.slice/worker.service/memory.max", "max\n")
        .group(
            "system.slice/worker.service/cpu.pressure",
            "some avg10=0.00 avg60=0.00 avg300=0.00 total=4000000\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=1\n",
        )
    )


def test_v2(machine: Machine) -> None:
    proc = unified(machine).read()
    assert proc.allowed_cores() == 1.5
    assert proc.throttled() == 2.5
    assert proc.pressure() == 4.0
    assert proc.memory_limit() == 16 * 1024**3, "max is no limit"


def test_v2_the_tightest_ancestor_holds(machine: Machine) -> None:
    unified(machine).group("system.slice/memory.max", str(512 * MIB)).group("system.slice/cpu.max", "50000 100000")
    assert machine.read().memory_limit() == 512 * MIB
    assert machine.read().allowed_cores() == 0.5


def test_v2_in_a_container_sees_its_own_tree(machine: Machine) -> None:
    # With a cgroup namespace the path is "/", or climbs out of the mount with "..".
    for path in ("0::/\n", "0::/../../kubepods/pod1\n"):
        machine.process("self/cgroup", path).group("cgroup.controllers", "cpu").group("memory.max", str(64 * MIB))
        assert machine.read().memory_limit() == 64 * MIB


def legacy(machine: Machine) -> Machine:
    return (
        machine.process("self/cgroup", "5:memory:/docker/x\n4:cpu,cpuacct:/docker/x\n1:name=systemd:/docker/x\n")
        .group("memory/docker/x/memory.limit_in_bytes", str(256 * MIB))
        .group("memory/memory.limit_in_bytes", str(9223372036854771712))
        .group("cpu,cpuacct/docker/x/cpu.cfs_quota_us", "200000\n")
        .group("cpu,cpuacct/docker/x/cpu.cfs_period_us", "100000\n")
        .group("cpu,cpuacct/docker/x/cpu.stat", "nr_periods 9\nnr_throttled 1\nthrottled_time 1500000000\n")
    )


def test_v1(machine: Machine) -> None:
    proc = legacy(machine).process("pressure/cpu", "some avg10=0.1 avg60=0 avg300=0 total=7000000\n").read()
    assert proc.memory_limit() == 256 * MIB
    assert proc.allowed_cores() == 2.0
    assert proc.throttled() == 1.5
    assert proc.pressure() == 7.0, "v1 has no pressure of its own: the host's"


def test_memory_utilization(machine: Machine) -> None:
    assert machine.read().memory_utilization() is None, "no cgroup"
    place = "system.slice/worker.service"
    unified(machine).group(f"{place}/memory.current", str(300 * MIB))
    assert machine.read().memory_utilization() is None, "max is no limit"
    machine.group("system.slice/memory.max", str(400 * MIB)).group("system.slice/memory.current", str(350 * MIB))
    machine.group("system.slice/memory.stat", f"anon 1\ninactive_file {50 * MIB}\nactive_file 7\n")
    assert machine.read().memory_utilization() == 0.75
    machine.group(f"{place}/memory.max", str(310 * MIB))
    assert machine.read().memory_utilization() == pytest.approx(300 / 310), "the group nearest to its limit"


def test_memory_utilization_v1(machine: Machine) -> None:
    legacy(machine).group("memory/docker/x/memory.usage_in_bytes", str(128 * MIB))
    machine.group("memory/docker/x/memory.stat", f"inactive_file 9\ntotal_inactive_file {64 * MIB}\n")
    machine.group("memory/memory.usage_in_bytes", str(1024 * MIB))
    assert machine.read().memory_utilization() == 0.25, "the root has no limit"


def test_v1_without_a_quota(machine: Machine) -> None:
    legacy(machine).group("cpu,cpuacct/docker/x/cpu.cfs_quota_us", "-1\n")
    assert machine.read().allowed_cores() == 5


def test_v1_in_a_container_with_the_hosts_path(machine: Machine) -> None:
    # The path is the host's and does not exist inside: the mount itself is the container's group.
    machine.process("self/cgroup", f"5:memory:/docker/{ID}\n").group("memory/memory.limit_in_bytes", str(128 * MIB))
    assert machine.read().memory_limit() == 128 * MIB
    assert machine.read().container_id() == ID


def test_hybrid(machine: Machine) -> None:
    legacy(machine).process("self/cgroup", "5:memory:/docker/x\n4:cpu,cpuacct:/docker/x\n0::/docker/x\n")
    machine.group("unified/docker/x/cpu.pressure", "some avg10=0 avg60=0 avg300=0 total=3000000\n")
    proc = machine.read()
    assert (proc.memory_limit(), proc.allowed_cores(), proc.throttled()) == (256 * MIB, 2.0, 1.5)
    assert proc.pressure() == 3.0


def test_container_id_in_a_cgroup_namespace(machine: Machine) -> None:
    mounts = f"1 2 0:5 /var/lib/docker/containers/{ID}/hostname /etc/hostname rw - ext4 /dev/sda rw\n"
    machine.process("self/cgroup", "0::/\n").process("self/mountinfo", mounts)
    assert machine.read().container_id() == ID


def test_children(machine: Machine) -> None:
    ticks = os.sysconf("SC_CLK_TCK")
    stat = "{pid} (a (b) c) S 1 1 1 0 -1 0 0 0 0 0 {user} {system} {gone} 0 20 0 1 0 1 1 1"
    machine.process("self/task/1/children", "20 21 ").process("self/task/2/children", "")
    machine.process("20/stat", stat.format(pid=20, user=3 * ticks, system=ticks, gone=ticks // 2))
    machine.process("21/stat", stat.format(pid=21, user=0, system=0, gone=0))
    machine.process("21/task/21/children", "22 ").process("22/stat", stat.format(pid=22, user=ticks, system=0, gone=0))
    assert machine.read().children_cpu() == pytest.approx(5.5)


GARBLED = [
    b"",
    b"\n",
    b"\xff\xfe\x00",
    b"VmRSS:\nVmHWM: x kB\nCpus_allowed_list: 0-\n",
    b"max max max",
    b"some total=\n",
]
FILES = [
    "vmstat",
    "self/status",
    "self/cgroup",
    "self/mountinfo",
    "self/task/1/children",
    "meminfo",
    "pressure/cpu",
    "20/stat",
]
GROUP = ["cpu.max", "memory.max", "cpu.stat", "cpu.pressure"]


@pytest.mark.parametrize("garbage", GARBLED)
def test_what_cannot_be_read_is_absent_and_raises_nothing(machine: Machine, garbage: bytes) -> None:
    for damaged in (*FILES, *GROUP):
        unified(machine).process("self/status", STATUS).process("meminfo", MEMINFO)
        machine.process("self/task/1/children", "20").process("20/stat", "")
        place = machine.proc if damaged in FILES else machine.cgroup / "system.slice/worker.service"
        Machine.write(place / damaged, garbage)
        proc = machine.read()
        for read in (
            proc.status, proc.memory_limit, proc.allowed_cores, proc.pressure, proc.throttled, proc.container_id,
            proc.children_cpu, proc.reset_peak, proc.oom_kills, proc.memory_utilization,
        ):  # fmt: skip
            read()
    Machine.write(machine.proc / "self/status", garbage)
    assert machine.read().status() == Status()


def test_no_proc_at_all(tmp_path: Path) -> None:
    proc = Proc(tmp_path / "nothing", tmp_path / "nothing")
    assert proc.status() == Status()
    assert proc.memory_limit() is None
    assert proc.allowed_cores() is None
    assert proc.reset_peak() is False
    assert proc.children_cpu() == 0


def test_peak_that_may_not_be_reset(machine: Machine) -> None:
    (machine.proc / "self/clear_refs").mkdir()
    assert machine.read().reset_peak() is False


def test_the_real_machine() -> None:
    if not Path("/proc/self/status").exists():
        pytest.skip("this system has no /proc")
    proc = Proc()
    status = proc.status()
    assert status.rss is not None
    assert status.anon is not None
    assert status.file is not None
    assert status.rss == pytest.approx(status.anon + status.file + (status.shmem or 0), abs=MIB)
    cores, limit = proc.allowed_cores(), proc.memory_limit()
    assert cores is not None
    assert 0 < cores <= (os.cpu_count() or 1)
    assert limit is not None
    assert limit > status.rss


def test_kills_for_memory_of_the_cgroup_else_of_the_host(machine: Machine) -> None:
    assert machine.read().oom_kills() is None
    machine.process("vmstat", "nr_free_pages 1\noom_kill 7\n")
    assert machine.read().oom_kills() == 7
    legacy(machine).group("memory/docker/x/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n")
    assert machine.read().oom_kills() == 2
    unified(machine).group("system.slice/worker.service/memory.events", "low 0\noom 4\noom_kill 3\noom_group_kill 0\n")
    assert machine.read().oom_kills() == 3


def test_threads_that_had_no_cpu(machine: Machine) -> None:
    assert machine.read().run_delay() is None
    machine.process("self/task/7/schedstat", "1000 250 3\n").process("self/task/8/schedstat", "9 1000 1\n")
    machine.process("self/task/9/schedstat", "")  # a kernel that does not count it
    assert machine.read().run_delay() == {7: 250, 8: 1000}
    for task in range(100, 170):
        machine.process(f"self/task/{task}/schedstat", "1 1 1\n")
    assert machine.read().run_delay() is None, "too many threads to ask"


def test_the_cpus_it_may_use_by_name(machine: Machine) -> None:
    assert machine.read().allowed_cpus() == "0-3,8"
    machine.process("self/status", "Name:\tx\n")
    assert machine.read().allowed_cpus() is None


def test_a_thread_that_ends_while_it_is_asked_is_left_out(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.process("self/task/7/schedstat", "1000 250 3\n").process("self/task/8/schedstat", "9 1000 1\n")
    proc, opened, read, closed = machine.read(), os.open, os.read, os.close
    ended: set[int] = set()
    asked = []

    def open_(path: str, flags: int) -> int:
        file = opened(path, flags)
        if path.endswith("/8/schedstat"):
            ended.add(file)
        return file

    def read_(file: int, size: int) -> bytes:
        if file in ended:  # what the kernel says of a task that is gone since its file was opened
            asked.append(file)
            raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH))
        return read(file, size)

    def close_(file: int) -> None:
        ended.discard(file)  # the number may be another file's soon
        closed(file)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", open_)
        patch.setattr(os, "read", read_)
        patch.setattr(os, "close", close_)
        found = proc.run_delay()
    assert found == {7: 250}
    assert len(asked) == 1
    assert not ended, "its file was left open"
