"""When a block is due, and when its view is given up."""

import pytest

from consensus.events import Timing
from consensus.pacing import Pacing

TIMING = Timing(
    leader_timeout_ms=1_000, certificate_timeout_ms=1_500, block_interval_ms=100, heartbeat_ms=9_000
)


def pacing(**changes: object) -> Pacing:
    fields = {"timing": TIMING, "entered_ms": 50, "block_seen_ms": 50, **changes}
    return Pacing(**fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "due_ms"),
    [
        ({}, 9_050),
        ({"work_since_ms": 60}, 150),
        ({"work_since_ms": 700}, 700),
        ({"work_since_ms": 60, "work_interval_ms": 2_000}, 2_050),
        ({"work_since_ms": 60, "work_interval_ms": 20_000}, 9_050),
        ({"parent_final": False}, 1_050),
        ({"awaited_since_ms": 400}, 400),
        ({"entered_ms": 12_000}, 12_000),
        ({"entered_ms": 12_000, "work_since_ms": 60}, 12_000),
    ],
)
def test_a_block_is_due(changes: dict[str, object], due_ms: int) -> None:
    assert pacing(**changes).due_ms() == due_ms


@pytest.mark.parametrize(
    ("nullified", "factor"), [(0, 1), (1, 1.5), (2, 2.25), (5, 7.59375), (6, 8), (1_000, 8)]
)
def test_timeouts_run_from_the_due_time_and_grow_with_views_given_up(
    nullified: int, factor: float
) -> None:
    clock = pacing(work_since_ms=700, nullified_in_row=nullified)
    assert clock.proposal_deadline_ms(400) == 700 + int(400 * factor)
    assert clock.view_deadline_ms() == 700 + int(1_500 * factor)


@pytest.mark.parametrize(
    "fields",
    [
        {"leader_timeout_ms": 0},
        {"leader_timeout_ms": 2_000},
        {"leader_timeout_least_ms": 0},
        {"block_interval_ms": -1},
        {"block_interval_ms": 20_000},
        {"block_interval_ms": 0, "heartbeat_ms": 0},
    ],
)
def test_impossible_timings_are_refused(fields: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must be at least"):
        Timing(**fields)
