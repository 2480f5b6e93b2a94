"""Our worker for CPUs and what runs it, run where torch and vLLM are (see worker_checks.py)."""

from pathlib import Path

import pytest

from tests.runtime.vllm.conftest import run_checks_in_torch_python

SCRIPT = Path(__file__).with_name("worker_checks.py")
CHECKS = [
    "rows_are_those_of_vllm",
    "the_head_is_put_to_claimed_rows_only_and_few_at_once",
    "a_request_that_ended_is_forgotten",
    "a_widened_product_is_a_sum_in_float32_rounded_once",
    "ray_where_it_is_not_installed_is_refused",
    "ray_on_other_platforms_is_vllms_own",
]


@pytest.fixture(scope="module")
def found() -> dict[str, str]:
    """What went wrong in each check."""
    return run_checks_in_torch_python(SCRIPT)


@pytest.mark.parametrize("check", CHECKS)
def test_inside_vllm(check: str, found: dict[str, str]) -> None:
    assert found[check] == ""


def test_every_check_is_run(found: dict[str, str]) -> None:
    assert sorted(found) == sorted(CHECKS)
