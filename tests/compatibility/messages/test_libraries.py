"""Each library of messages, oldest and newest supported version: the jobs of ``five``, on real brokers."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.compatibility import five
from tests.compatibility.five import Run
from tests.compatibility.libraries import MESSAGES, ON_RABBITMQ, Queue

pytestmark = pytest.mark.engines
NEWEST = [library for library in MESSAGES if library.age == "newest"]

test_a_job_that_fails = five.a_job_that_fails
test_a_job_that_goes_well = five.a_job_that_goes_well
test_a_job_that_is_tried_again = five.a_job_that_is_tried_again
test_a_job_that_publishes_another = five.a_job_that_publishes_another
test_a_wanted_delay_is_no_wait = five.a_wanted_delay_is_no_wait
test_arguments_of_jobs_are_not_in_the_logs = five.arguments_of_jobs_are_not_in_the_logs
test_every_job_is_in_the_metrics = five.every_job_is_in_the_metrics
test_what_a_job_logs_is_found_by_its_bulk = five.what_a_job_logs_is_found_by_its_bulk


@pytest.fixture(scope="module", params=[*MESSAGES, *ON_RABBITMQ], ids=str)
def run(request: pytest.FixtureRequest, brokers: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Run:
    library: Queue = request.param
    folder = tmp_path_factory.mktemp("messages") / "app"
    return five.run_five(library, brokers[library.system], folder, QUEUE=str(library).replace(" ", "-"))


@pytest.mark.parametrize("library", NEWEST, ids=str)
def test_a_job_keeps_its_bulk_and_its_trace_without_any_propagator(
    library: Queue, brokers: dict[str, str], tmp_path: Path
) -> None:
    run = five.run_five(
        library, brokers[library.system], tmp_path / "app", OTEL_PROPAGATORS="none", QUEUE=f"none-{library.name}"
    )
    five.a_job_that_goes_well(run)
    five.a_job_that_is_tried_again(run)
    five.a_job_that_publishes_another(run)


@pytest.mark.parametrize("library", NEWEST, ids=str)
def test_that_a_job_began_is_known_before_any_batch_leaves(
    library: Queue, brokers: dict[str, str], tmp_path: Path
) -> None:
    five.tells_that_it_began(library, brokers[library.system], tmp_path / "app", QUEUE=f"began-{library.name}")
