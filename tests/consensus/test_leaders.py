"""Leadership: everyone's share, evenly spread, the same for all."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from consensus.leaders import SLOTS_MAX, LeaderSchedule
from consensus.sim.crypto import make_validators


def schedule(stakes: tuple[int, ...], seed: bytes = b"s" * 32) -> LeaderSchedule:
    return LeaderSchedule(make_validators(stakes, real=False)[0], seed)


@given(st.integers(1, 12), st.binary(min_size=32, max_size=32), st.integers(1, 10**9))
def test_equal_stakes_take_turns_in_an_order_of_the_seed(
    count: int, seed: bytes, view: int
) -> None:
    turns = schedule((5,) * count, seed)
    assert sorted(turns.leader(view + step) for step in range(count)) == list(range(count))
    assert turns.leader(view) == turns.leader(view + count)


def test_another_seed_gives_another_order() -> None:
    orders = {
        tuple(schedule((1,) * 6, bytes([seed]) * 32).leader(view) for view in range(1, 7))
        for seed in range(20)
    }
    assert len(orders) > 10


@given(st.lists(st.integers(1, 20), min_size=1, max_size=8))
def test_turns_are_in_proportion_to_stake(stakes: list[int]) -> None:
    turns = schedule(tuple(stakes))
    counts = Counter(turns.leader(view) for view in range(1, sum(stakes) + 1))
    assert [counts[index] for index in range(len(stakes))] == stakes


def test_turns_of_a_large_validator_are_spread_out() -> None:
    turns = schedule((3, 1, 1, 1))
    for view in range(1, 13):
        leaders = [turns.leader(view + step) for step in range(3)]
        assert 1 <= leaders.count(0) <= 2, leaders


def test_stakes_without_a_small_common_measure_keep_everyone_a_turn() -> None:
    turns = schedule((10**18 + 1, 10**18, 1))
    counts = Counter(turns.leader(view) for view in range(1, SLOTS_MAX + 1))
    assert counts[2] >= 1
    assert abs(counts[0] - counts[1]) <= 2
