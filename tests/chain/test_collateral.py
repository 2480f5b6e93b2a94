"""What a verifier's word may cost it, on a ledger: each rule to the grain, and no value lost."""

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assay.v1 import transactions_pb2 as pb
from chain.execution import BlockOutcome
from chain.parameters import GRAIN_PER_ASY, Parameters
from chain.records import JobStatus
from chain.rejections import RejectionReason
from consensus.values import Verdict
from tests.chain.ledger_world import (
    ABSTAIN,
    BOND,
    FAIL,
    MODEL,
    PASS,
    SEAT_PRICE,
    TREASURY,
    World,
    a_request,
    balance,
    receipt_for,
    serving,
    total_value,
)

BOND_BACK = pb.Unstake(amount=BOND.amount)
MADE_UP = 1 << 20
"""Far out of tolerance of what honest members find."""
Word = tuple[Verdict | None, int, bool]
"""Verdict (None: never commits), shift of the fingerprint, whether it is revealed."""


def play(world: World, job: bytes, words: Sequence[Word]) -> BlockOutcome:
    """One round of these words, in order of seat."""
    world.seat_committee(job)
    seated = list(zip(world.seats(job), words, strict=True))
    for validator, (verdict, shift, _) in seated:
        if verdict is not None:
            world.commit(job, validator, verdict, shift)
    outcome = world.block()
    if world.job(job).status is JobStatus.COMMITTING:
        outcome = world.block(after_ms=world.parameters.commit_within_ms + 1)
    opening = [seat for seat, (verdict, _, shown) in seated if verdict is not None and shown]
    if world.job(job).status is JobStatus.REVEALING:
        for validator in opening:
            world.reveal(job, validator)
        outcome = world.block()
    if world.job(job).status is JobStatus.REVEALING:
        outcome = world.block(after_ms=world.parameters.reveal_within_ms + 1)
    return outcome


def stakes(world: World) -> list[int]:
    return [world.ledger.account(member.account).stake for member in world.set.members]


def lost(world: World, validator: int) -> int:
    return world.parameters.verifier_stake_min - stakes(world)[validator]


def test_a_verifier_without_collateral_is_refused_and_told_what_it_needs() -> None:
    world = World()
    world.open_market()
    validator = world.set.members[1].account
    world.do(validator, pb.SetVerifier(model=MODEL, serving=False))
    assert world.do(validator, pb.Unstake(amount=1)).accepted
    assert world.do(validator, serving()).reason == RejectionReason.INSUFFICIENT_STAKE
    assert world.do(validator, pb.Stake(amount=1), serving()).accepted


def test_collateral_is_bound_while_its_owner_verifies_anything() -> None:
    world = World()
    world.open_market()
    validator = world.set.members[1].account
    assert world.do(validator, pb.Unstake(amount=1)).reason == RejectionReason.INSUFFICIENT_STAKE
    world.do(validator, pb.SetVerifier(model=MODEL, serving=False))
    assert world.do(validator, BOND_BACK).accepted


def test_a_pass_to_what_two_thirds_fail_is_slashed_and_nobody_gains_but_the_treasury() -> None:
    world = World(validators=8)
    job = world.answered_job()
    play(world, job, [(PASS, 0, True), (FAIL, 0, True), (FAIL, 0, True)])
    liar = world.job(job).committee[0].validator
    outcome = play(world, job, [(FAIL, 0, True)] * 4)
    assert receipt_for(outcome, job).status is JobStatus.REJECTED
    assert lost(world, liar) == world.parameters.wrong_pass_slash
    assert sum(stakes(world)) == 8 * BOND.amount - world.parameters.wrong_pass_slash
    assert total_value(world.ledger) == world.ledger.supply().issued


def test_who_hides_its_word_when_it_is_outvoted_pays_as_if_it_had_said_it() -> None:
    world = World(validators=8)
    job = world.answered_job()
    play(world, job, [(PASS, 0, False), (FAIL, 0, True), (FAIL, 0, True)])
    liar = world.job(job).committee[0].validator
    play(world, job, [(FAIL, 0, True)] * 4)
    assert world.job(job).status is JobStatus.REJECTED
    assert lost(world, liar) == world.parameters.wrong_pass_slash + SEAT_PRICE


@pytest.mark.parametrize("word", [(PASS, MADE_UP, True), (PASS, 0, False), (FAIL, 0, False)])
def test_work_not_shown_costs_the_fee_and_as_much_again(word: Word) -> None:
    world = World()
    job = world.answered_job()
    outcome = play(world, job, [word, (PASS, 0, True), (PASS, 0, True)])
    receipt = receipt_for(outcome, job)
    assert receipt.status is JobStatus.VERIFIED
    idler = world.job(job).committee[0].validator
    assert lost(world, idler) == SEAT_PRICE
    assert world.set.members[idler].account not in {paid.account for paid in receipt.payments}
    # Its fee, and what is not burned of its fine, beside the treasury's own share.
    assert balance(world, TREASURY) == 660 + SEAT_PRICE + SEAT_PRICE // 2


@pytest.mark.parametrize("word", [(None, 0, False), (ABSTAIN, 0, True)])
def test_who_cannot_verify_and_says_so_or_nothing_loses_no_more_than_its_fee(word: Word) -> None:
    world = World()
    job = world.answered_job()
    play(world, job, [word, (PASS, 0, True), (PASS, 0, True)])
    assert world.job(job).status is JobStatus.VERIFIED
    assert stakes(world) == [BOND.amount] * 5


def test_a_fail_in_vain_pays_for_the_seats_it_added_and_nobody_else_earns_less() -> None:
    world = World(validators=8)
    job = world.answered_job()
    play(world, job, [(FAIL, 0, True), (PASS, 0, True), (PASS, 0, True)])
    asker = world.job(job).committee[0].validator
    receipt = receipt_for(play(world, job, [(PASS, 0, True)] * 4), job)
    assert receipt.status is JobStatus.VERIFIED
    assert lost(world, asker) == 4 * SEAT_PRICE
    paid = {payment.account: payment.amount for payment in receipt.payments}
    for seat in world.job(job).committee[1:]:
        assert paid[world.set.members[seat.validator].account] == SEAT_PRICE
    assert total_value(world.ledger) == world.ledger.supply().issued


def test_who_has_lost_half_of_its_collateral_is_drawn_no_more_until_it_stakes_again() -> None:
    world = World(validators=8, parameters=Parameters(wrong_pass_slash=20 * GRAIN_PER_ASY))
    job = world.answered_job()
    play(world, job, [(PASS, 0, True), (FAIL, 0, True), (FAIL, 0, True)])
    liar = world.job(job).committee[0].validator
    play(world, job, [(FAIL, 0, True)] * 4)
    provider = world.job(job).provider or b""
    world.do(provider, pb.Stake(amount=world.parameters.stake_min_per_offer))
    critical = pb.TIER_CRITICAL
    assert liar not in seated_for_all(world, critical)
    world.do(world.set.members[liar].account, BOND)
    assert liar in seated_for_all(world, critical)


def seated_for_all(world: World, tier: int) -> tuple[int, ...]:
    job = world.request(a_request(tier=tier))
    world.block()
    world.answer(job)
    world.seat_committee(job)
    return world.seats(job)


words = st.tuples(
    st.sampled_from([PASS, PASS, FAIL, ABSTAIN, None]),
    st.sampled_from([0, 0, 0, MADE_UP]),
    st.sampled_from([True, True, False]),
)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(words, min_size=9, max_size=9),
    st.sampled_from([1, 300_000_000, 40 * GRAIN_PER_ASY]),
)
def test_whatever_a_committee_says_no_value_is_lost_and_no_escrow_stays(
    said: list[Word], wrong_pass_slash: int
) -> None:
    world = World(validators=8, parameters=Parameters(wrong_pass_slash=wrong_pass_slash))
    job = world.answered_job()
    wealth = [sum(world.ledger.account(member.account)[:3]) for member in world.set.members]
    spoken = iter(said * 2)
    while world.job(job).status is JobStatus.ANSWERED:
        world.seat_committee(job)
        play(world, job, [next(spoken) for _ in world.seats(job)])
    assert world.job(job).status in (JobStatus.VERIFIED, JobStatus.REJECTED, JobStatus.REFUNDED)
    assert world.job(job).escrow == 0
    assert total_value(world.ledger) == world.ledger.supply().issued
    pot = 7 * SEAT_PRICE
    after = [sum(world.ledger.account(member.account)[:3]) for member in world.set.members]
    assert sum(after) - sum(wealth) <= pot, "verifiers as one earn no more than their seats"
    for seat in world.job(job).committee:
        if seat.commitment is None or seat.voided or seat.verdict in (ABSTAIN, None):
            assert after[seat.validator] <= wealth[seat.validator], "earned without work shown"


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2), st.lists(words, min_size=2, max_size=2))
def test_one_honest_fail_asks_the_larger_committee_whatever_the_others_do(
    place: int, others: list[Word]
) -> None:
    world = World(validators=8)
    job = world.answered_job()
    said: list[Word] = [*others]
    said.insert(place, (FAIL, 0, True))
    play(world, job, said)
    assert world.job(job).escalated
