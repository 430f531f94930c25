"""What a container of a pod sees of itself: cgroup v2 and mounts, in the formats of real nodes.

The lines of mountinfo are of the forms that containerd, CRI-O and Docker under cri-dockerd write on nodes (ids and
names are made up); the cgroup files are those that runc makes of a pod's resources.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from bulkscope._host.proc import Proc

MIB = 1024**2
POD, OTHER = "553d3c13-8f3a-4a7e-9d55-0b5a4f2f7c11", "fd698699eabf4c2392efcf0bbdb78261"
SANDBOX, CONTAINER = "bd9a3e80" * 8, "7aa42719" * 8

CONTAINERD = f"""\
757 690 0:104 / / rw,relatime - overlay overlay rw,lowerdir=/var/lib/containerd/io.containerd.snapshotter.v1.overlayfs/snapshots/154/fs
767 765 0:25 / /sys/fs/cgroup ro,nosuid,nodev,noexec,relatime - cgroup2 cgroup rw,seclabel
772 757 259:16 /var/lib/kubelet/pods/{POD}/etc-hosts /etc/hosts rw,nosuid,nodev,noatime - ext4 /dev/nvme1n1p1 rw
773 760 259:16 /var/lib/kubelet/pods/{POD}/containers/service/7aa42719 /dev/termination-log rw,nosuid - ext4 /dev/nvme1n1p1 rw
774 757 259:16 /var/lib/containerd/io.containerd.grpc.v1.cri/sandboxes/{SANDBOX}/hostname /etc/hostname rw - ext4 /dev/nvme1n1p1 rw
776 757 259:16 /var/lib/containerd/io.containerd.grpc.v1.cri/sandboxes/{SANDBOX}/resolv.conf /etc/resolv.conf rw - ext4 /dev/nvme1n1p1 rw
"""  # noqa: E501
# The kubelet's folder elsewhere, a static pod (its uid has no dashes), a runtime below a volume named "containers".
KIND = f"""\
3741 3709 0:427 / /sys ro,nosuid,nodev,noexec,relatime - sysfs sysfs ro,seclabel
3873 3709 252:4 /ostree/deploy/var/home/core/.local/share/containers/storage/volumes/{"44" * 32}/_data/lib/kubelet/pods/{OTHER}/etc-hosts /etc/hosts rw - xfs /dev/vda4 rw
3875 3709 252:4 /ostree/deploy/var/home/core/.local/share/containers/storage/volumes/{"44" * 32}/_data/lib/containerd/io.containerd.grpc.v1.cri/sandboxes/{SANDBOX}/hostname /etc/hostname rw - xfs /dev/vda4 rw
"""  # noqa: E501
DOCKER = f"""\
868 857 253:0 /var/lib/docker/containers/{SANDBOX}/resolv.conf /etc/resolv.conf rw,relatime - ext4 /dev/mapper/vg-lv rw
869 857 253:0 /var/lib/docker/containers/{SANDBOX}/hostname /etc/hostname rw,relatime - ext4 /dev/mapper/vg-lv rw
870 857 253:0 /var/lib/kubelet/pods/{POD}/etc-hosts /etc/hosts rw,relatime - ext4 /dev/mapper/vg-lv rw
"""
CRIO = f"""\
10303 9025 0:676 / / rw,relatime master:2633 - overlay overlay rw
10312 10303 0:25 /containers/storage/overlay-containers/{SANDBOX}/userdata/hostname /etc/hostname rw,nosuid,nodev master:15 - tmpfs tmpfs rw
10314 10303 252:4 /ostree/deploy/rhcos/var/lib/kubelet/pods/{POD}/etc-hosts /etc/hosts rw,relatime - xfs /dev/vda4 rw
"""  # noqa: E501
CRIO_OWN = (
    f"10316 10303 0:25 /containers/storage/overlay-containers/{CONTAINER}/userdata/run/secrets /run/secrets rw - "
    "tmpfs tmpfs rw\n"
)


class Container:
    """A container's ``/proc`` and ``/sys/fs/cgroup``, in a cgroup namespace of its own, on a node with cgroup v2."""

    def __init__(self, folder: Path, mounts: str = CONTAINERD, cgroup: str = "0::/\n") -> None:
        self.proc, self.cgroup = folder / "proc", folder / "cgroup"
        (self.proc / "self").mkdir(parents=True)
        self.cgroup.mkdir()
        (self.proc / "self" / "cgroup").write_text(cgroup)
        (self.proc / "self" / "mountinfo").write_text(mounts)
        # A node of 16 GiB and eight cores.
        (self.proc / "self" / "status").write_text("Name:\tcelery\nVmRSS:\t  1024 kB\nCpus_allowed_list:\t0-7\n")
        (self.proc / "meminfo").write_text("MemTotal:       16777216 kB\nMemFree:         1000000 kB\n")
        (self.proc / "vmstat").write_text("oom_kill 41\n")
        self.write("cgroup.controllers", "cpuset cpu io memory hugetlb pids rdma misc\n")

    def write(self, name: str, text: str) -> None:
        (self.cgroup / name).write_text(text)

    def limits(self, memory: str, cpu: str) -> Proc:
        self.write("memory.max", f"{memory}\n")
        self.write("cpu.max", f"{cpu}\n")
        self.write("memory.current", f"{300 * MIB}\n")
        self.write("memory.stat", f"anon {200 * MIB}\nfile {100 * MIB}\ninactive_file {44 * MIB}\nactive_file 0\n")
        self.write("memory.events", "low 0\nhigh 0\nmax 12\noom 2\noom_kill 1\noom_group_kill 1\n")
        self.write("cpu.stat", "usage_usec 9000000\nnr_periods 90\nnr_throttled 30\nthrottled_usec 1500000\n")
        self.write(
            "cpu.pressure",
            "some avg10=1.00 avg60=0.50 avg300=0.10 total=2500000\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n",
        )
        return Proc(self.proc, self.cgroup)


def test_limits_of_the_container_are_those_of_the_numbers(tmp_path: Path) -> None:
    """``limits: {cpu: 1500m, memory: 512Mi}``, on a node of 16 GiB that has killed 41 others."""
    proc = Container(tmp_path).limits(str(512 * MIB), "150000 100000")
    assert proc.memory_limit() == 512 * MIB
    assert proc.memory_utilization() == (300 - 44) / 512
    assert proc.allowed_cores() == 1.5
    assert proc.throttled() == 1.5
    assert proc.pressure() == 2.5
    assert proc.oom_kills() == 1


def test_a_pod_without_limits_has_its_nodes(tmp_path: Path) -> None:
    """A limit of the pod as a whole is on a group above, which no container sees. The kubelet writes it into the groups
    of containers that have none of their own (by default from Kubernetes 1.34 on): the first test is theirs too."""
    proc = Container(tmp_path).limits("max", "max 100000")
    assert proc.memory_limit() == 16 * 1024**3
    assert proc.memory_utilization() is None
    assert proc.allowed_cores() == 8


def test_cpus_that_the_kubelet_has_given_to_this_container_alone(tmp_path: Path) -> None:
    """Its static policy for CPUs: whole cores, no quota."""
    container = Container(tmp_path)
    (container.proc / "self" / "status").write_text("Cpus_allowed_list:\t2-3,6-7\n")
    proc = container.limits(str(512 * MIB), "max 100000")
    assert (proc.allowed_cores(), proc.allowed_cpus()) == (4, "2-3,6-7")


@pytest.mark.parametrize("mounts", [CONTAINERD, KIND, DOCKER, CRIO], ids=["containerd", "kind", "docker", "cri-o"])
def test_the_sandbox_of_a_pod_is_not_its_container(mounts: str, tmp_path: Path) -> None:
    assert Container(tmp_path, mounts).limits("max", "max 100000").container_id() is None


def test_cri_o_tells_a_container_its_own_id(tmp_path: Path) -> None:
    assert Container(tmp_path, CRIO + CRIO_OWN).limits("max", "max 100000").container_id() == CONTAINER


SLICE = f"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{POD.replace('-', '_')}.slice"


@pytest.mark.parametrize(
    "path",
    [
        f"{SLICE}/cri-containerd-{CONTAINER}.scope",
        f"{SLICE}/crio-{CONTAINER}.scope",
        f"{SLICE}/docker-{CONTAINER}.scope",
        f"/kubepods/burstable/pod{POD}/{CONTAINER}",
        f"{SLICE}:cri-containerd:{CONTAINER}",
    ],
    ids=["containerd", "cri-o", "docker", "cgroupfs", "containerd and cgroupfs"],
)
def test_the_hosts_view_of_the_cgroup_names_the_container(path: str, tmp_path: Path) -> None:
    """Without a cgroup namespace of its own, as on nodes of cgroup v1."""
    container = Container(tmp_path, cgroup=f"0::{path}\n")
    proc = container.limits(str(512 * MIB), "max 100000")
    assert proc.container_id() == CONTAINER
    assert proc.memory_limit() == 512 * MIB, "the mount is the container's own group, whatever the path"
