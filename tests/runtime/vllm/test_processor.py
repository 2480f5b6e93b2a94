"""Public-seed sampling inside vLLM, run where torch and vLLM are (see processor_checks.py)."""

import json
import subprocess
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.runtime.vllm.conftest import environment, in_torch_python

SCRIPT = Path(__file__).with_name("processor_checks.py")
BOUND_S = 250.0
CHECKS = [
    "torch_noise_is_philox",
    "torch_candidates_break_ties_by_id",
    "torch_chooses_the_rules_tokens",
    "first_runner_follows_its_batch",
    "bad_rules_are_refused_at_the_door",
    "second_runner_forces_by_slot",
]


@pytest.fixture(scope="module")
def found() -> dict[str, str]:
    """What went wrong in each check."""
    result = subprocess.run(
        in_torch_python(str(SCRIPT)),
        cwd=REPOSITORY,
        env={**environment(), "VLLM_LOGGING_LEVEL": "ERROR", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=BOUND_S,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-4000:]
    outcome: dict[str, str] = json.loads(result.stdout.splitlines()[-1])
    return outcome


@pytest.mark.parametrize("check", CHECKS)
def test_inside_vllm(check: str, found: dict[str, str]) -> None:
    assert found[check] == ""


def test_every_check_is_run(found: dict[str, str]) -> None:
    assert sorted(found) == sorted(CHECKS)
