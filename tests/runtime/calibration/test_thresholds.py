import math
from collections.abc import Callable
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chain import readable
from chain.records import Thresholds as RegisteredThresholds
from consensus.values import Scores, Verdict
from consensus.verdicts import judge as consensus_judge
from runtime.calibration.evidence import FITTED_LENGTHS, PrefixScores
from runtime.calibration.thresholds import (
    FITTING_JOBS_MIN,
    ONE,
    RULE_OF_THREE,
    Bound,
    Thresholds,
    count_bound,
    fit_thresholds,
    judge,
    lundberg_exponent,
    tail_bound,
)
from tests.runtime.calibration.builders import DOUBT, make_evidence, noisy_jobs

SMALL = st.integers(0, 12)
BOUNDS = st.builds(Bound, st.integers(0, 12 * ONE), st.integers(0, 3 * ONE))


@st.composite
def scores_and_thresholds(draw: st.DrawFn) -> tuple[PrefixScores, Thresholds]:
    positions = draw(st.integers(1, 8))
    others = [*(draw(SMALL) for _ in range(6)), draw(st.integers(0, 9 * ONE))]
    scores = PrefixScores(positions, *others)
    bounds = [draw(BOUNDS) for _ in range(4)]
    return scores, Thresholds(bounds[0], draw(SMALL), bounds[1], draw(SMALL), *bounds[2:])


@given(scores_and_thresholds())
def test_registered_rules_reject_exactly_what_consensus_does(
    drawn: tuple[PrefixScores, Thresholds],
) -> None:
    scores, thresholds = drawn
    written = {**asdict(thresholds), "fingerprint_tolerance": 0}
    registered: RegisteredThresholds = readable.parse(RegisteredThresholds, written, "thresholds")
    wire_scores = Scores(**asdict(scores), input_tokens=3, finish_plausible=True, text_matches=True)
    verdict = consensus_judge(wire_scores, registered, 3, scores.positions)
    assert judge(scores, thresholds).registered is (verdict is Verdict.FAIL)


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
    for evidence in honest:
        for scores in evidence.prefixes(FITTED_LENGTHS):
            assert not judge(scores, thresholds).registered


def test_a_pinned_profile_gets_zeros() -> None:
    honest = [make_evidence(number) for number in range(40)]
    nothing = Bound(0, 0)
    assert fit_thresholds(honest) == Thresholds(nothing, 0, nothing, 0, nothing, nothing)


def test_engines_that_differ_a_little_are_allowed_a_tie_that_no_fitting_job_had() -> None:
    honest = [make_evidence(n, [0] * 64, [0] * 63 + [n % 9]) for n in range(200)]
    fitted = fit_thresholds(honest)
    assert fitted.distance_max >= 8
    # The lowest temperature above 0 is 0.8, which makes 1.25 of a difference of logits.
    assert fitted.margin_max == fitted.margin_bound.base == math.ceil(2.5 * fitted.distance_max)
    assert fitted.mismatch_bound.base == ONE
    tokens = 200 * 64
    # Rule of three: what so many tokens without a mismatch leave room for.
    assert fitted.mismatch_bound.rate == math.ceil(3 * ONE / (tokens * DOUBT / ONE))
    colder = fit_thresholds(honest, temperatures_milli=(0, 200))
    assert colder.margin_max == 10 * fitted.distance_max


@pytest.mark.parametrize(("jobs", "allowed"), [(100, 2), (1_000, 1), (1_000_000, 0)])
def test_more_jobs_without_a_mismatch_allow_fewer(jobs: int, allowed: int) -> None:
    assert count_bound(RULE_OF_THREE / jobs, 0.001 / 6) == allowed


@given(st.floats(1.1, 16))
def test_a_poisson_process_crosses_its_line_as_seldom_as_lundberg_says(factor: float) -> None:
    exponent = lundberg_exponent(factor)
    assert exponent > 0
    assert math.expm1(exponent) == pytest.approx(factor * exponent, rel=1e-6)


@pytest.mark.parametrize("rate", [0.003, 0.02, 0.1])
def test_outputs_sixteen_times_as_long_as_any_fitted_one_keep_the_bounds(rate: float) -> None:
    thresholds = fit_thresholds(noisy_jobs(0, 300, rate, 30_000, seed=1, tokens=128))
    longer = noisy_jobs(1_000, 500, rate, 30_000, seed=2, tokens=2_048)
    for tokens in (16, 128, 512, 2_048):
        rejected = sum(judge(e.prefix(tokens), thresholds).registered for e in longer)
        assert rejected <= 2, tokens


def test_a_rate_of_mismatches_that_is_too_high_shows_sooner_or_later() -> None:
    thresholds = fit_thresholds(noisy_jobs(0, 300, 0.02, 30_000, seed=1, tokens=128))
    frauds = noisy_jobs(1_000, 100, 0.15, 30_000, seed=2, tokens=512)
    shown = [
        sum(judge(e.prefix(tokens), thresholds).margins for e in frauds)
        for tokens in (16, 128, 512)
    ]
    assert shown[0] < shown[1] < shown[2] == 100


def test_the_held_out_half_keeps_the_budget_too() -> None:
    thresholds = fit_thresholds(noisy_jobs(0, 500, 0.02, 30_000, seed=1))
    others = noisy_jobs(1_000, 2_000, 0.02, 30_000, seed=2)
    rejected = sum(judge(e.prefix(64), thresholds).registered for e in others)
    assert rejected <= 4


def test_too_few_jobs_are_refused() -> None:
    with pytest.raises(ValueError, match="23 honest jobs are too few to fit, at least 24"):
        fit_thresholds([make_evidence(number) for number in range(23)])
    with pytest.raises(ValueError, match="0 honest jobs are too few to fit, at least 24"):
        fit_thresholds([])


@pytest.mark.parametrize("value", [-1, 1 << 32, 1.5])
def test_thresholds_are_unsigned_integers_of_32_bits(value: int) -> None:
    nothing = Bound(0, 0)
    with pytest.raises(ValueError, match=f"margin_max is {value!r}"):
        Thresholds(nothing, value, nothing, 0, nothing, nothing)
    with pytest.raises(ValueError, match=f"rate is {value!r}"):
        Bound(0, value)
