"""Pairs out of reports: only for the model they were measured on, each once, in order."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from chain.calibrations import (
    PINNED,
    CalibrationError,
    check_registered,
    read_pair,
    read_pairs,
)
from chain.pairs import checked_pairs, pair_message
from chain.readable import render
from chain.records import PAIRS_MAX, Bound, CalibratedPair, Thresholds

MODEL = bytes(range(32))
REFERENCE = "reference-float32-1"
PROFILE = "vllm-0.32/cpu/bfloat16"
FITTED = Thresholds(
    Bound(3 << 20, 90_000),
    700_000,
    Bound(900_000, 12_000),
    800_000,
    Bound(1, 60_000),
    Bound(0, 9),
    7,
)


def a_report(path: Path, **changes: object) -> Path:
    report = {
        "model": MODEL.hex(),
        "provider_profile": PROFILE,
        "verifier_profile": REFERENCE,
        "thresholds": render(FITTED),
        "jobs": {"honest": 1000},
    }
    path.write_text(json.dumps({**report, **changes}))
    return path


def test_a_report_gives_the_pair_it_is_of_and_what_it_fitted(tmp_path: Path) -> None:
    pair = read_pair(a_report(tmp_path / "r.json"), MODEL)
    assert pair == CalibratedPair(PROFILE, REFERENCE, FITTED)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model": "00" * 32}, "was measured for model"),
        ({"provider_profile": None}, "provider_profile: expected text"),
        ({"verifier_profile": "a b"}, "verifier_profile: expected 1 to 128 printable"),
        ({"verifier_profile": "x" * 129}, "verifier_profile: expected 1 to 128 printable"),
        ({"thresholds": {**render(FITTED), "margin_max": 1.5}}, "expected an integer"),
        ({"thresholds": {**render(FITTED), "margin_max": -1}}, "margin_max"),
        ({"thresholds": {**render(FITTED), "slack": 1}}, "slack"),
        ({"thresholds": {**render(FITTED), "margin_bound": 5}}, "margin_bound"),
        ({"thresholds": {**render(FITTED), "margin_bound": {"base": 5}}}, "margin_bound.*rate"),
        ({"thresholds": None}, "thresholds"),
    ],
)
def test_another_models_report_or_broken_values_are_refused(
    tmp_path: Path, changes: dict[str, object], said: str
) -> None:
    path = a_report(tmp_path / "r.json", **changes)
    with pytest.raises(CalibrationError, match=said):
        read_pair(path, MODEL)


def test_a_file_that_is_no_report_says_so(tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match="run assay model calibrate"):
        read_pair(tmp_path / "absent.json", MODEL)
    (tmp_path / "text").write_bytes(b"\xff not JSON")
    with pytest.raises(CalibrationError, match="no calibration report"):
        read_pair(tmp_path / "text", MODEL)


def test_without_reports_the_built_in_engine_verifies_itself_exactly() -> None:
    assert read_pairs([], MODEL, REFERENCE) == (CalibratedPair(REFERENCE, REFERENCE, PINNED),)


def test_reports_add_pairs_which_the_chain_accepts_in_their_order(tmp_path: Path) -> None:
    forth = a_report(tmp_path / "forth.json")
    back = a_report(tmp_path / "back.json", provider_profile=REFERENCE, verifier_profile=PROFILE)
    pairs = read_pairs([forth, back], MODEL, REFERENCE)
    assert pairs == (
        CalibratedPair(REFERENCE, REFERENCE, PINNED),
        CalibratedPair(REFERENCE, PROFILE, FITTED),
        CalibratedPair(PROFILE, REFERENCE, FITTED),
    )
    assert checked_pairs([pair_message(pair) for pair in pairs]) == pairs


def test_a_report_of_the_built_in_pair_counts_instead_of_the_pinned_one(tmp_path: Path) -> None:
    report = a_report(tmp_path / "r.json", provider_profile=REFERENCE)
    assert read_pairs([report], MODEL, REFERENCE) == (CalibratedPair(REFERENCE, REFERENCE, FITTED),)


def test_two_reports_of_one_pair_are_named(tmp_path: Path) -> None:
    paths = [a_report(tmp_path / name) for name in ("one.json", "two.json")]
    with pytest.raises(CalibrationError, match=r"one\.json and .*two\.json are both of vllm"):
        read_pairs(paths, MODEL, REFERENCE)


def test_a_registration_must_hold_what_the_reports_say_for_it_can_not_be_changed() -> None:
    pinned = CalibratedPair(REFERENCE, REFERENCE, PINNED)
    fitted = CalibratedPair(PROFILE, REFERENCE, FITTED)
    check_registered([], [pinned])
    check_registered([fitted], [pinned, fitted])
    with pytest.raises(CalibrationError, match=r"without the pair of vllm.* and reference-float32"):
        check_registered([pinned, fitted], [pinned])
    looser = replace(fitted, thresholds=replace(FITTED, margin_max=FITTED.margin_max + 1))
    with pytest.raises(CalibrationError, match="with other thresholds for the pair of vllm"):
        check_registered([fitted], [pinned, looser])


def test_more_pairs_than_a_model_may_have_are_refused(tmp_path: Path) -> None:
    paths = [
        a_report(tmp_path / f"{number}.json", provider_profile=f"engine-{number}")
        for number in range(PAIRS_MAX)
    ]
    assert len(read_pairs(paths[1:], MODEL, REFERENCE)) == PAIRS_MAX
    with pytest.raises(CalibrationError, match="17 pairs, a model is registered with at most 16"):
        read_pairs(paths, MODEL, REFERENCE)
