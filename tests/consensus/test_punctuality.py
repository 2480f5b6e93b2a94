"""How long a leader is waited for: by how quick it was, and whether it is there at all."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consensus.events import Timing
from consensus.punctuality import Punctuality

TIMING = Timing(leader_timeout_ms=1_000, leader_timeout_least_ms=300)
LEADER, OTHER = 2, 1


def measured(*took_ms: int) -> Punctuality:
    punctuality = Punctuality(TIMING)
    for number, each_ms in enumerate(took_ms):
        punctuality.proposed(LEADER, 10_000 * number, 10_000 * number + each_ms)
    return punctuality


def test_who_was_not_measured_yet_is_waited_for_in_full() -> None:
    assert measured(20).timeout_ms(OTHER) == 1_000


@pytest.mark.parametrize(
    ("took_ms", "timeout_ms"), [(-50, 300), (20, 300), (150, 450), (400, 1_000), (1_000, 1_000)]
)
def test_a_leader_is_waited_for_three_times_as_long_as_it_takes_within_bounds(
    took_ms: int, timeout_ms: int
) -> None:
    assert measured(took_ms).timeout_ms(LEADER) == timeout_ms


def test_one_slow_proposal_is_remembered_and_fades() -> None:
    after_one = measured(20, 300, 20).timeout_ms(LEADER)
    after_many = measured(20, 300, *[20] * 40).timeout_ms(LEADER)
    assert (after_one, after_many) == (795, 300)


def test_a_proposal_that_came_too_late_earns_its_leader_more_time() -> None:
    punctuality = measured(20)
    punctuality.gave_up(LEADER, 7, 50_000)
    punctuality.proposed_late(LEADER, 7, 50_310)
    punctuality.certified(LEADER)
    assert punctuality.timeout_ms(LEADER) == 930


def test_what_no_wait_would_have_caught_and_what_is_of_another_view_shows_nothing() -> None:
    punctuality = measured(20)
    punctuality.gave_up(LEADER, 7, 50_000)
    punctuality.proposed_late(LEADER, 7, 51_001)
    punctuality.proposed_late(LEADER, 3, 50_310)
    punctuality.certified(LEADER)
    assert punctuality.timeout_ms(LEADER) == 300


def test_who_was_given_up_and_has_not_voted_since_is_not_waited_for() -> None:
    punctuality = measured(20)
    punctuality.voted(LEADER, 6)
    punctuality.gave_up(LEADER, 7, 50_000)
    assert punctuality.timeout_ms(LEADER) == 0


@pytest.mark.parametrize("view", [7, 9])
def test_who_votes_again_is_waited_for_a_third_of_the_time_at_most(view: int) -> None:
    punctuality = measured(800)
    punctuality.gave_up(LEADER, 7, 50_000)
    punctuality.voted(LEADER, view)
    assert punctuality.timeout_ms(LEADER) == 333
    punctuality.certified(LEADER)
    assert punctuality.timeout_ms(LEADER) == 1_000


@given(
    took_ms=st.lists(st.integers(-100, 5_000), max_size=20),
    given_up=st.booleans(),
    voted=st.integers(0, 20),
)
def test_who_is_there_is_waited_for_within_the_bounds_whatever_it_did(
    took_ms: list[int], given_up: bool, voted: int
) -> None:
    punctuality = measured(*took_ms)
    punctuality.voted(LEADER, voted)
    if given_up:
        punctuality.gave_up(LEADER, 10, 0)
    silent = given_up and voted < 10
    timeout_ms = punctuality.timeout_ms(LEADER)
    assert timeout_ms == 0 if silent else 300 <= timeout_ms <= 1_000
