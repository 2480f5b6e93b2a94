"""Thresholds of a report that exists, to judge jobs by that had no part in it."""

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

from runtime.calibration.thresholds import Bound, Thresholds

FILE_BYTES_MAX = 16 << 20


def read_thresholds(path: Path, provider: str, verifier: str) -> tuple[Thresholds, int]:
    """(thresholds, fingerprint's tolerance) that a report of this pair of profiles fitted.

    Raises ValueError for any other file, OSError if it can't be read.
    """
    with path.open("rb") as file:
        data = file.read(FILE_BYTES_MAX + 1)
    if len(data) > FILE_BYTES_MAX:
        raise ValueError(f"{path} is longer than {FILE_BYTES_MAX} bytes")
    try:
        report = json.loads(data)
        pair = report["provider_profile"], report["verifier_profile"]
        if pair != (provider, verifier):
            raise ValueError(f"it is of {pair[0]} and {pair[1]}, not of {provider} and {verifier}")
        written = report["thresholds"]
        values = {field.name: _value(written[field.name]) for field in fields(Thresholds)}
        return Thresholds(**values), int(written["fingerprint_tolerance"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is no report to judge by: {error}") from error


def _value(written: Any) -> Any:
    return Bound(**written) if isinstance(written, dict) else written
