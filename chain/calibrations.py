"""Thresholds for a registration, out of a calibration report (docs/calibration.md).

A report is a file beside the package. It is read strictly where it matters: it must name this very
model and this profile as the provider's, and its thresholds must be the ones consensus knows.
"""

from pathlib import Path
from typing import Final

from assay.v1 import transactions_pb2
from chain import readable
from chain.readable import ReadableError
from chain.records import Thresholds

FILE_BYTES_MAX: Final = 16 << 20
PINNED: Final = Thresholds(
    replay_mismatches_max=0,
    margin_max=0,
    distance_max=11,
    distance_mean_max=11,
    outside_candidates_max=0,
    fingerprint_tolerance=11,
)
"""For the reference engine on both sides, whose bits are pinned: no replay mismatch, 10^-5 nats
(11 x 2^-20) of slack. With vLLM on a side honest results differ by more: calibrate the pair."""


class CalibrationError(Exception):
    """The report can't be used for this model. The message says why and what to do."""


def read_thresholds(path: Path, model: bytes, profile: str) -> Thresholds:
    """The thresholds that a report fitted for a model and its provider's engine profile.

    Raises CalibrationError.
    """
    try:
        with path.open("rb") as file:
            data = file.read(FILE_BYTES_MAX + 1)
        if len(data) > FILE_BYTES_MAX:
            raise CalibrationError(f"{path}: longer than {FILE_BYTES_MAX} bytes")
        report = readable.parse_object(data.decode())
        if report.get("model") != model.hex():
            raise CalibrationError(
                f"{path} was measured for model {report.get('model')}, not for {model.hex()}; "
                "calibrate this package"
            )
        if report.get("provider_profile") != profile:
            raise CalibrationError(
                f"{path} was measured for providers of profile {report.get('provider_profile')}, "
                f"not {profile}; calibrate that pair"
            )
        return readable.parse(Thresholds, report.get("thresholds"), "thresholds")
    except OSError as error:
        raise CalibrationError(f"{path}: {error.strerror}; run assay model calibrate") from error
    except (UnicodeDecodeError, ReadableError) as error:
        raise CalibrationError(f"{path}: no calibration report: {error}") from error


def thresholds_message(thresholds: Thresholds) -> transactions_pb2.Thresholds:
    """The thresholds as an operation or a view carries them."""
    return transactions_pb2.Thresholds(
        replay_mismatches_max=thresholds.replay_mismatches_max,
        margin_max=thresholds.margin_max,
        distance_max=thresholds.distance_max,
        distance_mean_max=thresholds.distance_mean_max,
        outside_candidates_max=thresholds.outside_candidates_max,
        fingerprint_tolerance=thresholds.fingerprint_tolerance,
    )
