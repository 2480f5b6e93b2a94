import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.calibration.eprocess import (
    LIMIT_LOG,
    BettingTable,
    Kind,
    accumulate,
    fit_table,
    greatest_prefix_sum,
    idle_table,
    log_e_values,
)
from runtime.sampling import LOGPROB_UNITS_PER_NAT
from tests.runtime.calibration.builders import make_evidence, noisy_jobs

HONEST = noisy_jobs(0, 600, 0.02, 20_000, seed=1)
WEAK = noisy_jobs(0, 300, 0.035, 22_000, seed=2)
TABLE = fit_table(Kind.MARGIN, 64, HONEST, [WEAK])


def e_values(
    table: BettingTable, seed: int, margin_share: float, scale: int, count: int = 4_000
) -> np.ndarray:
    jobs = noisy_jobs(5_000, count, margin_share, scale, seed)
    return np.exp(log_e_values(table, jobs) / LOGPROB_UNITS_PER_NAT)


def test_a_fresh_honest_job_wins_nothing_on_average() -> None:
    found = e_values(TABLE, 3, 0.02, 20_000)
    assert found.mean() <= 1 + 3 * found.std() / math.sqrt(found.size)
    assert found.mean() > 0.5


def test_a_weak_fraud_wins_on_average() -> None:
    assert np.log(e_values(TABLE, 4, 0.035, 22_000)).mean() > 0.01


@pytest.mark.parametrize("kind", list(Kind))
def test_many_fits_keep_the_honest_mean_at_one(kind: Kind) -> None:
    above = 0
    for seed in range(8):
        honest = noisy_jobs(0, 240, 0.05, 9_000, seed=100 + seed)
        fraud = noisy_jobs(0, 120, 0.06, 9_500, seed=200 + seed)
        table = fit_table(kind, 64, honest, [fraud])
        found = e_values(table, 300 + seed, 0.05, 9_000, 1_000)
        above += found.mean() > 1 + 2 * found.std() / math.sqrt(found.size)
    assert above <= 1


def test_what_an_honest_job_never_shows_is_strong_evidence() -> None:
    honest = [make_evidence(number, [0] * 64) for number in range(300)]
    fraud = [make_evidence(number, [0] * 63 + [5]) for number in range(40)]
    table = fit_table(Kind.MARGIN, 64, honest, [fraud])
    assert log_e_values(table, fraud[:1])[0] > math.log(10) * LOGPROB_UNITS_PER_NAT
    assert log_e_values(table, honest[:1])[0] < 0


def test_a_fraud_that_looks_honest_is_no_reason_to_bet() -> None:
    jobs = [make_evidence(number, [0] * 64) for number in range(300)]
    assert fit_table(Kind.MARGIN, 64, jobs, [jobs]).idle


def test_too_few_or_too_short_jobs_make_no_bet() -> None:
    assert fit_table(Kind.MARGIN, 64, HONEST[:40], [WEAK]) == idle_table(Kind.MARGIN, 64)
    assert fit_table(Kind.MARGIN, 256, HONEST, [WEAK]) == idle_table(Kind.MARGIN, 256)
    assert fit_table(Kind.MARGIN, 64, HONEST, []) == idle_table(Kind.MARGIN, 64)


def test_tables_are_integers_with_rising_edges() -> None:
    assert all(type(value) is int for value in (*TABLE.edges, *TABLE.log_e_values))
    assert list(TABLE.edges) == sorted(set(TABLE.edges))
    assert len(TABLE.log_e_values) == len(TABLE.edges) + 1


def test_a_value_lies_in_the_bin_of_the_first_edge_it_does_not_exceed() -> None:
    table = BettingTable(Kind.MARGIN, 32, (10, 20), (-1, 5, 9))
    assert [table.log_e_value(value) for value in (0, 10, 11, 20, 21)] == [-1, -1, 5, 5, 9]


def test_constant_evidence_takes_as_many_jobs_as_arithmetic_says() -> None:
    step = LOGPROB_UNITS_PER_NAT // 2
    log = np.full(10, step, np.int64)
    played = accumulate([log, -log], sequences=20, jobs_max=100, random_seed=1)
    needed = -(-LIMIT_LOG // step)
    assert needed == math.ceil(2 * math.log(2_000_000))
    assert (played.median_jobs, played.ninety_percent_jobs) == (needed, needed)
    assert played.reached == 20


def test_what_never_gets_there_is_said_to_need_no_number_of_jobs() -> None:
    log = np.array([-5, 4], np.int64)
    played = accumulate([log], sequences=20, jobs_max=200, random_seed=1)
    assert (played.reached, played.median_jobs, played.ninety_percent_jobs) == (0, None, None)
    assert played.worst_log < LIMIT_LOG


def test_fair_bets_eject_an_honest_provider_hardly_ever() -> None:
    # Doubling or halving, with the mean of 1 that e-values may have at most.
    win = int(math.log(1.5) * LOGPROB_UNITS_PER_NAT)
    lose = math.floor(math.log(0.5) * LOGPROB_UNITS_PER_NAT)
    log = np.array([win, lose], np.int64)
    played = accumulate([log], sequences=200, jobs_max=2_000, random_seed=7)
    assert played.reached == 0


@given(st.lists(st.integers(-100, 100), max_size=30))
def test_the_greatest_sum_is_over_all_beginnings(steps: list[int]) -> None:
    sums = [sum(steps[:count]) for count in range(len(steps) + 1)]
    assert greatest_prefix_sum(np.array(steps, np.int64)) == max(sums)


def test_evidence_of_different_jobs_is_refused() -> None:
    with pytest.raises(ValueError, match="of the same jobs"):
        accumulate([np.zeros(2, np.int64), np.zeros(3, np.int64)], 1, 1, 1)
    with pytest.raises(ValueError, match="of the same jobs"):
        accumulate([], 1, 1, 1)


def test_a_table_looks_at_its_own_kind_of_evidence() -> None:
    evidence = make_evidence(1, margins=[0] * 64, distances=[9] * 64)
    table = BettingTable(Kind.DISTANCE, 64, (8,), (0, 1))
    assert log_e_values(table, [evidence]).tolist() == [1]
    assert log_e_values(replace(table, kind=Kind.MARGIN), [evidence]).tolist() == [0]
