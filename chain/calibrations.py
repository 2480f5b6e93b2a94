"""Calibrated pairs for a registration, out of calibration reports (docs/calibration.md).

A report is a file beside the package, one for each pair of engine profiles. It is read strictly
where it matters: it must name this very model and two profiles, and its thresholds must be the ones
consensus knows.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from chain import readable
from chain.pairs import bets_flaw, is_profile, order_of
from chain.readable import ReadableError
from chain.records import (
    PAIRS_MAX,
    PROFILE_BYTES_MAX,
    Bets,
    BettingTable,
    Bound,
    CalibratedPair,
    Thresholds,
)
from consensus.bets import OPENING_TOKENS

FILE_BYTES_MAX: Final = 16 << 20
PINNED: Final = Thresholds(
    mismatch_bound=Bound(0, 0),
    margin_max=0,
    margin_bound=Bound(0, 0),
    distance_max=11,
    distance_bound=Bound(11, 11),
    outside_bound=Bound(0, 0),
    fingerprint_tolerance=11,
)
"""For the reference engine on both sides, whose bits are pinned: no replay mismatch, 10^-5 nats
(11 x 2^-20) of slack. With vLLM on a side honest results differ by more: calibrate the pair."""


class CalibrationError(Exception):
    """The reports can't be used for this model. The message says why and what to do."""


def read_pairs(paths: Sequence[Path], model: bytes, built_in: str) -> tuple[CalibratedPair, ...]:
    """The pairs to register a model with: those of the reports, in their order on chain.

    The built-in engine's profile on both sides is pinned and among them, unless a report is of just
    that pair. Raises CalibrationError.
    """
    pairs: dict[tuple[str, str], CalibratedPair] = {}
    sources: dict[tuple[str, str], Path] = {}
    for path in paths:
        pair = read_pair(path, model)
        place = order_of(pair)
        if place in pairs:
            raise CalibrationError(
                f"{sources[place]} and {path} are both of {' and '.join(place)}; give one of them"
            )
        pairs[place], sources[place] = pair, path
    pinned = CalibratedPair(built_in, built_in, PINNED)
    pairs.setdefault(order_of(pinned), pinned)
    if len(pairs) > PAIRS_MAX:
        raise CalibrationError(
            f"{len(pairs)} pairs, a model is registered with at most {PAIRS_MAX}"
        )
    return tuple(pairs[place] for place in sorted(pairs))


def check_registered(pairs: Sequence[CalibratedPair], registered: Sequence[CalibratedPair]) -> None:
    """Raise CalibrationError if a registration, which can't be changed, lacks one of the pairs or
    judges it by other thresholds."""
    for pair in pairs:
        if pair not in registered:
            names = " and ".join(order_of(pair))
            known = any(order_of(other) == order_of(pair) for other in registered)
            raise CalibrationError(
                f"the model is registered {'with other thresholds for' if known else 'without'} "
                f"the pair of {names}, and a registration can't be changed: begin a new chain"
            )


def read_pair(path: Path, model: bytes) -> CalibratedPair:
    """The pair of profiles that a report is of, and what it fitted. Raises CalibrationError."""
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
        profiles = []
        for name in ("provider_profile", "verifier_profile"):
            profile = readable.take_text(report.get(name), name)
            if not is_profile(profile):
                raise ReadableError(
                    f"{name}: expected 1 to {PROFILE_BYTES_MAX} printable ASCII characters "
                    "without blanks"
                )
            profiles.append(profile)
        thresholds: Thresholds = readable.parse(Thresholds, report.get("thresholds"), "thresholds")
        bets = _bets(report.get("e_process"))
        return CalibratedPair(profiles[0], profiles[1], thresholds, bets)
    except OSError as error:
        raise CalibrationError(f"{path}: {error.strerror}; run assay model calibrate") from error
    except (UnicodeDecodeError, ReadableError) as error:
        raise CalibrationError(f"{path}: no calibration report: {error}") from error


def _bets(data: object) -> Bets:
    """Of a report's betting tables the two that consensus plays by. Raises ReadableError.

    A table by which held-out honest jobs grew, if only by chance, is left out.
    """
    if data is None:
        return Bets()
    place = "e_process"
    if not isinstance(data, dict):
        raise ReadableError(f"{place}: expected an object")
    means = {
        kind: measured.get("mean_e_value")
        for row in readable.take_list(data.get("honest"), f"{place}.honest")
        if isinstance(row, dict) and row.get("output_tokens") == OPENING_TOKENS
        for kind, measured in row.get("kinds", {}).items()
    }
    tables: dict[str, BettingTable] = {}
    for table in readable.take_list(data.get("tables"), f"{place}.tables"):
        if isinstance(table, dict) and table.get("length") == OPENING_TOKENS:
            kept = {name: table.get(name) for name in ("edges", "log_e_values")}
            kind = readable.take_text(table.get("kind"), f"{place}.tables.kind")
            mean = means.get(kind)
            if isinstance(mean, int | float) and mean <= 1:
                tables[kind] = readable.parse(BettingTable, kept, f"{place}.tables")
    bets = Bets(tables.get("margin", BettingTable()), tables.get("distance", BettingTable()))
    flaw = bets_flaw(bets)
    if flaw is not None:
        raise ReadableError(f"{place}.tables: {flaw}")
    return bets
