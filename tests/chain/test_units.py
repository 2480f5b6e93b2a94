"""Compute units: integers that anybody comes to."""

from hypothesis import given
from hypothesis import strategies as st

from chain.units import PARAMETERS_MAX, PRICE_UNITS, compute_units, price_of_units

weights = st.integers(1, PARAMETERS_MAX)
tokens = st.integers(0, 1 << 32)


def test_a_unit_is_a_million_weights_applied_to_a_token() -> None:
    assert compute_units(1_000_000, 1) == 1
    assert compute_units(134_515_008, 200) == 26_904
    assert compute_units(1, 1) == 1
    assert compute_units(135_000_000, 0) == 0


@given(weights, tokens, tokens)
def test_parts_of_a_job_have_its_units_or_one_more(model: int, some: int, more: int) -> None:
    whole = compute_units(model, some + more)
    assert whole <= compute_units(model, some) + compute_units(model, more) <= whole + 1


@given(weights, weights, tokens)
def test_units_rise_with_weights_and_tokens(model: int, larger: int, count: int) -> None:
    model, larger = sorted((model, larger))
    assert compute_units(model, count) <= compute_units(larger, count)
    assert compute_units(model, count) <= compute_units(model, count + 1)


@given(st.integers(0, 1 << 63), st.integers(1, 1 << 60))
def test_a_price_of_units_covers_the_price_and_hardly_more(price: int, units: int) -> None:
    told = price_of_units(price, units)
    assert told * units >= price * PRICE_UNITS > (told - 1) * units
