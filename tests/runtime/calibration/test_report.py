import json
from typing import Any

import numpy as np
import pytest

from chain import readable
from chain.records import Thresholds as RegisteredThresholds
from runtime.calibration.report import (
    Parts,
    Subject,
    area,
    build_report,
    curve,
    noise_of,
    split,
    weak_frauds,
)
from runtime.calibration.thresholds import Bound, Thresholds, fit_thresholds, judge
from tests.runtime.calibration.builders import make_evidence, noisy_jobs

SUBJECT = Subject("ab" * 32, "tiny", "here", "there", {"seed": 1})
NAT = 1 << 20


def build(parts: Parts) -> dict[str, Any]:
    thresholds = fit_thresholds(parts.fitting_honest)
    return build_report(SUBJECT, parts, thresholds, 7, "a test")


@pytest.fixture(scope="module")
def parts() -> Parts:
    honest = noisy_jobs(0, 400, 0.02, 20_000, seed=1, tokens=40)
    frauds = {
        "int4": noisy_jobs(0, 60, 0.5, 200_000, seed=2, tokens=40),
        "int8": noisy_jobs(0, 120, 0.06, 30_000, seed=3, tokens=40),
    }
    return split(honest, frauds)


@pytest.fixture(scope="module")
def report(parts: Parts) -> dict[str, Any]:
    return build(parts)


def test_a_job_and_its_frauds_lie_in_the_same_part(parts: Parts) -> None:
    fitting = {e.job for e in parts.fitting_honest}
    held_out = {e.job for e in parts.held_out_honest}
    assert not fitting & held_out
    assert len(fitting) + len(held_out) == 400
    for evidence in parts.fitting.values():
        assert {e.job for e in evidence} <= fitting
    for evidence in parts.held_out.values():
        assert {e.job for e in evidence} <= held_out


def test_thresholds_come_from_the_fitting_part_alone(parts: Parts, report: dict[str, Any]) -> None:
    spoiled = Parts(
        parts.fitting_honest,
        [make_evidence(n, [9 * NAT] * 40, [9 * NAT] * 40) for n in range(30)],
        parts.fitting,
        parts.held_out,
    )
    found = build(spoiled)
    assert found["thresholds"] == report["thresholds"]
    whole = found["held_out"]["false_rejections"][-1]
    assert whole["rejected"]["registered"] == whole["jobs"] == 30
    assert whole["share_upper_95"] == 1


def test_counts_are_those_of_the_judgement(parts: Parts, report: dict[str, Any]) -> None:
    thresholds = fit_thresholds(parts.fitting_honest)
    for name, evidence in parts.held_out.items():
        judged = [judge(e.prefix(32), thresholds) for e in evidence]
        entry = report["held_out"]["frauds"][name]["by_length"][0]
        assert (entry["output_tokens"], entry["jobs"]) == (32, len(evidence))
        assert entry["detected"]["registered"] == sum(j.registered for j in judged)
        assert entry["detected"]["margins"] == sum(j.margins for j in judged)
        assert entry["share_lower_95"] <= entry["share"]


def test_lengths_that_no_output_has_are_left_out(report: dict[str, Any]) -> None:
    for fraud in report["held_out"]["frauds"].values():
        assert [entry["output_tokens"] for entry in fraud["by_length"]] == [32, "whole"]


def test_weak_is_what_single_jobs_do_not_show(parts: Parts) -> None:
    thresholds = fit_thresholds(parts.fitting_honest)
    assert weak_frauds(parts, thresholds, 32) == ["int8"]
    nothing = Bound(0, 0)
    strict = Thresholds(nothing, 0, nothing, 0, nothing, nothing)
    assert weak_frauds(parts, strict, 32) == []


def test_a_weak_fraud_is_found_by_many_jobs_and_the_honest_are_left_alone(
    report: dict[str, Any],
) -> None:
    process = report["e_process"]
    (weak,) = process["frauds"]["int8"]
    assert weak["weak"]
    assert weak["ejected"] == weak["sequences"]
    assert weak["median_jobs"] < weak["ninety_percent_jobs"]
    (honest,) = process["honest"]
    assert honest["lifetimes_ejected"] == 0


def test_a_report_is_json_and_its_thresholds_are_integers(report: dict[str, Any]) -> None:
    written = json.loads(json.dumps(report))
    thresholds = written["thresholds"]
    registered: RegisteredThresholds = readable.parse(
        RegisteredThresholds, thresholds, "thresholds"
    )
    assert registered.fingerprint_tolerance == 7
    assert written["model"] == SUBJECT.model


def test_noise_is_told_in_nats() -> None:
    jobs = [make_evidence(1, [0, NAT // 2], [NAT, 0]), make_evidence(2, [0, 0], [0, 0])]
    assert noise_of(jobs) == {
        "jobs": 2,
        "positions": 4,
        "distance_mean_nats": 0.25,
        "distance_max_nats": 1.0,
        "mismatches": 1,
        "margin_max_nats": 0.5,
    }
    assert noise_of([]) == {"jobs": 0, "positions": 0}


def test_a_curve_rises_from_nothing_to_everything() -> None:
    false, true = curve([1, 2, 3, 4], [3, 4, 5, 6])
    assert (false[0], true[0], false[-1], true[-1]) == (0, 0, 1, 1)
    assert np.all(np.diff(false) >= 0)
    assert np.all(np.diff(true) >= 0)
    assert area([1, 2, 3], [4, 5]) == 1
    assert area([4, 5], [1, 2, 3]) == 0
    assert area([1, 2], [1, 2]) == 0.5
