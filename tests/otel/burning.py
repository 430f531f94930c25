"""Work whose CPU seconds are known."""

from __future__ import annotations

import hashlib
import time


def burn(seconds: float = 0.3) -> float:
    """Use CPU in this thread, without the interpreter's lock; return the CPU seconds that it took."""
    before = time.thread_time()
    while time.thread_time() - before < seconds:
        hashlib.pbkdf2_hmac("sha256", b"password", b"salt", 20_000)
    return time.thread_time() - before
