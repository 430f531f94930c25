"""A Docker engine of the tests' own: ``python -m tests.containers.engine`` runs one until its input ends.

Nothing is installed. Debian's packages are unpacked into the user's cache: dockerd, containerd, Compose and buildx from
trixie, because bookworm has no Compose 2; runc and iptables from the machine's own release, since those of trixie want
a newer C library than bookworm's. The engine has its own socket, data and addresses. It ends with whoever started it,
however that one ends, and what the kernel kept of it (bridges, rules, cgroups, mounts) is then removed: what is left
all the same is printed, and is exit code 1. Images and the builder's cache stay.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# Unix sockets have 107 bytes for their path: everything is short below this folder.
WORK = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "bulkscope" / "docker"
SOCKET = WORK / "run" / "docker.sock"
DATA = WORK / "data"
PATIENCE_S = 180.0

_NEW = "trixie"
_FROM_NEW = ("docker.io", "docker-cli", "docker-compose", "docker-buildx", "containerd", "tini")
# With its libraries, whether or not the machine has some of them.
_FROM_OWN = (
    "runc", "libseccomp2", "iptables", "libip4tc2", "libip6tc2", "libxtables12", "libnftnl11", "libmnl0",
    "libnfnetlink0", "libnetfilter-conntrack3", "mmdebstrap",
)  # fmt: skip
_PROGRAMS = ("docker", "dockerd", "docker-proxy", "docker-init", "containerd", "containerd-shim-runc-v2", "ctr", "runc")
# Of all networks of this engine, so that its rules are known by it.
_ADDRESSES = "10.213"
_OURS = re.compile(rf"DOCKER|docker0|br-[0-9a-f]{{12}}|\b{re.escape(_ADDRESSES)}\.")
_SYSCTLS = {"net/ipv4/ip_forward": "1", "vm/max_map_count": "262144"}


class EngineError(Exception):
    """The engine cannot be made or started; the text says why."""


def environment() -> dict[str, str]:
    """Return the environment in which ``docker`` is this engine's."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("DOCKER_", "COMPOSE_"))}
    return kept | {
        "PATH": f"{WORK / 'bin'}:{os.environ['PATH']}",
        "DOCKER_HOST": f"unix://{SOCKET}",
        "DOCKER_CONFIG": str(WORK / "config"),
    }


def docker(*words: str, check: bool = True, seconds: float = 900.0, text: str | None = None) -> str:
    """Return what ``docker WORDS``, given ``text``, printed; raises ``EngineError`` with all it said when it fails."""
    done = subprocess.run(
        ["docker", *words], env=environment(), input=text, capture_output=True, text=True, timeout=seconds
    )
    if check and done.returncode:
        raise EngineError(f"docker {' '.join(words)} ended with {done.returncode}:\n{done.stdout}{done.stderr}"[-6000:])
    return done.stdout.strip()


# --- What the machine must have.


def why_not() -> str | None:
    """Return why no engine can run on this machine, None where one can. A failure later on is a failure."""
    if sys.platform != "linux":
        return "Docker's engine needs Linux"
    if os.geteuid() != 0:
        return "a Docker engine of our own needs root"
    missing = [name for name in ("apt-get", "dpkg-deb") if shutil.which(name) is None]
    if missing:
        return f"the engine comes from Debian's packages, and there is no {' or '.join(missing)} here"
    capabilities = int(re.search(r"^CapEff:\s*(\w+)$", Path("/proc/self/status").read_text(), re.M)[1], 16)  # type: ignore[index]
    for number, name in ((12, "NET_ADMIN"), (21, "SYS_ADMIN")):
        if not capabilities >> number & 1:
            return f"root has no CAP_{name} here"
    known = Path("/proc/filesystems").read_text().split()
    if "overlay" not in known and not _module("overlay"):
        return "the kernel has no overlay file system"
    cgroups = Path("/sys/fs/cgroup")
    if not ((cgroups / "memory" / "memory.limit_in_bytes").exists() or (cgroups / "cgroup.controllers").exists()):
        return "no cgroups are mounted at /sys/fs/cgroup"
    if not os.access(cgroups, os.W_OK):
        return "cgroups may only be read here"
    if not _bridges():
        return "the kernel lets no bridge be made"
    if _others():
        return "another Docker engine runs on this machine, whose rules an engine of our own would share"
    return None


def _module(name: str) -> bool:
    tool = shutil.which("modprobe")
    return tool is not None and subprocess.run([tool, name], capture_output=True).returncode == 0


def _bridges() -> bool:
    name = b"bulkscope-probe"
    with socket.socket() as handle:
        try:
            fcntl.ioctl(handle, 0x89A0, name)  # SIOCBRADDBR
            fcntl.ioctl(handle, 0x89A1, name)  # SIOCBRDELBR
        except OSError:
            return False
    return True


def _commands() -> Iterator[tuple[int, list[str]]]:
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                words = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
            except OSError:
                continue
            yield int(folder.name), words


def _others() -> list[int]:
    found = [(pid, words) for pid, words in _commands() if Path(words[0]).name == "dockerd"]
    return [pid for pid, words in found if str(DATA) not in words]


def _own() -> list[int]:
    """Return the process ids of this engine's daemons, dockerd first."""
    found = [(pid, words) for pid, words in _commands() if any(str(WORK) in word for word in words)]
    return [
        pid for name in ("dockerd", "containerd") for pid, words in found if Path(words[0]).name == name
    ]  # fmt: skip


# --- Getting it.


def _release() -> str:
    return re.search(r"^VERSION_CODENAME=(\w+)", Path("/etc/os-release").read_text(), re.M)[1]  # type: ignore[index]


def sources(release: str) -> str:
    """Return the machine's own sources of Debian's packages, with another release's name: no mirror is named here."""
    for path in (Path("/etc/apt/sources.list.d/debian.sources"), Path("/etc/apt/sources.list")):
        if path.exists():
            return path.read_text().replace(_release(), release)
    raise EngineError("there are neither /etc/apt/sources.list.d/debian.sources nor /etc/apt/sources.list")


def sources_file(release: str) -> Path:
    """Write ``sources`` into a file of the form that apt expects by its name, and return it."""
    text = sources(release)
    path = WORK / "apt" / release / f"debian.{'sources' if 'URIs:' in text else 'list'}"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def _download(release: str, packages: tuple[str, ...], into: Path) -> None:
    """Fetch a release's packages by apt with lists of its own, checked against the machine's keys."""
    folder = WORK / "apt" / release
    listed = sources_file(release)
    (folder / "lists" / "partial").mkdir(parents=True, exist_ok=True)
    (folder / "status").touch()
    options = {
        "Dir::Etc::sourcelist": listed, "Dir::Etc::sourceparts": "-", "Dir::State::lists": folder / "lists",
        "Dir::State::status": folder / "status", "Dir::Cache": folder / "cache", "APT::Sandbox::User": "root",
        "Debug::NoLocking": "1",
    }  # fmt: skip
    apt = ["apt-get", "-q", *(word for name, value in options.items() for word in ("-o", f"{name}={value}"))]
    run([*apt, "update"])
    run([*apt, "download", *packages], cwd=into)


def run(words: list[str], cwd: Path | None = None, env: Mapping[str, str] | None = None) -> None:
    """Run a command; raises ``EngineError`` with all it said when it fails."""
    done = subprocess.run(words, cwd=cwd, env=env, capture_output=True, text=True, timeout=1800)
    if done.returncode:
        raise EngineError(f"{' '.join(words)[:200]} ended with {done.returncode}:\n{done.stdout}{done.stderr}"[-6000:])


def get() -> None:
    """Unpack the packages, once."""
    wanted = hashlib.sha256(repr((_NEW, _FROM_NEW, _release(), _FROM_OWN)).encode()).hexdigest()
    stamp = WORK / "engine.sum"
    if stamp.exists() and stamp.read_text() == wanted:
        return
    root, packages = WORK / "engine", WORK / "packages"
    for folder in (root, packages, WORK / "bin", WORK / "config"):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    _download(_NEW, _FROM_NEW, packages)
    _download(_release(), _FROM_OWN, packages)
    for package in sorted(packages.glob("*.deb")):
        run(["dpkg-deb", "-x", str(package), str(root)])
    shutil.rmtree(packages)
    usr = root / "usr"
    for name in _PROGRAMS:
        places = (usr / "bin" / name, usr / "sbin" / name)
        (WORK / "bin" / name).symlink_to(next(path for path in places if path.exists()))
    libraries = next(usr.glob("lib/*-linux-gnu*"))
    for name in ("iptables", "ip6tables"):
        script = WORK / "bin" / name
        script.write_text(
            f'#!/bin/sh\nLD_LIBRARY_PATH="{libraries}" XTABLES_LIBDIR="{libraries / "xtables"}" '
            f'exec "{usr / "sbin" / "xtables-nft-multi"}" {name} "$@"\n'
        )
        script.chmod(0o755)
    plugins = WORK / "config" / "cli-plugins"
    plugins.mkdir()
    for path in (usr / "libexec" / "docker" / "cli-plugins").iterdir():
        (plugins / path.name).symlink_to(path)
    stamp.write_text(wanted)


# --- Running it.


def _wait(ready: Callable[[], bool], seconds: float = PATIENCE_S) -> bool:
    deadline = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)
    return True


def _answers() -> bool:
    return SOCKET.exists() and bool(docker("version", "--format", "{{.Server.Version}}", check=False, seconds=30))


def _mtu() -> int:
    """Return the size of a packet on the way out: a larger one from a container would be lost there."""
    for line in Path("/proc/net/route").read_text().splitlines()[1:]:
        name, target, *_ = line.split()
        if target == "00000000":
            return int(Path("/sys/class/net", name, "mtu").read_text())
    return 1500


def _rules() -> list[tuple[str, str, str]]:
    """Return each rule as (command, table, words), chains and policies first as iptables prints them."""
    found = []
    for command in ("iptables", "ip6tables"):
        for table in ("raw", "mangle", "nat", "filter"):
            words = [str(WORK / "bin" / command), "-w", "-t", table, "-S"]
            said = subprocess.run(words, capture_output=True, text=True).stdout
            found += [(command, table, line) for line in said.splitlines()]
    return found


def _remove_rules(policies: list[tuple[str, str, str]]) -> None:
    """Remove this engine's rules and chains, and give the built-in chains the ``policies`` that they had."""

    def change(command: str, table: str, words: str) -> None:
        subprocess.run(["/bin/sh", "-c", f"'{WORK / 'bin' / command}' -w -t {table} {words}"], capture_output=True)

    ours = [rule for rule in _rules() if _OURS.search(rule[2])]
    for command, table, line in ours:
        if line.startswith("-A "):
            change(command, table, f"-D {line[3:]}")
    for option in ("-F", "-X"):
        for command, table, line in ours:
            if line.startswith("-N "):
                change(command, table, f"{option} {line[3:]}")
    for command, table, line in policies:
        change(command, table, line)


def _links() -> list[str]:
    return sorted(
        path.name for path in Path("/sys/class/net").iterdir() if re.match(r"docker0$|br-[0-9a-f]{12}$|veth", path.name)
    )


def _remove_links() -> None:
    with socket.socket() as handle:
        for name in _links():
            try:
                fcntl.ioctl(handle, 0x8914, struct.pack("16sH14x", name.encode(), 0))  # SIOCSIFFLAGS: down
                fcntl.ioctl(handle, 0x89A1, name.encode())  # SIOCBRDELBR
            except OSError:
                continue


def _cgroups() -> list[Path]:
    """Return the groups of this engine's containers, the innermost first."""
    tops = [*Path("/sys/fs/cgroup").glob("docker"), *Path("/sys/fs/cgroup").glob("*/docker")]
    found = [Path(folder) for top in tops for folder, _, _ in os.walk(top, topdown=False)]
    return [path for path in found if path.is_dir()]


def _mounts() -> list[str]:
    places = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return [place for place in reversed(places) if place.startswith(f"{WORK}/")]


def _ended(pid: int) -> bool:
    with contextlib.suppress(ChildProcessError):  # of one that is not ours to wait for
        os.waitpid(pid, os.WNOHANG)  # else the kernel would keep its number
    return not Path(f"/proc/{pid}").exists()


def _clean(policies: list[tuple[str, str, str]]) -> None:
    for pid in _own():
        for sent in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.kill(pid, sent)
            except OSError:
                break
            if _wait(lambda pid=pid: _ended(pid), 60):
                break
    for place in _mounts():
        subprocess.run(["umount", "--lazy", place], capture_output=True)
    _remove_links()
    _remove_rules(policies)
    for path in _cgroups():
        try:
            path.rmdir()
        except OSError:
            continue
    shutil.rmtree(WORK / "run", ignore_errors=True)


def _traces() -> set[str]:
    """Return what an engine leaves in the kernel, and what it changes there."""
    found = {f"link {name}" for name in _links()} | {f"cgroup {path}" for path in _cgroups()}
    found |= {f"{command} -t {table} {line}" for command, table, line in _rules() if not line.startswith("-P ")}
    found |= {f"{name} = {Path('/proc/sys', name).read_text().strip()}" for name in _SYSCTLS}
    return found | {f"mount {place}" for place in _mounts()} | {f"process {pid}" for pid in _own()}


def _empty() -> None:
    """Remove containers, networks and volumes of a run."""
    if names := docker("ps", "--all", "--quiet", check=False).split():
        docker("rm", "--force", "--volumes", *names, check=False)
    docker("network", "prune", "--force", check=False)
    docker("volume", "prune", "--all", "--force", check=False)


def _trim() -> None:
    """Keep images and the builder's cache within bounds."""
    docker("image", "prune", "--force", check=False)
    docker("builder", "prune", "--force", "--keep-storage", "12GB", check=False)


def serve() -> int:
    """Run the engine until the input ends; says ``ready`` when it answers."""
    for sent in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(sent, signal.SIG_IGN)  # whoever started it decides when it ends, by closing its input
    WORK.mkdir(parents=True, exist_ok=True)
    with (WORK / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another checkout's run may be at work
        get()
        _clean([])  # what a run left that was killed together with this process
        policies = [rule for rule in _rules() if rule[2].startswith("-P ")]
        settings = {name: Path("/proc/sys", name).read_text() for name in _SYSCTLS}
        before = _traces()
        for name, value in _SYSCTLS.items():
            if int(settings[name]) < int(value):
                Path("/proc/sys", name).write_text(value)
        try:
            _start()
            print("ready", flush=True)
            sys.stdin.read()
            _empty()
            _trim()
        finally:
            _clean(policies)
            for name, text in settings.items():
                Path("/proc/sys", name).write_text(text)
        left = sorted(_traces() - before)
        for line in left:
            print(f"left behind: {line}", flush=True)
        return 1 if left else 0


def _start() -> None:
    SOCKET.parent.mkdir(parents=True, exist_ok=True)
    # The cgroup driver is that of a machine without systemd, which one with it allows too.
    words = [
        str(WORK / "bin" / "dockerd"), "--data-root", str(DATA), "--exec-root", str(WORK / "run" / "exec"),
        "--pidfile", str(WORK / "run" / "docker.pid"), "--host", f"unix://{SOCKET}", "--group", "root",
        "--exec-opt", "native.cgroupdriver=cgroupfs", "--mtu", str(_mtu()), "--bip", f"{_ADDRESSES}.255.1/24",
        "--default-address-pool", f"base={_ADDRESSES}.0.0/17,size=24",
    ]  # fmt: skip
    log = WORK / "run" / "dockerd.log"
    env = {name: value for name, value in environment().items() if not name.startswith("DOCKER_")}
    with log.open("wb") as output:
        daemon = subprocess.Popen(
            words, env=env, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
    if not _wait(lambda: daemon.poll() is not None or _answers()) or daemon.poll() is not None:
        raise EngineError(f"dockerd does not answer:\n{log.read_text()[-4000:]}")
    _empty()


@contextmanager
def running() -> Iterator[None]:
    """Run the engine in a process of its own while the block lasts; it outlives neither the block nor this process."""
    command = [sys.executable, "-m", "tests.containers.engine"]
    process = subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    if process.stdout.readline().strip() != "ready":
        process.wait()
        raise EngineError("the engine did not start; what went wrong stands above")
    try:
        yield
    finally:
        process.stdin.close()
        said = process.stdout.read()
        if process.wait():
            raise EngineError(f"the engine ended with {process.returncode}\n{said}")


if __name__ == "__main__":
    sys.exit(serve())
