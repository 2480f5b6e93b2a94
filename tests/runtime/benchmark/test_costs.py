"""Medians, spreads and ratios of what was measured."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.benchmark.costs import Cost, Spread, quantile, ratios, rounded, spread

SECONDS = st.floats(1e-3, 1e3)
COSTS = st.builds(Cost, SECONDS, SECONDS, st.integers(1, 10_000))


def test_a_ratio_is_taken_inside_each_round() -> None:
    costs = [Cost(2.0, 1.0, 10), Cost(40.0, 3.0, 10), Cost(6.0, 2.0, 10)]
    bases = [Cost(1.0, 1.0, 10), Cost(20.0, 1.0, 10), Cost(2.0, 1.0, 10)]
    wall, cpu = ratios(costs, bases)
    assert wall == Spread(median=2.0, least=2.0, greatest=3.0, rounds=3)
    assert cpu == Spread(median=2.0, least=1.0, greatest=3.0, rounds=3)


def test_costs_of_unequal_amounts_are_compared_by_the_token() -> None:
    wall, cpu = ratios([Cost(4.0, 8.0, 40)], [Cost(1.0, 1.0, 10)])
    assert (wall.median, cpu.median) == (1.0, 2.0)


def test_rounds_that_do_not_pair_up_are_an_error() -> None:
    with pytest.raises(ValueError, match="zip"):
        ratios([Cost(1.0, 1.0, 1)] * 2, [Cost(1.0, 1.0, 1)])


@given(st.lists(COSTS, min_size=1, max_size=9))
def test_what_is_compared_with_itself_costs_the_same(costs: list[Cost]) -> None:
    assert set(ratios(costs, costs)) == {Spread(1.0, 1.0, 1.0, len(costs))}


@given(st.lists(SECONDS, min_size=1, max_size=20))
def test_a_median_lies_between_the_least_and_the_greatest(values: list[float]) -> None:
    found = spread(values)
    assert found.least <= found.median <= found.greatest
    assert found.rounds == len(values)
    assert found.least == pytest.approx(min(values), rel=1e-3)
    assert found.greatest == pytest.approx(max(values), rel=1e-3)


def test_nothing_measured_is_an_error() -> None:
    with pytest.raises(ValueError, match="no rounds"):
        spread([])
    with pytest.raises(ValueError, match="no values"):
        quantile([], 0.5)


@given(st.lists(SECONDS, min_size=1, max_size=50), st.floats(0.01, 1.0))
def test_a_quantile_is_a_value_that_so_many_do_not_exceed(
    values: list[float], share: float
) -> None:
    found = quantile(values, share)
    assert found in values
    assert sum(value <= found for value in values) >= share * len(values) - 1e-9
    assert sum(value < found for value in values) < share * len(values) + 1e-9


@pytest.mark.parametrize(
    ("value", "expected"), [(123456.0, 123500.0), (0.0123456, 0.01235), (0.0, 0.0), (-7.0, -7.0)]
)
def test_four_digits_are_told(value: float, expected: float) -> None:
    assert rounded(value) == expected
