"""Standing: better jobs never make it worse, old ones fade, and a model's quorum is kept."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chain.execution.standing import (
    FULL,
    NEW,
    after_appeal,
    after_failure,
    after_success,
    fallen,
    risen,
)
from chain.records import JobStatus
from chain.rejections import RejectionReason
from tests.chain.ledger_world import (
    FAIL,
    OWNER,
    PASS,
    PASS_ALL,
    PROVIDERS,
    World,
    a_pair,
    a_registration,
    offer_of,
    total_value,
)

STANDINGS = st.integers(1, FULL)
PASTS = st.lists(st.booleans(), max_size=60)


def after(past: list[bool], standing: int = NEW) -> int:
    for good in past:
        standing = risen(standing) if good else fallen(standing)
    return standing


@given(STANDINGS, STANDINGS, st.booleans())
def test_a_step_keeps_the_order_of_two_providers(one: int, other: int, good: bool) -> None:
    low, high = sorted((one, other))
    assert after([good], low) <= after([good], high)
    assert 1 <= fallen(low) <= low <= risen(low) <= FULL


@given(PASTS, st.integers(0, 59))
def test_a_job_that_went_well_instead_of_badly_never_makes_the_standing_worse(
    past: list[bool], place: int
) -> None:
    good, bad = [*past[:place], True, *past[place:]], [*past[:place], False, *past[place:]]
    assert after(bad) <= after(good)


@given(PASTS, PASTS)
def test_what_came_long_before_is_forgotten(one: list[bool], other: list[bool]) -> None:
    assert after([*one, *[True] * 300]) == after([*other, *[True] * 300]) == FULL
    assert after([*one, *[False] * 40]) == after([*other, *[False] * 40]) == 1


def test_jobs_move_the_standing_of_their_provider() -> None:
    world = World(validators=6)
    world.vote(world.answered_job(), PASS_ALL)
    offer = offer_of(world, PROVIDERS[0])
    assert (offer.completed, offer.standing) == (1, risen(NEW))
    job = world.answered_job()
    for _ in range(2):
        world.seat_committee(job)
        world.vote(job, (FAIL,) * len(world.seats(job)))
    assert offer_of(world, PROVIDERS[0]).standing == fallen(risen(NEW))
    failed = after_failure(offer)
    assert after_appeal(failed).failed == offer.failed
    assert abs(after_appeal(failed).standing - after_success(offer).standing) <= 2


@pytest.mark.parametrize("words", [(PASS, PASS, None), (PASS, PASS, PASS)])
def test_a_models_own_quorum_is_what_a_ruling_rests_on(words: tuple[object, ...]) -> None:
    world = World(validators=4)  # nobody is left for another round
    registration = a_registration(a_pair())
    registration.quorum = 3
    assert world.do(OWNER, registration).accepted
    world.open_market()
    job = world.answered_job()
    world.vote(job, [PASS if word else None for word in words])
    for _ in range(3):
        world.block(after_ms=61_000)
    expected = JobStatus.VERIFIED if all(words) else JobStatus.REFUNDED
    assert world.job(job).status is expected
    assert total_value(world.ledger) == world.ledger.supply().issued


@pytest.mark.parametrize("quorum", [1, 4])
def test_a_quorum_below_the_chains_or_above_its_committee_is_refused(quorum: int) -> None:
    registration = a_registration(a_pair())
    registration.quorum = quorum
    assert World().do(OWNER, registration).reason == RejectionReason.BAD_MODEL
