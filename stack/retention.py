"""How long data is kept: the settings in ``.env``, what they are without it, and whether a value is one."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Setting:
    """A variable, what it is where nobody has set it, what it means, and the form of its values with an example."""

    variable: str
    default: str
    meaning: str
    form: re.Pattern[str]
    example: str


# Elasticsearch's: one number and one unit. Nought is refused, it would delete everything.
_TIME = re.compile(r"0*[1-9]\d*[smhd]")
# Prometheus': several units, the larger first. Its size is in powers of 1024; 0 is no limit for the one or the other.
_TIMES = re.compile(r"0|(?=\d)(\d+y)?(\d+w)?(\d+d)?(\d+h)?(\d+m)?(\d+s)?(\d+ms)?")
_SIZE = re.compile(r"0|\d+([KMGTPE]?B)")

SETTINGS = (
    Setting("TRACES_RETENTION", "14d", "how long Elasticsearch keeps traces", _TIME, "14d or 36h"),
    Setting("LOGS_RETENTION", "14d", "how long Elasticsearch keeps log records", _TIME, "14d or 36h"),
    Setting("METRICS_RETENTION", "30d", "how long Elasticsearch keeps metrics of hosts", _TIME, "30d or 36h"),
    Setting("PROMETHEUS_RETENTION_TIME", "15d", "how long Prometheus keeps metrics, at most", _TIMES, "15d or 1y6w"),
    Setting("PROMETHEUS_RETENTION_SIZE", "4GB", "how much disk Prometheus takes, at most", _SIZE, "4GB or 512MB"),
)


def problems(environ: Mapping[str, str]) -> Iterator[str]:
    """Yield, for each value that Elasticsearch or Prometheus would not take, one text that says what to write."""
    for setting in SETTINGS:
        value = environ.get(setting.variable) or setting.default
        if not setting.form.fullmatch(value):
            yield f"{setting.variable} is {value!r}: write a number and a unit into .env, such as {setting.example}"
