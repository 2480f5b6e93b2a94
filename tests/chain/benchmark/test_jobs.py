"""The benchmark of jobs takes every job its whole way."""

import pytest

from chain.benchmark.jobs import JOBS_MAX, STEPS, measure_jobs


def test_every_step_of_every_job_costs_time() -> None:
    measured = measure_jobs(7)
    assert tuple(measured.cpu_us) == STEPS
    assert all(cost_us > 0 for cost_us in measured.cpu_us.values())
    pair_us = measured.cpu_us["request"] + measured.cpu_us["result"]
    assert measured.pairs_a_second * pair_us == pytest.approx(1e6)


@pytest.mark.parametrize("count", [0, JOBS_MAX + 1])
def test_only_as_many_jobs_as_the_market_holds_are_measured(count: int) -> None:
    with pytest.raises(ValueError, match=f"{count} jobs, allowed are 1 to {JOBS_MAX}"):
        measure_jobs(count)
