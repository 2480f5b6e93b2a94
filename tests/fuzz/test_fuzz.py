"""A short run of every fuzz target, and that the harness finds, keeps and repeats what is wrong."""

import subprocess
import sys
from itertools import islice
from pathlib import Path
from random import Random

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.fuzz import harness, signatures
from tests.fuzz.harness import Target
from tests.fuzz.targets import TARGETS

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 3.0
"""Seed 1 draws the same first cases each time; `make fuzz` draws on."""
SAMPLE = 40


@pytest.mark.parametrize("name", TARGETS)
def test_a_short_run_finds_nothing(name: str, tmp_path: Path) -> None:
    assert harness.run(TARGETS[name], seed=1, seconds=SECONDS, failures=tmp_path, cases=1) > 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", TARGETS)
def test_a_seed_draws_the_same_cases_again_and_another_seed_others(name: str) -> None:
    first, again, other = (
        list(islice(TARGETS[name].inputs(Random(seed)), SAMPLE)) for seed in (7, 7, 8)
    )
    assert first == again
    assert first != other


def test_a_case_that_fails_is_kept_and_fails_again_from_its_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse_long(data: bytes) -> None:
        if len(data) > 1000:
            raise ValueError("too long")

    picky = Target("picky", TARGETS["hashing"].inputs, refuse_long)
    with pytest.raises(ValueError, match="too long"):
        harness.run(picky, seed=3, seconds=60, failures=tmp_path)
    (kept,) = tmp_path.iterdir()
    assert f"python -m tests.fuzz picky --input {kept}" in capsys.readouterr().err
    with pytest.raises(ValueError, match="too long"):
        harness.check(picky, kept.read_bytes(), tmp_path)


class SaysYes:
    """A verifier that accepts everything."""

    def verify_each(self, keys: list[bytes], *_: list[bytes]) -> NDArray[np.bool_]:
        return np.ones(len(keys), dtype=np.bool_)


def test_a_verifier_that_says_yes_to_everything_is_found(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(signatures, "_VERIFIERS", [SaysYes()])
    with pytest.raises(AssertionError, match="together"):
        harness.run(TARGETS["signatures"], seed=1, seconds=60, failures=tmp_path)


def test_the_command_tries_one_file(tmp_path: Path) -> None:
    path = tmp_path / "input.bin"
    path.write_bytes(b"\x00" * 99)
    command = [sys.executable, "-m", "tests.fuzz"]
    run = subprocess.run(
        [*command, "hashing", "--input", str(path)], cwd=ROOT, check=False, timeout=240
    )
    assert run.returncode == 0
    unknown = subprocess.run([*command, "nothing"], cwd=ROOT, check=False, capture_output=True)
    assert unknown.returncode == 2
    assert b"no target nothing; there are signatures" in unknown.stderr
