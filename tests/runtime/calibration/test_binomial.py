import pytest

from runtime.calibration.binomial import at_most, lower_share, upper_share


def test_nothing_in_n_trials_is_about_three_in_n() -> None:
    for trials in (100, 1_000, 5_000):
        assert upper_share(0, trials) == pytest.approx(1 - 0.05 ** (1 / trials), rel=1e-9)
        assert upper_share(0, trials) == pytest.approx(3 / trials, rel=0.03)


def test_bounds_are_those_of_the_tables() -> None:
    # 5 of 50: Clopper-Pearson's one-sided 95% bounds, from a table of the beta distribution.
    assert upper_share(5, 50) == pytest.approx(0.1990, abs=2e-3)
    assert lower_share(5, 50) == pytest.approx(0.0402, abs=2e-3)


def test_a_bound_is_where_so_few_hits_become_unlikely() -> None:
    for hits, trials in ((0, 7), (3, 40), (39, 40)):
        assert at_most(hits, trials, upper_share(hits, trials)) == pytest.approx(0.05)
    assert upper_share(7, 7) == 1
    assert lower_share(0, 7) == 0


def test_the_distribution_adds_up() -> None:
    assert at_most(2, 2, 0.3) == pytest.approx(1)
    assert at_most(0, 3, 0.5) == pytest.approx(0.125)
    assert (at_most(0, 3, 0.0), at_most(2, 3, 1.0), at_most(3, 3, 1.0)) == (1, 0, 1)


def test_impossible_counts_are_refused() -> None:
    with pytest.raises(ValueError, match="4 hits in 3 trials"):
        upper_share(4, 3)
