"""Which validators are said to have missed votes, and which are not."""

from hypothesis import given
from hypothesis import strategies as st

from chain.node.attendance import GRACE_BLOCKS, VIEWS_AHEAD_MAX, Attendance

EQUAL = {0: 1, 1: 1, 2: 1, 3: 1}


def play(attendance: Attendance, views: range, voters: tuple[int, ...]) -> None:
    for view in views:
        for validator in voters:
            attendance.heard(validator, view)
        attendance.became_final(view)


def test_a_silent_validator_missed_every_block_that_is_old_enough() -> None:
    attendance = Attendance(EQUAL)
    play(attendance, range(1, 11 + GRACE_BLOCKS), (0, 1, 3))
    assert attendance.missed == {0: 0, 1: 0, 2: 10, 3: 0}
    assert attendance.judged == 10


def test_a_vote_that_comes_late_but_in_time_is_not_missed() -> None:
    attendance = Attendance(EQUAL)
    play(attendance, range(1, 1 + GRACE_BLOCKS), (0, 1, 3))
    for view in range(1, 1 + GRACE_BLOCKS):
        attendance.heard(2, view)
    play(attendance, range(1 + GRACE_BLOCKS, 1 + 2 * GRACE_BLOCKS), (0, 1, 3))
    assert attendance.missed == {0: 0, 1: 0, 2: 0, 3: 0}


def test_blocks_that_this_node_caught_up_with_say_nothing_of_the_others() -> None:
    attendance = Attendance(EQUAL)
    play(attendance, range(1, 100), ())
    assert attendance.judged == 0
    assert attendance.missed == {0: 0, 1: 0, 2: 0, 3: 0}


def test_stake_decides_whether_enough_was_heard() -> None:
    attendance = Attendance({0: 10, 1: 1, 2: 1, 3: 1})
    play(attendance, range(1, 2 + GRACE_BLOCKS), (0,))
    assert attendance.missed == {0: 0, 1: 1, 2: 1, 3: 1}
    attendance = Attendance({0: 10, 1: 1, 2: 1, 3: 1})
    play(attendance, range(1, 2 + GRACE_BLOCKS), (1, 2, 3))
    assert attendance.judged == 0


def test_who_is_no_member_misses_nothing() -> None:
    attendance = Attendance(EQUAL)
    play(attendance, range(1, 4), (0, 1, 2))
    attendance.follow({1: 1, 2: 1, 3: 1, 9: 1})
    play(attendance, range(4, 6 + GRACE_BLOCKS), (1, 2, 3))
    assert attendance.missed == {0: 0, 1: 0, 2: 0, 3: 3, 9: 2}


def test_after_a_restart_counting_goes_on_at_the_view_the_chain_is_in() -> None:
    attendance = Attendance(EQUAL, view=5_000)
    play(attendance, range(5_001, 5_002 + GRACE_BLOCKS), (0, 1, 2))
    assert attendance.missed == {0: 0, 1: 0, 2: 0, 3: 1}


@given(st.lists(st.integers(0, 1 << 40), max_size=200))
def test_votes_of_far_views_cost_no_memory_and_count_for_nothing(views: list[int]) -> None:
    attendance = Attendance(EQUAL)
    for view in views:
        attendance.heard(3, view + 2 * VIEWS_AHEAD_MAX)
    play(attendance, range(1, 2 + GRACE_BLOCKS), (0, 1, 2))
    assert attendance.missed == {0: 0, 1: 0, 2: 0, 3: 1}
    assert len(attendance._heard) <= GRACE_BLOCKS + VIEWS_AHEAD_MAX
