"""Which process on this machine answers at an address: by its listening socket, as ``ss -ltnp`` finds it.

``/proc`` is a parameter, so that a folder of fixtures can stand for any machine.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

from bulkscope._host import processes

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_LISTEN = "0A"
# They hand a request on, so that their CPU and memory say nothing of the engine behind them.
PROXIES = frozenset((
    "docker-proxy", "rootlesskit", "slirp4netns", "pasta", "passt", "nginx", "haproxy", "envoy", "traefik", "caddy",
    "systemd", "kubectl", "ssh", "sshd", "socat", "gvproxy", "httpd", "apache2",
))  # fmt: skip


class Unseen(Exception):
    """Why the process behind an address cannot be measured; the message says it to a person."""


class Elsewhere(Unseen):
    """The address is no other process's of this machine, and will not become one."""


def listener(host: str, port: int, root: Path = Path("/proc")) -> int:
    """Return the id of the process that listens at ``host:port``: of several, the one that began the others.

    Raises ``Unseen`` where the address is another machine's, and where the process cannot be seen from here.
    """
    found = {address for address in _addresses(host, port) if _is_ours(address)}
    if not found:
        raise Elsewhere(f"{host} is another machine")
    inodes = set(_inodes(root, found, port))
    if not inodes:
        raise Unseen(f"nothing in this network namespace listens on port {port}: it is away, or in a container")
    holders = set(_holders(root, inodes))
    if not holders:
        raise Unseen(f"the process that listens on port {port} is another user's")
    roots = [pid for pid in sorted(holders) if processes.parent(root, pid) not in holders]
    if len(roots) != 1:
        raise Unseen(f"several processes listen on port {port}")
    (first,) = roots
    name = processes.command(root, first)
    if name in PROXIES:
        raise Unseen(f"{name} listens on port {port}, and hands requests on")
    if os.getpid() in processes.family(root, first):
        raise Unseen(f"port {port} is this process's own, or that of a process that began it")
    return first


def _addresses(host: str, port: int) -> Iterator[_Address]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise Elsewhere(f"{host} has no address") from error
    for *_, address in found:
        yield ipaddress.ip_address(str(address[0]).partition("%")[0])


def _is_ours(address: _Address) -> bool:
    """Return whether an address is this machine's: one that a socket here can be bound to."""
    if address.is_loopback:
        return True
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((str(address), 0))
    except OSError:
        return False
    return True


def _inodes(root: Path, addresses: set[_Address], port: int) -> Iterator[str]:
    for name in ("tcp", "tcp6"):
        try:
            lines = (root / "self" / "net" / name).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            if len(fields) < 10 or fields[3] != _LISTEN:
                continue
            local, _, number = fields[1].rpartition(":")
            if int(number, 16) == port and _serves(_decoded(local), addresses):
                yield fields[9]


def _decoded(text: str) -> _Address:
    """Return the address that the kernel writes as words in the machine's byte order."""
    words = [struct.pack("=I", int(text[at : at + 8], 16)) for at in range(0, len(text), 8)]
    return ipaddress.ip_address(b"".join(words))


def _serves(bound: _Address, asked: set[_Address]) -> bool:
    mapped = bound.ipv4_mapped if isinstance(bound, ipaddress.IPv6Address) else None
    return bound.is_unspecified or bool(mapped and mapped.is_unspecified) or bool({bound, mapped} & asked)


def _holders(root: Path, inodes: set[str]) -> Iterator[int]:
    """Yield the processes that have one of these sockets open, of those whose descriptors may be read."""
    wanted = {f"socket:[{inode}]" for inode in inodes}
    for entry in os.scandir(root):
        if not entry.name.isdigit():
            continue
        folder = f"{root}/{entry.name}/fd"
        try:
            links = os.listdir(folder)
        except OSError:  # another user's, or ended since
            continue
        for link in links:
            try:
                if os.readlink(f"{folder}/{link}") in wanted:
                    yield int(entry.name)
                    break
            except OSError:
                continue
