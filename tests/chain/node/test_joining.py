"""Which snapshot a node takes, and from whom: never one that blocks can replace."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chain.node.joining import Offered, Offers, choose
from tests.builders import genesis

VALIDATORS = genesis().validator_set()
BEHIND = 100
KEPT = Offers(1, ())


def offered(height: int, content: int = 1) -> Offered:
    return Offered(height, bytes((content,)) * 32, 1_000)


def test_far_behind_is_so_many_blocks_or_that_more_than_a_third_forgot_the_next() -> None:
    near, far = offered(50), offered(150)
    kept = {peer: Offers(1, (near, far)) for peer in (0, 1)}
    assert choose(kept, 49, VALIDATORS, BEHIND) == (far, [0, 1])
    assert choose(kept, 51, VALIDATORS, BEHIND) is None
    one_forgot = {0: Offers(60, (near,)), 1: KEPT}
    assert choose(one_forgot, 20, VALIDATORS, BEHIND) is None
    two_forgot = {0: Offers(60, (near,)), 1: Offers(40, ())}
    assert choose(two_forgot, 20, VALIDATORS, BEHIND) == (near, [0])
    assert choose(two_forgot, 50, VALIDATORS, BEHIND) is None


def test_what_more_than_a_third_offer_alike_goes_before_what_is_newer() -> None:
    honest, alone = offered(200, 1), offered(900, 2)
    offers = {0: Offers(1, (honest,)), 1: Offers(1, (honest,)), 2: Offers(1, (alone,))}
    assert choose(offers, 0, VALIDATORS, BEHIND) == (honest, [0, 1])
    del offers[1]
    assert choose(offers, 0, VALIDATORS, BEHIND) == (alone, [2])


def test_what_was_begun_is_gone_on_with() -> None:
    old, new = offered(200, 1), offered(300, 2)
    offers = {peer: Offers(1, (old, new)) for peer in (0, 1, 2)}
    assert choose(offers, 0, VALIDATORS, BEHIND) == (new, [0, 1, 2])
    assert choose(offers, 0, VALIDATORS, BEHIND, old.content) == (old, [0, 1, 2])
    assert choose(offers, 150, VALIDATORS, BEHIND, old.content) == (new, [0, 1, 2])


@pytest.mark.parametrize("offers", [{}, {0: KEPT, 1: KEPT}])
def test_without_an_offer_there_is_nothing_to_take(offers: dict[int, Offers]) -> None:
    assert choose(offers, 0, VALIDATORS, BEHIND) is None


@given(
    offers=st.dictionaries(
        st.integers(0, 3),
        st.builds(
            Offers,
            st.integers(1, 400),
            st.lists(st.builds(offered, st.integers(1, 400), st.integers(0, 3)), max_size=2).map(
                tuple
            ),
        ),
    ),
    final_height=st.integers(0, 400),
)
def test_what_is_taken_is_ahead_and_those_who_are_asked_have_it(
    offers: dict[int, Offers], final_height: int
) -> None:
    chosen = choose(offers, final_height, VALIDATORS, BEHIND)
    if chosen is not None:
        snapshot, peers = chosen
        assert snapshot.height > final_height
        assert peers == [peer for peer in sorted(offers) if snapshot in offers[peer].snapshots]
        assert peers
