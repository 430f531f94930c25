"""What every job here does, whatever the queue: plain functions, as a user would have them."""

import logging
import os
import time
from pathlib import Path

logging.basicConfig(level="INFO")
logger = logging.getLogger("app")

BROKER = os.environ.get("BROKER", "redis://127.0.0.1:6379/0")


def ok(bulk_id=None):
    time.sleep(float(os.environ.get("SECONDS_OF_WORK", "0")))
    logger.info("working")
    return "fine"


def fails(bulk_id=None):
    raise ConnectionError("no route")


def flaky(bulk_id=None):
    """Fail the first time, by a mark in the working directory; go well the second."""
    mark = Path(f"flaky-{bulk_id}")
    if not mark.exists():
        mark.touch()
        raise KeyError("once")
    return "fine"
