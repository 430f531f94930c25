"""What tests draw by chance: the same each time, so that a run fails only for what has been changed.

``./run test --chance`` draws anew, and ten times as much; it says with which seed the same is drawn again.
"""

from __future__ import annotations

import os
from random import Random
from typing import Any

# Set by ``./run test --chance``, for the processes that run the tests.
SEED_IN, TIMES_IN = "BULKSCOPE_TEST_SEED", "BULKSCOPE_TEST_TIMES"

SEED = os.environ.get(SEED_IN)
TIMES = int(os.environ.get(TIMES_IN, "1"))


def rng(number: int) -> Random:
    """Return a source of chance; ``number`` tells it from the others, and is its seed where nothing is drawn anew."""
    return Random(number if SEED is None else f"{SEED} {number}")


def draws(examples: int, **more: Any) -> Any:
    """Return the settings of a test by hypothesis: how many examples, where nothing is drawn anew."""
    from hypothesis import settings

    return settings(max_examples=examples * TIMES, **more)


def steady() -> None:
    """Let hypothesis draw the same each time. Raises ``AttributeError`` where it no longer is what this was read in.

    A loaded machine fails no test: there are no deadlines, nor the check that drawing is fast. ``derandomize`` is not
    all: one value in twenty is a constant that stands in some module of ours. So each changed number of the project,
    and each module that a test before it had imported, made other draws, and other tests failed than what was changed.
    """
    from hypothesis import HealthCheck, settings
    from hypothesis.internal.conjecture import providers

    anew = SEED is not None
    settings.register_profile(
        "bulkscope", max_examples=100 * TIMES, derandomize=not anew, deadline=None, database=None, print_blob=True,
        suppress_health_check=[HealthCheck.too_slow],
    )  # fmt: skip
    settings.load_profile("bulkscope")
    if not anew:
        none = providers.Constants()
        providers._get_local_constants  # noqa: B018 (it must be there to be replaced)
        providers._get_local_constants = lambda: none
