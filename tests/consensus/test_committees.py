"""Drawing by lot: the same for everybody, without repetition, in proportion to weight."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consensus.committees import committee_seed, draw
from ext.hashing import tagged_hash

weights = st.lists(st.integers(0, 1 << 60), max_size=40)
seeds = st.binary(min_size=32, max_size=32)


@given(seeds, weights, st.integers(0, 50))
def test_a_draw_gives_distinct_weighted_candidates_as_many_as_there_are(
    seed: bytes, values: list[int], count: int
) -> None:
    drawn = draw(seed, values, count)
    assert len(set(drawn)) == len(drawn)
    assert all(values[index] > 0 for index in drawn)
    assert len(drawn) == min(count, sum(value > 0 for value in values))
    assert draw(seed, values, count) == drawn


@given(seeds, weights, st.integers(1, 10))
def test_a_larger_committee_begins_with_the_smaller_one(
    seed: bytes, values: list[int], count: int
) -> None:
    assert draw(seed, values, count + 5)[:count] == draw(seed, values, count)


def test_a_draw_is_pinned_by_its_inputs() -> None:
    """By hand: 256-bit H("draw", seed, 0) mod 60, walked along weights 10, 20, 30."""
    seed = committee_seed(bytes(32), b"\x01" * 32, 0)
    assert seed == tagged_hash(b"committee", bytes(32), b"\x01" * 32, b"\x00")
    point = int.from_bytes(tagged_hash(b"draw", seed, bytes(4)), "little") % 60
    expected = 0 if point < 10 else 1 if point < 30 else 2
    assert draw(seed, [10, 20, 30], 1) == (expected,)


def test_chances_are_in_proportion_to_weight() -> None:
    counts = [0, 0, 0]
    for number in range(6_000):
        (index,) = draw(tagged_hash(b"t", number.to_bytes(4, "little")), [1, 2, 3], 1)
        counts[index] += 1
    # Standard deviations are 29, 37 and 39 of 6,000 draws: five of them either way.
    for count, expected in zip(counts, (1_000, 2_000, 3_000), strict=True):
        assert abs(count - expected) < 200


def test_rounds_and_jobs_draw_apart() -> None:
    seeds_seen = {
        committee_seed(beacon, job, number)
        for beacon in (bytes(32), b"\x01" * 32)
        for job in (bytes(32), b"\x02" * 32)
        for number in (0, 1, 2)
    }
    assert len(seeds_seen) == 12


def test_no_weight_is_negative() -> None:
    with pytest.raises(ValueError, match="negative"):
        draw(bytes(32), [1, -1], 1)
