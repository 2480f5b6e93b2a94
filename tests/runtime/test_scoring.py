from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from runtime.sampling import LOGPROB_LOWEST
from runtime.scoring import doubt_of

ONE = 1 << 20
LOGPROBS = st.one_of(st.integers(-20 * ONE, 0), st.integers(LOGPROB_LOWEST, 0))


@given(LOGPROBS)
def test_doubt_is_x_over_one_plus_x_rounded_down(logprob: int) -> None:
    x = Fraction(-logprob, ONE)
    assert doubt_of(logprob) == int(x / (1 + x) * ONE)
    assert 0 <= doubt_of(logprob) < ONE


@given(LOGPROBS, st.integers(0, 1 << 24))
def test_a_less_likely_token_is_in_no_less_doubt(logprob: int, lower: int) -> None:
    assert doubt_of(logprob - lower) >= doubt_of(logprob)


def test_what_is_certain_is_in_no_doubt() -> None:
    assert doubt_of(0) == doubt_of(5) == 0
    assert doubt_of(-ONE) == ONE // 2
