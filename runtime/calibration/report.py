"""The report: thresholds from the fitting part, everything else from the held-out part.

It is plain JSON, one file for each pair of engine profiles, and says on what it was measured. Its
`thresholds` have the names and units of assay.v1.Thresholds, so that a model can be registered with
them as they stand.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from runtime.calibration.binomial import lower_share, upper_share
from runtime.calibration.eprocess import (
    LIMIT_LOG,
    Accumulation,
    BettingTable,
    Kind,
    accumulate,
    fit_table,
    greatest_prefix_sum,
    log_e_values,
    values_of,
)
from runtime.calibration.evidence import LENGTHS, Evidence, PrefixScores
from runtime.calibration.frauds import families
from runtime.calibration.lengths import at_every_length, strung_together
from runtime.calibration.thresholds import (
    FALSE_REJECT_BUDGET,
    Judgement,
    Thresholds,
    judge,
)
from runtime.sampling import LOGPROB_UNITS_PER_NAT

FORMAT = 2
WHOLE = 0
"""Stands for the whole output, whatever its length."""
SINGLE_JOB_DETECTION = 0.95
"""A fraud that a single job shows less often is weak: the e-process is fitted to those."""
SEQUENCES = 200
FRAUD_JOBS_MAX = 20_000
HONEST_LIFETIME_JOBS = 20_000
RULES = ("registered", "margins", "distances")


@dataclass(frozen=True, slots=True)
class Subject:
    """What was calibrated, as the report names it."""

    model: str
    model_name: str
    provider_profile: str
    verifier_profile: str
    corpus: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Parts:
    """Evidence by fraud, `honest` apart, split by the jobs' hashes."""

    fitting_honest: list[Evidence]
    held_out_honest: list[Evidence]
    fitting: dict[str, list[Evidence]]
    held_out: dict[str, list[Evidence]]


def split(honest: Sequence[Evidence], frauds: Mapping[str, Sequence[Evidence]]) -> Parts:
    """Jobs in the order of their hashes, in parts."""

    def half(evidence: Sequence[Evidence], fits: bool) -> list[Evidence]:
        return sorted((e for e in evidence if e.fits is fits), key=lambda e: e.job)

    return Parts(
        half(honest, True),
        half(honest, False),
        {name: half(evidence, True) for name, evidence in frauds.items()},
        {name: half(evidence, False) for name, evidence in frauds.items()},
    )


def all_held_out(honest: Sequence[Evidence], frauds: Mapping[str, Sequence[Evidence]]) -> Parts:
    """The same where nothing is fitted."""
    ordered = {name: sorted(e, key=lambda e: e.job) for name, e in frauds.items()}
    return Parts([], sorted(honest, key=lambda e: e.job), {name: [] for name in frauds}, ordered)


def _scores_at(evidence: Sequence[Evidence], length: int) -> list[PrefixScores]:
    if length == WHOLE:
        return [e.prefix(e.tokens) for e in evidence]
    return [e.prefix(length) for e in evidence if e.tokens >= length]


def _rejections(
    evidence: Sequence[Evidence], length: int, thresholds: Thresholds
) -> tuple[int, dict[str, int]]:
    """(jobs of that length, how many each rule rejects)."""
    verdicts: list[Judgement] = [judge(s, thresholds) for s in _scores_at(evidence, length)]
    return len(verdicts), {rule: sum(getattr(v, rule) for v in verdicts) for rule in RULES}


def _detection(
    evidence: Sequence[Evidence],
    length: int,
    thresholds: Thresholds,
    honest_tokens: Mapping[str, tuple[int, ...]],
) -> dict[str, Any] | None:
    jobs, rejected = _rejections(evidence, length, thresholds)
    if not jobs:
        return None
    return {
        "output_tokens": length or "whole",
        "jobs": jobs,
        "output_as_if_honest": sum(
            _same_output(e.token_ids, honest_tokens.get(e.job), length)
            for e in evidence
            if e.tokens >= length
        ),
        "detected": rejected,
        "share": round(rejected["registered"] / jobs, 4),
        "share_lower_95": round(lower_share(rejected["registered"], jobs), 4),
    }


def _same_output(ours: tuple[int, ...], honest: tuple[int, ...] | None, length: int) -> bool:
    """Whether the fraud made no difference to so many tokens of the output."""
    if honest is None:
        return False
    return ours == honest if length == WHOLE else ours[:length] == honest[:length]


def _false_rejections(honest: Sequence[Evidence], thresholds: Thresholds) -> list[dict[str, Any]]:
    found = []
    for length in (*LENGTHS, WHOLE):
        jobs, rejected = _rejections(honest, length, thresholds)
        if jobs:
            found.append(
                {
                    "output_tokens": length or "whole",
                    "jobs": jobs,
                    "rejected": rejected,
                    "share_upper_95": round(upper_share(rejected["registered"], jobs), 6),
                }
            )
    return found


def noise_of(honest: Sequence[Evidence]) -> dict[str, Any]:
    """How far two honest parties are from each other."""
    positions = sum(e.tokens for e in honest)
    if not positions:
        return {"jobs": 0, "positions": 0}
    distances = np.concatenate([e.distances for e in honest])
    margins = np.concatenate([e.margins for e in honest])
    unit = 1 / LOGPROB_UNITS_PER_NAT
    return {
        "jobs": len(honest),
        "positions": positions,
        "distance_mean_nats": float(f"{distances.mean() * unit:.3e}"),
        "distance_max_nats": float(f"{distances.max() * unit:.3e}"),
        "mismatches": int(sum(e.mismatches.sum() for e in honest)),
        "margin_max_nats": float(f"{margins.max() * unit:.3e}"),
    }


def curve(honest: Sequence[int], fraudulent: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """ROC: (shares of honest jobs, of fraudulent jobs) above each possible threshold, rising."""
    cuts = np.unique(np.concatenate([honest, fraudulent]))[::-1]
    false = np.array([0.0, *(float(np.mean(np.array(honest) >= cut)) for cut in cuts)])
    true = np.array([0.0, *(float(np.mean(np.array(fraudulent) >= cut)) for cut in cuts)])
    return false, true


def area(honest: Sequence[int], fraudulent: Sequence[int]) -> float:
    """Area under the ROC curve."""
    false, true = curve(honest, fraudulent)
    return float(np.trapezoid(true, false))


def weak_frauds(parts: Parts, thresholds: Thresholds, length: int) -> list[str]:
    """Frauds that a single fitting job of that length shows too seldom."""
    weak = []
    for name, evidence in parts.fitting.items():
        jobs, rejected = _rejections(evidence, length, thresholds)
        if jobs and rejected["registered"] < SINGLE_JOB_DETECTION * jobs:
            weak.append(name)
    return weak


def _e_process(parts: Parts, thresholds: Thresholds) -> dict[str, Any]:
    tables: list[BettingTable] = []
    honest: list[dict[str, Any]] = []
    by_fraud: dict[str, list[dict[str, Any]]] = {name: [] for name in parts.held_out}
    for length in LENGTHS:
        weak = weak_frauds(parts, thresholds, length)
        fitting = [parts.fitting[name] for name in weak]
        ours = [fit_table(kind, length, parts.fitting_honest, fitting) for kind in Kind]
        tables += ours
        logs = [log_e_values(table, parts.held_out_honest) for table in ours]
        if len(logs[0]):
            honest.append(_honest_wealth(length, ours, logs))
        for name, evidence in parts.held_out.items():
            logs = [log_e_values(table, evidence) for table in ours]
            if len(logs[0]):
                played = accumulate(logs, SEQUENCES, FRAUD_JOBS_MAX, length)
                by_fraud[name].append(_played(length, len(logs[0]), name in weak, played))
    return {
        "limit_log": LIMIT_LOG,
        "tables": [asdict(table) for table in tables],
        "honest": honest,
        "frauds": by_fraud,
    }


def _honest_wealth(
    length: int, tables: Sequence[BettingTable], logs: Sequence[np.ndarray]
) -> dict[str, Any]:
    unit = 1 / LOGPROB_UNITS_PER_NAT
    played = accumulate(logs, SEQUENCES, HONEST_LIFETIME_JOBS, length)
    kinds = {}
    for table, log in zip(tables, logs, strict=True):
        e_values = np.exp(log * unit)
        error = float(e_values.std(ddof=1)) / math.sqrt(len(log)) if len(log) > 1 else 0.0
        kinds[table.kind.value] = {
            "mean_e_value": round(float(e_values.mean()), 4),
            "standard_error": round(error, 4),
            "worst_wealth_log10_in_order": round(greatest_prefix_sum(log) * unit / math.log(10), 3),
        }
    return {
        "output_tokens": length,
        "held_out_jobs": len(logs[0]),
        "kinds": kinds,
        "lifetimes_drawn": played.sequences,
        "lifetime_jobs": played.jobs_max,
        "lifetimes_ejected": played.reached,
        "worst_wealth_log10_drawn": round(played.worst_log * unit / math.log(10), 3),
    }


def _played(length: int, jobs: int, weak: bool, played: Accumulation) -> dict[str, Any]:
    return {
        "output_tokens": length,
        "held_out_jobs": jobs,
        "weak": weak,
        "sequences": played.sequences,
        "ejected": played.reached,
        "jobs_max": played.jobs_max,
        "median_jobs": played.median_jobs,
        "ninety_percent_jobs": played.ninety_percent_jobs,
    }


def _areas(parts: Parts, length: int) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {}
    for name, evidence in parts.held_out.items():
        areas = {}
        for kind in Kind:
            honest = values_of(parts.held_out_honest, kind, length)
            fraudulent = values_of(evidence, kind, length)
            if honest and fraudulent:
                areas[kind.value] = round(area(honest, fraudulent), 4)
        found[name] = areas
    return found


def build_report(
    subject: Subject,
    parts: Parts,
    thresholds: Thresholds,
    fingerprint_tolerance: int,
    fingerprint_source: str,
) -> dict[str, Any]:
    """What these thresholds, of the fitting part, do on the other; and the e-process of both."""
    values = asdict(thresholds)
    kinds = families()
    honest_tokens = {e.job: e.token_ids for e in parts.held_out_honest}
    frauds = {}
    for name, evidence in parts.held_out.items():
        found = [
            _detection(evidence, length, thresholds, honest_tokens) for length in (*LENGTHS, WHOLE)
        ]
        frauds[name] = {
            "family": kinds[name].value,
            "by_length": [detection for detection in found if detection is not None],
        }
    return {
        "format": FORMAT,
        "model": subject.model,
        "model_name": subject.model_name,
        "provider_profile": subject.provider_profile,
        "verifier_profile": subject.verifier_profile,
        "corpus": dict(subject.corpus),
        "units": "2^-20 nats where nothing else is said; bounds are base + rate x doubt, in 2^-20",
        "thresholds": {**values, "fingerprint_tolerance": fingerprint_tolerance},
        "fingerprint_tolerance_from": fingerprint_source,
        "false_reject_budget": FALSE_REJECT_BUDGET,
        "jobs": {
            "honest_fitting": len(parts.fitting_honest),
            "honest_held_out": len(parts.held_out_honest),
            "frauds_fitting": {name: len(e) for name, e in parts.fitting.items()},
            "frauds_held_out": {name: len(e) for name, e in parts.held_out.items()},
        },
        "honest_noise": {
            "fitting": noise_of(parts.fitting_honest),
            "held_out": noise_of(parts.held_out_honest),
        },
        "held_out": {
            "false_rejections": _false_rejections(parts.held_out_honest, thresholds),
            "at_every_length": at_every_length(parts.held_out_honest, thresholds),
            "strung_together": strung_together(parts.held_out_honest, thresholds),
            "frauds": frauds,
        },
        "roc_areas_at_128": _areas(parts, 128),
        "e_process": _e_process(parts, thresholds),
    }
