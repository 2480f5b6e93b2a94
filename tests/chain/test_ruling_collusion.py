"""What a committee costs and what a single honest member can do, whatever the others agree on."""

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chain.records import JobReceipt, JobStatus
from consensus.values import Verdict
from tests.chain.ledger_world import (
    FAIL,
    PASS,
    PROVIDERS,
    SEAT_PRICE,
    World,
    receipt_for,
    total_value,
)

MADE_UP = 1 << 20
"""Far out of tolerance of what honest members find."""


def speak(world: World, job: bytes, words: dict[int, tuple[Verdict, int]]) -> None:
    """Commits and reveals of a whole round: verdict and shift of the fingerprint."""
    for validator, (verdict, shift) in words.items():
        world.commit(job, validator, verdict, shift)
    world.block()
    for validator in words:
        world.reveal(job, validator)


@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(honest=st.integers(0, 2), salt=st.binary(max_size=8), shift=st.integers(MADE_UP, 1 << 24))
def test_one_honest_fail_is_enough_to_escalate_whatever_the_others_make_up(
    honest: int, salt: bytes, shift: int
) -> None:
    world = World(validators=8)
    world.salt = int.from_bytes(salt, "little")
    job = world.answered_job()
    world.seat_committee(job)
    seats = world.seats(job)
    words = {seat: (PASS, shift) for seat in seats} | {seats[honest]: (FAIL, 0)}
    speak(world, job, words)
    world.block()
    assert world.job(job).escalated
    assert world.job(job).status is JobStatus.ANSWERED
    assert total_value(world.ledger) == world.ledger.supply().issued


def test_two_who_agree_on_made_up_numbers_cannot_pass_what_all_others_fail() -> None:
    world = World(validators=8)
    job = world.answered_job()
    world.seat_committee(job)
    liars = world.seats(job)[:2]
    speak(world, job, {s: (PASS, MADE_UP) if s in liars else (FAIL, 0) for s in world.seats(job)})
    world.block()
    world.seat_committee(job)
    speak(world, job, {seat: (FAIL, 0) for seat in world.seats(job)})
    receipt = receipt_for(world.block(), job)
    assert receipt.status is JobStatus.REJECTED
    paid = {payment.account for payment in receipt.payments}
    assert not paid.intersection(world.set.members[liar].account for liar in liars)


def rejected_after_escalation() -> tuple[World, JobReceipt]:
    world = World(validators=8)
    job = world.answered_job()
    world.vote(job, [FAIL, FAIL, FAIL])
    return world, receipt_for(world.vote(job, [FAIL] * 4), job)


def test_every_seat_of_every_round_is_paid_in_full_by_a_provider_that_is_rejected() -> None:
    world, receipt = rejected_after_escalation()
    assert receipt.status is JobStatus.REJECTED
    paid = {payment.account: payment.amount for payment in receipt.payments}
    price = SEAT_PRICE
    members = [member.account for member in world.set.members[1:]]
    assert [paid[account] for account in members] == [price] * len(members)
    stake = world.parameters.stake_min_per_offer - len(members) * price
    slashed = stake * world.parameters.slash_bps // 10_000
    assert world.ledger.account(PROVIDERS[0]).stake == stake - slashed
    assert total_value(world.ledger) == world.ledger.supply().issued
