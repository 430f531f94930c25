"""What applications of jobs that nobody begins share: a job that writes down that it ran, and a dead broker."""

import json
import socket
from pathlib import Path

import redis
import work

RAN = "ran"


def ok(bulk_id=None):
    redis.Redis.from_url(work.BROKER).rpush(RAN, str(bulk_id))


def nowhere():
    """Return the address of a broker that is not there."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"redis://127.0.0.1:{free.getsockname()[1]}/0"


def write(wanted, ids=None):
    """Write down how the jobs of each bulk end, and their ids."""
    Path("wanted.json").write_text(json.dumps(wanted))
    Path("ids.json").write_text(json.dumps(ids or {}))


def wanted():
    return json.loads(Path("wanted.json").read_text())


def ids():
    return json.loads(Path("ids.json").read_text())


def told(states):
    """Print what the queue itself says of the jobs of each bulk."""
    print(json.dumps(states))
