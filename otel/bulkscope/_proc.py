"""PLACEHOLDER by lead: owner X overwrites."""

import os
from types import SimpleNamespace

import psutil


class Proc:
    def __init__(self, *a, **k):
        pass

    def status(self):
        return SimpleNamespace(rss=psutil.Process().memory_info().rss)

    def container_id(self):
        return None

    def allowed_cores(self):
        return float(len(os.sched_getaffinity(0)))

    def memory_limit(self):
        return None
