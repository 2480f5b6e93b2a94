"""What committees say and what follows: rejection, escalation, silence, and void words."""

from dataclasses import replace

import pytest

from assay.v1 import transactions_pb2 as pb
from chain.parameters import Parameters
from chain.records import Job, JobReceipt, JobStatus
from chain.rejections import RejectionReason
from consensus.values import AttestationKind, JobCommit
from consensus.wire import decode, encode
from tests.chain.ledger_world import (
    ABSTAIN,
    ALICE,
    FAIL,
    FUNDS,
    MODEL,
    PASS,
    PROVIDERS,
    SEAT_PRICE,
    TREASURY,
    World,
    a_request,
    an_offer,
    bad_scores,
    balance,
    offer_of,
    receipt_for,
    receipt_of,
    total_value,
)


def test_a_unanimous_fail_refunds_slashes_and_pays_the_verifiers_from_the_stake() -> None:
    # Operator and three verifiers: nobody is left to escalate to.
    world = World(validators=4)
    world.open_market()
    alice, stake = balance(world, ALICE), world.ledger.account(PROVIDERS[0]).stake
    transaction = world.send(ALICE, a_request())
    fee = receipt_of(world.block(), transaction).fee
    (job,) = [key for key, _ in world.ledger.open_jobs()]
    world.block()
    world.answer(job)
    receipt = receipt_for(world.vote(job, [FAIL, FAIL, FAIL]), job)
    assert receipt.status is JobStatus.REJECTED
    assert balance(world, ALICE) == alice - fee
    paid = {payment.account: payment.amount for payment in receipt.payments}
    assert [paid[world.set.members[seat].account] for seat in (1, 2, 3)] == [SEAT_PRICE] * 3
    left = stake - 3 * SEAT_PRICE
    assert world.ledger.account(PROVIDERS[0]).stake == left - left // 10
    assert offer_of(world, PROVIDERS[0]).failed == 1
    assert total_value(world.ledger) == world.ledger.supply().issued


def test_a_slashed_provider_gets_no_jobs_until_it_stakes_again() -> None:
    world = World(validators=4)
    job = world.answered_job()
    world.vote(job, [FAIL, FAIL, FAIL])
    refused = world.do(ALICE, a_request())
    assert refused.reason == RejectionReason.NO_OFFER
    world.do(PROVIDERS[0], pb.Stake(amount=world.parameters.stake_min_per_offer))
    assert world.do(ALICE, a_request()).accepted


def test_one_fail_escalates_to_all_others_and_the_majority_of_all_rules() -> None:
    world = World(validators=8)
    job = world.answered_job()
    outcome = world.vote(job, [PASS, FAIL, PASS])
    assert world.job(job).status is JobStatus.ANSWERED
    assert world.job(job).escalated
    assert outcome.wants_blocks
    first = world.seats(job)
    assert first == ()
    receipt = receipt_for(world.vote(job, [PASS, PASS, PASS, PASS]), job)
    assert receipt.status is JobStatus.VERIFIED
    assert len(receipt.verdicts) == 7
    dissenter = next(seat for seat in world.job(job).committee if seat.verdict is FAIL)
    paid = {payment.account for payment in receipt.payments}
    assert world.set.members[dissenter.validator].account not in paid


def test_a_majority_below_two_thirds_rejects_without_a_slash() -> None:
    world = World(validators=8)
    job = world.answered_job()
    stake = world.ledger.account(PROVIDERS[0]).stake
    world.vote(job, [PASS, FAIL, PASS])
    receipt = receipt_for(world.vote(job, [FAIL, FAIL, FAIL, PASS]), job)
    assert receipt.status is JobStatus.REJECTED
    assert world.ledger.account(PROVIDERS[0]).stake == stake - 7 * SEAT_PRICE  # seven seats


def test_a_tie_refunds_and_blames_nobody() -> None:
    world = World(validators=4)
    job = world.answered_job()
    stake = world.ledger.account(PROVIDERS[0]).stake
    receipt = receipt_for(world.vote(job, [PASS, FAIL, ABSTAIN]), job)
    assert receipt.status is JobStatus.REFUNDED
    assert world.ledger.account(PROVIDERS[0]).stake == stake


def test_one_abstention_leaves_a_quorum_that_verifies_and_its_share_goes_to_the_treasury() -> None:
    world = World()
    job = world.answered_job()
    receipt = receipt_for(world.vote(job, [PASS, ABSTAIN, PASS]), job)
    assert receipt.status is JobStatus.VERIFIED
    paid = {payment.account: payment.amount for payment in receipt.payments}
    assert paid[TREASURY] == SEAT_PRICE + 660


def test_one_dead_verifier_delays_a_job_but_does_not_stop_it() -> None:
    world = World()
    job = world.answered_job()
    outcome = world.vote(job, [PASS, None, PASS])
    receipt = receipt_for(outcome, job)
    assert receipt.status is JobStatus.VERIFIED
    assert len(receipt.verdicts) == 2


def test_a_verifier_that_commits_but_never_reveals_counts_as_missing() -> None:
    world = World()
    job = world.answered_job()
    world.seat_committee(job)
    seats = world.seats(job)
    for seat in seats:
        world.commit(job, seat, PASS)
    world.block()
    for seat in seats[:2]:
        world.reveal(job, seat)
    world.block()
    assert world.job(job).status is JobStatus.REVEALING
    outcome = world.block(after_ms=world.parameters.reveal_within_ms + 1)
    receipt = receipt_for(outcome, job)
    assert receipt.status is JobStatus.VERIFIED
    assert {verdict.validator for verdict in receipt.verdicts} == set(seats[:2])


def test_a_silent_committee_is_redrawn_once_and_then_the_job_is_refunded() -> None:
    world = World(validators=11)
    job = world.answered_job()
    world.seat_committee(job)
    first = set(world.seats(job))
    world.vote(job, [None, None, None])
    assert world.job(job).redrawn
    world.seat_committee(job)
    assert len(world.seats(job)) == 3
    assert not first & set(world.seats(job))
    outcome = world.vote(job, [None, None, PASS])
    assert receipt_for(outcome, job).status is JobStatus.REFUNDED


def test_a_redrawn_committee_may_still_escalate() -> None:
    world = World(validators=11)
    job = world.answered_job()
    world.vote(job, [None, None, None])
    world.vote(job, [FAIL, PASS, PASS])
    assert world.job(job).escalated
    world.seat_committee(job)
    outcome = world.vote(job, [PASS] * len(world.seats(job)))
    assert receipt_for(outcome, job).status is JobStatus.VERIFIED


def refusal(world: World) -> str:
    (refused,) = world.block().refused_attestations
    return refused.reason


def test_commits_are_taken_once_from_seats_only() -> None:
    world = World(validators=8)
    job = world.answered_job()
    world.seat_committee(job)
    seats = world.seats(job)
    outsider = next(index for index in range(8) if index not in seats)
    commit = encode(JobCommit(AttestationKind.COMMIT, job, 0, bytes(32)))
    world.attest(outsider, commit)
    assert refusal(world) == RejectionReason.NOT_ON_COMMITTEE
    world.attest(seats[0], encode(JobCommit(AttestationKind.COMMIT, job, 1, bytes(32))))
    assert refusal(world) == RejectionReason.JOB_NOT_OPEN
    world.attest(seats[0], commit)
    assert not world.block().refused_attestations
    world.attest(seats[0], commit)
    assert refusal(world) == RejectionReason.BAD_ATTESTATION


def test_reveals_wait_for_all_commits_and_must_open_them() -> None:
    world = World()
    job = world.answered_job()
    world.seat_committee(job)
    seats = world.seats(job)
    world.commit(job, seats[0], PASS)
    world.block()
    world.reveal(job, seats[0])
    assert refusal(world) == RejectionReason.JOB_NOT_OPEN
    world.commit(job, seats[1], PASS)
    world.commit(job, seats[2], PASS)
    world.block()
    mine = world.reveals[job, 0, seats[0]]
    world.attest(seats[0], encode(replace(mine, salt=bytes(32))))
    assert refusal(world) == RejectionReason.BAD_ATTESTATION
    world.attest(seats[1], encode(mine))
    assert refusal(world) == RejectionReason.BAD_ATTESTATION
    world.reveal(job, seats[0])
    assert not world.block().refused_attestations
    world.reveal(job, seats[0])
    assert refusal(world) == RejectionReason.BAD_ATTESTATION


@pytest.mark.parametrize("fault", ["verdict", "fingerprint", "abstain with scores"])
def test_a_reveal_that_contradicts_itself_counts_as_missing(fault: str) -> None:
    world = World()
    job = world.answered_job()
    world.seat_committee(job)
    seats = world.seats(job)
    for seat in seats:
        world.commit(job, seat, PASS)
    liar = seats[0]
    wrong = world.reveals[job, 0, liar]
    if fault == "verdict":
        wrong = replace(wrong, verdict=FAIL)
    elif fault == "fingerprint":
        wrong = replace(wrong, fingerprint=wrong.fingerprint[:-1])
    else:
        wrong = replace(wrong, verdict=ABSTAIN, scores=bad_scores(world.job(job)))
    digest = wrong.commitment(world.set.members[liar].account)
    world.attestations[liar] = [encode(JobCommit(AttestationKind.COMMIT, job, 0, digest))]
    world.reveals[job, 0, liar] = wrong
    world.block()
    world.reveal(job, liar)
    assert refusal(world) == RejectionReason.BAD_ATTESTATION
    for seat in seats[1:]:
        world.reveal(job, seat)
    world.block()
    world.block(after_ms=world.parameters.reveal_within_ms + 1)
    assert world.job(job).status is JobStatus.VERIFIED
    assert next(s for s in world.job(job).committee if s.validator == liar).verdict is None


def test_a_fingerprint_out_of_tolerance_voids_the_word_and_the_fee() -> None:
    world = World()
    job = world.answered_job()
    world.seat_committee(job)
    lazy, *others = world.seats(job)
    world.commit(job, lazy, PASS, fingerprint=500_000)
    for seat in others:
        world.commit(job, seat, PASS)
    world.block()
    for seat in (lazy, *others):
        world.reveal(job, seat)
    receipt = receipt_for(world.block(), job)
    assert receipt.status is JobStatus.VERIFIED
    words = {verdict.validator: verdict.verdict for verdict in receipt.verdicts}
    assert words == {lazy: ABSTAIN, **dict.fromkeys(others, PASS)}
    assert world.set.members[lazy].account not in {p.account for p in receipt.payments}


@pytest.mark.parametrize("data", [b"\x00", b"\x01short", b"\x02" + bytes(60), bytes(5_000)])
def test_bytes_that_are_no_attestation_change_nothing(data: bytes) -> None:
    world = World()
    world.answered_job()
    world.attest(1, data)
    assert refusal(world) == RejectionReason.BAD_ATTESTATION


def test_waiting_jobs_name_their_deadline_and_final_ones_need_nothing() -> None:
    world = World()
    job = world.answered_job()
    world.seat_committee(job)
    outcome = world.block()
    assert not outcome.wants_blocks
    assert outcome.next_deadline_ms == world.job(job).deadline_ms
    outcome = world.vote(job, [PASS, PASS, PASS])
    assert not outcome.wants_blocks
    assert outcome.next_deadline_ms is None
    assert outcome.changed_jobs == ((job, world.job(job)),)


def test_a_job_receipt_stands_at_its_leaf() -> None:
    world = World()
    job = world.answered_job()
    outcome = world.vote(job, [PASS, PASS, PASS])
    ((index, identifier, receipt),) = outcome.job_receipts
    assert identifier == job
    assert outcome.receipts[index] == receipt.leaf()
    assert decode(JobReceipt, receipt.leaf()[1:]) == receipt


def test_a_job_record_survives_its_encoding_at_every_step() -> None:
    world = World()
    job = world.answered_job()
    world.seat_committee(job)
    assert decode(Job, encode(world.job(job))) == world.job(job)


def test_unstaking_below_what_a_job_may_cost_is_still_slashable() -> None:
    world = World(validators=4, parameters=Parameters(unbonding_ms=10_000_000))
    job = world.answered_job()
    world.do(PROVIDERS[0], an_offer(capacity=0))
    amount = world.parameters.stake_min_per_offer
    assert world.do(PROVIDERS[0], pb.Unstake(amount=amount)).accepted
    world.vote(job, [FAIL, FAIL, FAIL])
    left = amount - 3 * SEAT_PRICE
    assert world.ledger.account(PROVIDERS[0]).unbonding == left - left // 10
    assert balance(world, PROVIDERS[0]) < FUNDS - amount


def test_a_single_new_verifier_is_enough_for_a_second_round() -> None:
    world = World(validators=5)
    job = world.answered_job()
    world.vote(job, [PASS, FAIL, PASS])
    world.seat_committee(job)
    assert len(world.seats(job)) == 1
    assert receipt_for(world.vote(job, [PASS]), job).status is JobStatus.VERIFIED


def test_a_second_round_that_finds_nobody_is_counted_as_it_stands() -> None:
    world = World(validators=5)
    job = world.answered_job()
    world.vote(job, [FAIL, FAIL, PASS])
    for member in world.set.members:
        world.send(member.account, pb.SetVerifier(model=MODEL, serving=False))
    world.block()
    outcome = world.block()
    assert receipt_for(outcome, job).status is JobStatus.REJECTED


def test_once_a_quorum_has_committed_the_rest_have_a_grace_and_not_the_whole_time() -> None:
    world = World(validators=4)
    job = world.answered_job()
    world.seat_committee(job)
    drawn_ms = world.ledger.timestamp_ms
    first, second, silent = world.seats(job)
    world.commit(job, first, PASS)
    world.block()
    assert world.job(job).deadline_ms == drawn_ms + world.parameters.commit_within_ms
    world.commit(job, second, PASS)
    world.block()
    grace_ms = world.parameters.commit_grace_ms
    assert world.job(job).deadline_ms == world.ledger.timestamp_ms + grace_ms
    world.block(after_ms=grace_ms + 1)
    assert world.job(job).status is JobStatus.REVEALING
    for validator in (first, second):
        world.reveal(job, validator)
    receipt = receipt_for(world.block(), job)
    assert receipt.status is JobStatus.VERIFIED
    assert silent not in [word.validator for word in receipt.verdicts]


def test_the_grace_is_as_long_as_the_quorum_took_and_never_past_the_deadline() -> None:
    world = World(validators=4)
    job = world.answered_job()
    world.seat_committee(job)
    drawn_ms = world.ledger.timestamp_ms
    first, second, _ = world.seats(job)
    took_ms = 2 * world.parameters.commit_grace_ms
    for validator in (first, second):
        world.commit(job, validator, PASS)
    world.block(after_ms=took_ms)
    assert world.job(job).deadline_ms == drawn_ms + 2 * took_ms
    late = World(validators=4)
    job = late.answered_job()
    late.seat_committee(job)
    drawn_ms = late.ledger.timestamp_ms
    for validator in late.seats(job)[:2]:
        late.commit(job, validator, PASS)
    late.block(after_ms=late.parameters.commit_within_ms - 1)
    assert late.job(job).deadline_ms == drawn_ms + late.parameters.commit_within_ms
