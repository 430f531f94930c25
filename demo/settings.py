"""What can be set from outside, each by an environment variable."""

from __future__ import annotations

import os

BROKER = os.environ.get("DEMO_BROKER", "redis://127.0.0.1:6379/0")
QUEUE = "prompts"
# Jobs waiting in the queue beyond which a new bulk is refused, and when to come back, in seconds.
MAX_QUEUE = int(os.environ.get("DEMO_MAX_QUEUE", "1000"))
RETRY_AFTER_S = int(os.environ.get("DEMO_RETRY_AFTER", "5"))
# Tokens of prompt and answer together that a model is loaded for.
CONTEXT = int(os.environ.get("DEMO_CONTEXT", "2048"))
# How long a bulk and its results are kept, in seconds.
KEEP_S = 24 * 3600
