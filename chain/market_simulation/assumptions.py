"""What the ledger cannot know, and the reports it is taken from.

Amounts are grain, shares are parts in a million (`ppm`), so that every draw and every cost is an
integer. Figures that were measured are read from the reports; the others are choices, named as
such in `CHOICES`, and meant to be varied.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from chain import readable
from chain.records import Thresholds

MILLION: Final = 1_000_000
REPORTS: Final = Path(__file__).resolve().parents[2] / "bench"
CALIBRATION_REPORT: Final = (
    REPORTS / "calibration" / "vllm-0.32+cpu+float32+tp1+pp1--vllm-0.32+cpu+float32+tp1+pp1.json"
)
RUNTIME_REPORT: Final = REPORTS / "runtime" / "vllm-8-in-flight.json"
WHOLE: Final = "whole"
"""The row of a calibration report about outputs as long as they came."""

CHOICES: Final = {
    "generation_cost": "chosen: grain for an output token; 60% of the default price, for want of "
    "a market",
    "cost_of_fraud_ppm": "chosen: the share of weights that is read a token (int8 1/4 of float32, "
    "int4 1/8, half of the layers 1/2), and something for all that is not weights",
    "steering_gain": "chosen: grain that a chosen output is worth to who chose it; the price of "
    "the tokens",
    "down_ppm": "chosen: share of seats whose verifier is down and says nothing",
    "crash_ppm": "chosen: share of commits that are not revealed, with an outage of 5 minutes in "
    "30 seconds: a tenth of down_ppm",
}

FRAUD_COSTS_PPM: Final = {
    "int8": 400_000,
    "int4": 250_000,
    "smaller-model": 500_000,
    "wrong-seed": MILLION,
    "ground-seed": 4 * MILLION,
}
"""Cost of an answer by each way to cheat, over an honest one's: `ground-seed` tries four seeds."""
STEERING: Final = frozenset({"wrong-seed", "ground-seed"})
"""Frauds that save nothing, and choose the output."""


class AssumptionError(Exception):
    """A report that cannot be read, or does not say what is needed."""


@dataclass(frozen=True, slots=True)
class Assumptions:
    """Costs and probabilities that the agents live with."""

    verify_over_generate_ppm: int
    """Cost of verifying a token over that of generating it."""
    detection_ppm: Mapping[str, int]
    """By class of fraud: share of jobs whose evidence shows. All verifiers see the same evidence,
    so it shows to all or to none: the worst case for the chain."""
    false_rejection_ppm: int
    """Share of honest results that an honest verifier fails. Drawn for each verifier."""
    thresholds: Thresholds
    """What the model is registered with."""
    sources: Mapping[str, str]
    generation_cost: int = 6_000
    """Grain for an output token."""
    cost_of_fraud_ppm: Mapping[str, int] = field(default_factory=lambda: dict(FRAUD_COSTS_PPM))
    steering_gain: int = 1_344_000
    down_ppm: int = 5_000
    crash_ppm: int = 500


def read_reports(
    calibration: Path = CALIBRATION_REPORT, runtime: Path = RUNTIME_REPORT
) -> Assumptions:
    """Assumptions from measured reports, each share at the end of its 95% interval that favours
    the cheat. Raises AssumptionError."""
    measured = _read(calibration)
    speed = _read(runtime)
    try:
        detection = {
            name: _ppm(_row(measured["held_out"]["frauds"][name]["by_length"])["share_lower_95"])
            for name in FRAUD_COSTS_PPM
        }
        false = _ppm(_row(measured["held_out"]["false_rejections"])["share_upper_95"])
        thresholds: Thresholds = readable.parse(Thresholds, measured["thresholds"], "thresholds")
        ratio = _ppm(speed["measured"][0]["verify_over_generate"]["cpu"]["median"])
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise AssumptionError(
            f"{calibration.name} or {runtime.name} is no report of this version: {error!r}"
        ) from error
    by = {"detection_ppm": "share_lower_95", "false_rejection_ppm": "share_upper_95"}
    sources = {
        **{name: f"{calibration.name}, held_out, {field}" for name, field in by.items()},
        "thresholds": f"{calibration.name}, thresholds",
        "verify_over_generate_ppm": f"{runtime.name}, verify_over_generate, cpu, median",
        **CHOICES,
    }
    return Assumptions(
        verify_over_generate_ppm=ratio,
        detection_ppm=detection,
        false_rejection_ppm=false,
        thresholds=thresholds,
        sources=sources,
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        report = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise AssumptionError(
            f"{path} cannot be read ({error}): give a report with --calibration or --runtime-report"
        ) from error
    if not isinstance(report, dict):
        raise AssumptionError(f"{path} holds no JSON object, so it is no report")
    return report


def _row(by_length: list[dict[str, Any]]) -> dict[str, Any]:
    for row in by_length:
        if row["output_tokens"] == WHOLE:
            return row
    raise KeyError(WHOLE)


def _ppm(share: float) -> int:
    return round(share * MILLION)
