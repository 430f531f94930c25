"""Times and sizes as users write them."""

from __future__ import annotations

import re

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_BYTES = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}
_MOST_SHARE = 10.0  # 1000 %
# 27 years and 9 EB: counted back from now in ns, and in bytes, both stay in 64 bits.
_LONGEST, _LARGEST = 10_000 * 86_400, 2**63 - 1


def duration(text: str) -> float:
    """Return ``7d``, ``12h``, ``30m`` in seconds. Raises ``ValueError`` that says what is expected."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhdw])", text.strip().lower())
    if not found or float(found[1]) <= 0:
        raise ValueError(f"{text!r} is not a duration; write for example 7d, 12h or 30m")
    seconds = float(found[1]) * _SECONDS[found[2]]
    if seconds > _LONGEST:
        raise ValueError(f"{text[:20]!r} is too long: 10000d is the most, as in 30m, 12h or 7d")
    return seconds


def share(text: str) -> float:
    """Return ``10%`` or ``0.1`` as 0.1. Raises ``ValueError`` that says what is expected."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(%?)", text.strip())
    value = float(found[1]) / (100 if found[2] else 1) if found else -1.0
    if not 0 <= value <= _MOST_SHARE or (found and not found[2] and value >= 1):
        raise ValueError(f"{text[:20]!r} is not a share; write for example 10% or 0.1")
    return value


def size(text: str) -> int:
    """Return ``2GB``, ``500MB``, ``1GiB`` in bytes. Raises ``ValueError`` that says what is expected."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]*)", text.strip().lower())
    if not found or found[2].upper() not in _BYTES or float(found[1]) <= 0:
        raise ValueError(f"{text!r} is not a size; write for example 2GB or 500MB")
    most = float(found[1]) * _BYTES[found[2].upper()]
    if most > _LARGEST:
        raise ValueError(f"{text[:20]!r} is too large; write for example 2GB or 500MB")
    return int(most)
