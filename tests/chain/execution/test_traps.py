"""Traps: nobody tells them from other jobs, they cost their provider no slash, and catch who does
not work; nobody is spared by one, or gains by one, who should not."""

from hypothesis import given, settings
from hypothesis import strategies as st

from assay.v1 import transactions_pb2 as pb
from chain.execution.jobs import request_digest, result_digest
from chain.execution.traps import TRAPS_MAX, commitment
from chain.parameters import Parameters
from chain.records import JobStatus
from chain.rejections import RejectionReason
from consensus.values import Verdict
from tests.chain.ledger_world import (
    ALICE,
    BOND,
    FAIL,
    PASS,
    PROVIDERS,
    SEAT_PRICE,
    TREASURY,
    World,
    a_request,
    a_result,
    account,
    balance,
    offer_of,
    receipt_for,
    restarted,
    total_value,
)

SETTER = PROVIDERS[0]
SALT = b"s" * 32
FALSE = a_result()
REQUEST = a_request("Why is grass green?")
AT_ONCE = Parameters(trap_every_jobs=0)
"""The treasury pays for every trap."""


def said(request: pb.RequestInference = REQUEST, salt: bytes = SALT) -> pb.SetTrap:
    asked = request_digest(request.SerializeToString())
    return pb.SetTrap(commitment=commitment(asked, result_digest(FALSE.SerializeToString()), salt))


def answered_trap(parameters: Parameters | None = None, first: bool = True) -> tuple[World, bytes]:
    """A trap of the only provider, answered; `first` says whether it was set before it was asked
    for."""
    world = World(validators=8, parameters=parameters or Parameters())
    world.open_market()
    if first:
        assert world.do(SETTER, said()).accepted
    job = world.request(REQUEST)
    world.block()
    if not first:
        assert world.do(SETTER, said()).accepted
    world.answer(job, FALSE)
    return world, job


def opened(world: World, job: bytes, sender: bytes = ALICE, salt: bytes = SALT) -> str:
    return world.do(sender, pb.OpenTrap(job=job, salt=salt)).reason


def stake(world: World, key: bytes) -> int:
    return world.ledger.account(key).stake


def test_a_trap_that_everybody_failed_ends_when_it_is_opened_and_costs_one_round() -> None:
    world, job = answered_trap()
    before = stake(world, SETTER)
    world.vote(job, [FAIL] * 3)
    assert world.job(job).status is JobStatus.ANSWERED
    assert opened(world, job) == ""
    assert world.job(job).status is JobStatus.REJECTED
    assert len(world.job(job).committee) == 3
    assert stake(world, SETTER) == before - 3 * SEAT_PRICE
    assert offer_of(world, SETTER).failed == 0
    assert total_value(world.ledger) == world.ledger.supply().issued
    assert restarted(world.ledger).execution_root == world.ledger.execution_root


def test_who_passed_a_trap_is_found_by_the_larger_committee_and_slashed() -> None:
    world, job = answered_trap()
    before = stake(world, SETTER)
    world.vote(job, [PASS, FAIL, FAIL])
    lazy = world.set.members[world.job(job).committee[0].validator].account
    assert opened(world, job) == ""
    assert world.job(job).status is JobStatus.ANSWERED
    receipt = receipt_for(world.vote(job, [FAIL] * 4), job)
    assert receipt.status is JobStatus.REJECTED
    assert stake(world, lazy) == BOND.amount - world.parameters.wrong_pass_slash
    assert stake(world, SETTER) == before - 7 * SEAT_PRICE
    assert offer_of(world, SETTER).failed == 0


def test_the_treasury_pays_for_a_trap_and_its_provider_loses_nothing() -> None:
    world, job = answered_trap(AT_ONCE)
    world.do(ALICE, pb.Transfer(to=TREASURY, amount=10**9))
    before, reserve = stake(world, SETTER), balance(world, TREASURY)
    world.vote(job, [FAIL] * 3)
    opened(world, job)
    assert stake(world, SETTER) == before
    assert reserve - balance(world, TREASURY) == 3 * SEAT_PRICE + AT_ONCE.trap_reward
    assert offer_of(world, SETTER).traps == 1
    assert total_value(world.ledger) == world.ledger.supply().issued


def test_a_treasury_that_holds_less_pays_what_it_has() -> None:
    world, job = answered_trap(AT_ONCE)
    world.do(ALICE, pb.Transfer(to=TREASURY, amount=SEAT_PRICE))
    before = stake(world, SETTER)
    world.vote(job, [FAIL] * 3)
    opened(world, job)
    assert stake(world, SETTER) == before - 2 * SEAT_PRICE
    assert balance(world, TREASURY) == 0


def test_a_provider_has_no_more_traps_paid_than_its_share() -> None:
    world, job = answered_trap(Parameters(trap_every_jobs=1))
    world.do(ALICE, pb.Transfer(to=TREASURY, amount=10**9))
    before = stake(world, SETTER)
    world.vote(job, [FAIL] * 3)
    opened(world, job)
    assert offer_of(world, SETTER).completed == 0
    assert stake(world, SETTER) == before - 3 * SEAT_PRICE


def test_a_provider_that_was_caught_cannot_call_it_a_trap_afterwards() -> None:
    world, job = answered_trap(first=False)
    world.vote(job, [FAIL] * 3)
    assert opened(world, job) == RejectionReason.BAD_TRAP


def test_nobody_but_the_requester_opens_a_trap_and_only_with_its_salt() -> None:
    world, job = answered_trap()
    world.vote(job, [FAIL] * 3)
    assert opened(world, job, sender=SETTER) == RejectionReason.BAD_TRAP
    assert opened(world, job, salt=b"t" * 32) == RejectionReason.BAD_TRAP
    assert opened(world, job, salt=b"") == RejectionReason.BAD_TRAP
    assert opened(world, job) == ""
    assert opened(world, job) == RejectionReason.JOB_NOT_OPEN


def test_a_trap_is_not_opened_while_words_are_still_bound_to_come() -> None:
    world, job = answered_trap()
    assert opened(world, job) == RejectionReason.JOB_NOT_OPEN
    world.seat_committee(job)
    assert opened(world, job) == RejectionReason.JOB_NOT_OPEN


def test_a_true_result_called_a_trap_is_verified_and_spares_its_accomplice_nothing() -> None:
    world, job = answered_trap()
    world.vote(job, [FAIL, PASS, PASS])
    accomplice = world.set.members[world.job(job).committee[0].validator].account
    assert opened(world, job) == ""
    receipt = receipt_for(world.vote(job, [PASS] * 4), job)
    assert receipt.status is JobStatus.VERIFIED
    assert stake(world, accomplice) == BOND.amount - 4 * SEAT_PRICE


def test_a_provider_keeps_so_many_traps_and_the_newest_of_them() -> None:
    world = World()
    world.open_market()
    for number in range(TRAPS_MAX + 1):
        assert world.do(SETTER, said(salt=bytes([number]) * 32)).accepted
    again = world.do(SETTER, said(salt=bytes([TRAPS_MAX]) * 32))
    assert again.reason == RejectionReason.BAD_TRAP
    assert world.do(SETTER, said(salt=bytes([0]) * 32)).accepted, "the oldest has made room"


def test_a_commitment_of_another_length_is_refused() -> None:
    world = World()
    refused = world.do(account("anybody"), pb.SetTrap(commitment=b"short"))
    assert not refused.accepted
    assert world.do(ALICE, pb.SetTrap(commitment=b"short")).reason == RejectionReason.BAD_TRAP


@settings(max_examples=15, deadline=None)
@given(
    st.lists(st.sampled_from([PASS, FAIL, FAIL, None]), min_size=3, max_size=3),
    st.lists(st.sampled_from([PASS, FAIL, FAIL, None]), min_size=4, max_size=4),
    st.sampled_from([0, SEAT_PRICE, 10**9]),
)
def test_whatever_is_said_of_a_trap_no_value_is_lost_and_honest_words_cost_nothing(
    first: list[Verdict | None], second: list[Verdict | None], reserve: int
) -> None:
    world, job = answered_trap(AT_ONCE)
    if reserve:
        world.do(ALICE, pb.Transfer(to=TREASURY, amount=reserve))
    world.vote(job, first)
    if world.job(job).escalated:
        assert opened(world, job) == ""
    if world.job(job).status is JobStatus.ANSWERED:
        world.seat_committee(job)
        world.vote(job, second[: len(world.seats(job))])
    while world.job(job).status is JobStatus.ANSWERED:
        world.seat_committee(job)
        world.vote(job, [None] * len(world.seats(job)))
    record = world.job(job)
    assert record.escrow == 0
    assert total_value(world.ledger) == world.ledger.supply().issued
    for seat in record.committee:
        if seat.verdict is FAIL and record.status is JobStatus.REJECTED:
            assert stake(world, world.set.members[seat.validator].account) == BOND.amount
