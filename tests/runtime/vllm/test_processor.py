"""Public-seed sampling inside vLLM, run where torch and vLLM are (see processor_checks.py)."""

from pathlib import Path

import pytest

from tests.runtime.vllm.conftest import run_checks_in_torch_python

SCRIPT = Path(__file__).with_name("processor_checks.py")
CHECKS = [
    "torch_noise_is_philox",
    "torch_candidates_break_ties_by_id",
    "torch_chooses_the_rules_tokens",
    "torch_keeps_min_tokens_and_the_ceiling",
    "both_runners_keep_min_tokens_and_the_ceiling",
    "first_runner_follows_its_batch",
    "bad_rules_are_refused_at_the_door",
    "second_runner_forces_by_slot",
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
