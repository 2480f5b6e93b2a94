"""Thresholds from a report: only for the model and the profile that it was measured on."""

import json
from pathlib import Path

import pytest

from chain.calibrations import PINNED, CalibrationError, read_thresholds, thresholds_message
from chain.readable import render
from chain.records import Thresholds

MODEL = bytes(range(32))
PROFILE = "vllm-0.32/cpu/bfloat16"
FITTED = Thresholds(3, 700_000, 900_000, 60_000, 1, 800_000)


def a_report(path: Path, **changes: object) -> Path:
    report = {
        "model": MODEL.hex(),
        "provider_profile": PROFILE,
        "verifier_profile": "reference-float32-1",
        "thresholds": render(FITTED),
        "jobs": {"honest": 1000},
    }
    path.write_text(json.dumps({**report, **changes}))
    return path


def test_a_report_gives_the_thresholds_it_fitted(tmp_path: Path) -> None:
    assert read_thresholds(a_report(tmp_path / "r.json"), MODEL, PROFILE) == FITTED


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model": "00" * 32}, "was measured for model"),
        ({"provider_profile": "reference-float32-1"}, "not vllm-0.32/cpu/bfloat16"),
        ({"thresholds": {**render(FITTED), "margin_max": 1.5}}, "expected an integer"),
        ({"thresholds": {**render(FITTED), "margin_max": -1}}, "margin_max"),
        ({"thresholds": {**render(FITTED), "slack": 1}}, "slack"),
        ({"thresholds": None}, "thresholds"),
    ],
)
def test_another_models_report_or_broken_numbers_are_refused(
    tmp_path: Path, changes: dict[str, object], said: str
) -> None:
    path = a_report(tmp_path / "r.json", **changes)
    with pytest.raises(CalibrationError, match=said):
        read_thresholds(path, MODEL, PROFILE)


def test_a_file_that_is_no_report_says_so(tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match="run assay model calibrate"):
        read_thresholds(tmp_path / "absent.json", MODEL, PROFILE)
    (tmp_path / "text").write_bytes(b"\xff not JSON")
    with pytest.raises(CalibrationError, match="no calibration report"):
        read_thresholds(tmp_path / "text", MODEL, PROFILE)


def test_what_is_registered_is_what_was_fitted() -> None:
    message = thresholds_message(FITTED)
    assert {field.name: value for field, value in message.ListFields()} == render(FITTED)
    assert thresholds_message(PINNED).replay_mismatches_max == 0
