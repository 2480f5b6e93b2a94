"""What a calibration reads out of its records."""

from pathlib import Path

from runtime.calibration.pipeline import Plan, fingerprint_tolerance
from runtime.calibration.records import ReplayRow
from runtime.packages import REFERENCE_PROFILE
from tests.runtime.tiny_model import TinyModel, tiny_package

PROVIDER, VERIFIER = "engine-1/float32", "engine-2/float32"


def row(number: int, runner_up: int) -> ReplayRow:
    return ReplayRow(f"{number:032x}", (0,), (0,), (runner_up,), (), ())


def with_prefills(work: Path, count: int, apart: int) -> Plan:
    """A plan whose two engines prefilled the same outputs, `apart` units from each other."""
    plan = Plan(package=tiny_package(work, TinyModel()), work=work)
    with plan.prefills(PROVIDER) as ones, plan.replays(VERIFIER) as others:
        for number in range(count):
            ones.add(row(number, -1_000))
            others.add(row(number, -1_000 - apart))
    return plan


def test_the_fingerprint_tolerance_covers_what_two_prefills_differed_by(tmp_path: Path) -> None:
    tolerance, source = fingerprint_tolerance(
        with_prefills(tmp_path, 40, apart=90), PROVIDER, VERIFIER, distance_max=38
    )
    assert tolerance >= 90
    assert "40 outputs" in source


def test_it_is_never_tighter_than_the_distance_of_provider_and_verifier(tmp_path: Path) -> None:
    plan = with_prefills(tmp_path, 40, apart=0)
    assert fingerprint_tolerance(plan, PROVIDER, VERIFIER, distance_max=38)[0] == 38


def test_two_engines_of_the_same_bits_allow_nothing(tmp_path: Path) -> None:
    plan = with_prefills(tmp_path, 3, apart=0)
    assert fingerprint_tolerance(plan, REFERENCE_PROFILE, REFERENCE_PROFILE, 11)[0] == 0
