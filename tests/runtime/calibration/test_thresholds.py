import math
from collections.abc import Callable
from dataclasses import asdict, fields

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chain.records import Thresholds as RegisteredThresholds
from consensus.values import Scores, Verdict
from consensus.verdicts import judge as consensus_judge
from runtime.calibration.evidence import PrefixScores
from runtime.calibration.thresholds import (
    FITTING_JOBS_MIN,
    RULE_OF_THREE,
    Thresholds,
    count_bound,
    fit_thresholds,
    judge,
    statistics,
    tail_bound,
)
from tests.runtime.calibration.builders import make_evidence, noisy_jobs

SMALL = st.integers(0, 12)


@st.composite
def scores_and_thresholds(draw: st.DrawFn) -> tuple[PrefixScores, Thresholds]:
    positions = draw(st.integers(1, 8))
    scores = PrefixScores(positions, *(draw(SMALL) for _ in range(6)))
    return scores, Thresholds(*(draw(SMALL) for _ in range(6)))


@given(scores_and_thresholds())
def test_registered_rules_reject_exactly_what_consensus_does(
    drawn: tuple[PrefixScores, Thresholds],
) -> None:
    scores, thresholds = drawn
    values = asdict(thresholds)
    values.pop("margin_mean_max")
    registered = RegisteredThresholds(**values, fingerprint_tolerance=0)
    wire_scores = Scores(**asdict(scores), input_tokens=3, finish_plausible=True, text_matches=True)
    verdict = consensus_judge(wire_scores, registered, 3, scores.positions)
    assert judge(scores, thresholds).registered is (verdict is Verdict.FAIL)


@given(scores_and_thresholds())
def test_scores_pass_their_own_statistics_and_no_smaller_ones(
    drawn: tuple[PrefixScores, Thresholds],
) -> None:
    scores, _ = drawn
    own = statistics(scores)
    assert not judge(scores, own).complete
    for field in fields(own):
        value = getattr(own, field.name)
        if value:
            lower = Thresholds(**{**asdict(own), field.name: value - 1})
            assert judge(scores, lower).complete, field.name


@given(
    st.lists(st.integers(0, 1 << 24), min_size=FITTING_JOBS_MIN, max_size=200),
    st.floats(1e-6, 0.5),
)
def test_a_bound_is_an_integer_that_no_fitting_value_exceeds(
    values: list[int], tail: float
) -> None:
    bound = tail_bound(values, tail)
    assert type(bound) is int
    assert bound >= max(values)


@given(st.integers(0, 1 << 20), st.integers(FITTING_JOBS_MIN, 99))
def test_what_never_varies_is_its_own_bound(value: int, count: int) -> None:
    assert tail_bound([value] * count, 0.0001) == value


def test_a_smaller_budget_gives_a_wider_bound() -> None:
    values = np.random.default_rng(1).exponential(1_000, 400).astype(int).tolist()
    assert tail_bound(values, 0.01) <= tail_bound(values, 0.001) < tail_bound(values, 0.0001)


@pytest.mark.parametrize("distribution", ["exponential", "normal", "uniform", "gumbel"])
def test_the_bound_keeps_its_budget_on_distributions_whose_tail_is_known(
    distribution: str,
) -> None:
    random = np.random.default_rng(11)
    draws: dict[str, Callable[[int], np.ndarray]] = {
        "exponential": lambda n: random.exponential(1e5, n),
        "normal": lambda n: 1e6 + random.normal(0, 1e5, n),
        "uniform": lambda n: random.uniform(0, 1e6, n),
        "gumbel": lambda n: random.gumbel(1e6, 1e5, n),
    }
    draw = draws[distribution]
    exceeded = []
    for _ in range(60):
        bound = tail_bound(draw(500).astype(int).tolist(), 0.001)
        exceeded.append(float(np.mean(draw(20_000) > bound)))
    # A cautious bound: on average well inside the budget, and rarely twice over it.
    assert np.mean(exceeded) < 0.001
    assert np.quantile(exceeded, 0.95) < 0.002


@given(st.integers(0, 50), st.floats(0, 0.3), st.integers(1, 100_000))
def test_fitted_thresholds_reject_no_prefix_of_a_fitting_job(
    seed: int, margin_share: float, scale: int
) -> None:
    honest = noisy_jobs(0, 30, margin_share, scale, seed, tokens=70)
    thresholds = fit_thresholds(honest)
    assert all(type(value) is int for value in asdict(thresholds).values())
    for evidence in honest:
        assert not any(judge(scores, thresholds).complete for scores in evidence.prefixes())


def test_a_pinned_profile_gets_zeros() -> None:
    honest = [make_evidence(number) for number in range(40)]
    assert fit_thresholds(honest) == Thresholds(0, 0, 0, 0, 0, 0)


def test_engines_that_differ_a_little_are_allowed_a_tie_that_no_fitting_job_had() -> None:
    honest = [make_evidence(n, [0] * 64, [0] * 63 + [n % 9]) for n in range(200)]
    fitted = fit_thresholds(honest)
    assert fitted.distance_max >= 8
    # The lowest temperature above 0 is 0.8, which makes 1.25 of a difference of logits.
    assert fitted.margin_max == fitted.margin_mean_max == math.ceil(2.5 * fitted.distance_max)
    assert fitted.replay_mismatches_max == 1
    colder = fit_thresholds(honest, temperatures_milli=(0, 200))
    assert colder.margin_max == 10 * fitted.distance_max


@pytest.mark.parametrize(("jobs", "allowed"), [(100, 2), (1_000, 1), (1_000_000, 0)])
def test_more_jobs_without_a_mismatch_allow_fewer(jobs: int, allowed: int) -> None:
    assert count_bound(RULE_OF_THREE / jobs, 0.001 / 6) == allowed


def test_counts_too_rare_to_have_a_tail_are_bounded_by_what_longer_outputs_would_have() -> None:
    """One token in 400, as between two kinds of float16 kernels: three in one output is honest."""
    honest = []
    for number in range(331):
        length = 128 if number % 4 == 0 else 16
        margins = [0] * length
        if number % 8 == 0:
            margins[5] = 1_000
        honest.append(make_evidence(number, margins, [9] * length))
    seen = max(int(evidence.mismatches.sum()) for evidence in honest)
    assert seen == 1
    assert 3 <= fit_thresholds(honest).replay_mismatches_max <= 5


def test_the_held_out_half_keeps_the_budget_too() -> None:
    thresholds = fit_thresholds(noisy_jobs(0, 500, 0.02, 30_000, seed=1))
    others = noisy_jobs(1_000, 2_000, 0.02, 30_000, seed=2)
    rejected = sum(judge(e.prefix(64), thresholds).complete for e in others)
    assert rejected <= 4


def test_too_few_jobs_are_refused() -> None:
    with pytest.raises(ValueError, match="23 honest jobs are too few to fit, at least 24"):
        fit_thresholds([make_evidence(number) for number in range(23)])
    with pytest.raises(ValueError, match="no honest jobs to fit, at least 24"):
        fit_thresholds([])


@pytest.mark.parametrize("value", [-1, 1 << 32, 1.5])
def test_thresholds_are_unsigned_integers_of_32_bits(value: int) -> None:
    with pytest.raises(ValueError, match=f"margin_max is {value!r}"):
        Thresholds(0, value, 0, 0, 0, 0)
