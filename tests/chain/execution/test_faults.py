"""A validator that signed what no honest one does loses stake and offices, once, whoever tells."""

from dataclasses import replace

import pytest

from assay.v1 import transactions_pb2 as pb
from chain.events import Event, EventKind
from chain.parameters import BASIS_POINTS, GRAIN_PER_ASY, Parameters
from chain.records import Conviction, JobStatus
from chain.rejections import RejectionReason
from consensus.evidence import Evidence, Fault, SignedHeader, conflict
from consensus.values import BatchHeader
from consensus.wire import encode
from tests.builders import key
from tests.chain.ledger_world import (
    ALICE,
    BOND,
    CHAIN,
    MODEL,
    PASS_ALL,
    PROVIDERS,
    TREASURY,
    World,
    a_report,
    an_offer,
    balance,
    double_vote,
    events_in,
    everything,
    lane_batch,
    offer_of,
    restarted,
    serving,
    total_value,
)

CULPRIT = 0
"""It operates the offers of an open market."""
STAKE = 100 * GRAIN_PER_ASY


def two_batches(culprit: int = CULPRIT) -> Evidence:
    def half(payload_root: bytes) -> SignedHeader:
        header = BatchHeader(0, culprit, 3, bytes(32), payload_root)
        signed = key(f"signing {culprit}").signing_key.sign(header.signed_message(CHAIN))
        return SignedHeader(header, signed.signature)

    return conflict(Fault.CONFLICTING_BATCHES, culprit, half(b"a" * 32), half(b"b" * 32))


def a_world() -> World:
    world = World()
    world.open_market()
    world.do(world.set.members[CULPRIT].account, pb.Stake(amount=STAKE - BOND.amount))
    return world


def conviction_of(world: World) -> Conviction:
    (conviction,) = world.ledger.convictions().values()
    return conviction


@pytest.mark.parametrize(
    "evidence", [double_vote(CULPRIT), two_batches()], ids=["votes", "batches"]
)
def test_the_culprit_is_slashed_and_loses_its_offices(evidence: Evidence) -> None:
    world = a_world()
    issued = total_value(world.ledger)
    treasury = balance(world, TREASURY)
    world.send(ALICE, a_report(evidence))
    outcome = world.block()
    share = STAKE * Parameters().fault_slash_bps // BASIS_POINTS
    culprit = world.set.members[CULPRIT].account
    assert world.ledger.account(culprit).stake == STAKE - share
    burned = share * Parameters().slash_burn_bps // BASIS_POINTS
    assert balance(world, TREASURY) - treasury == share - burned
    assert conviction_of(world) == Conviction(
        evidence.fault, world.ledger.height, evidence.digest(), share
    )
    assert list(world.ledger.verifiers(MODEL)) == [1, 2, 3, 4]
    assert offer_of(world, PROVIDERS[0]).capacity == 0
    assert events_in(outcome)[-1] == Event(
        EventKind.VALIDATOR_CONVICTED, culprit, evidence.digest(), share, evidence.fault
    )
    assert total_value(world.ledger) == issued


def test_a_second_report_is_refused_and_costs_the_culprit_nothing_more() -> None:
    world = a_world()
    assert world.do(ALICE, a_report(double_vote(CULPRIT))).accepted
    stake = world.ledger.account(world.set.members[CULPRIT].account).stake
    for evidence in (double_vote(CULPRIT), two_batches()):
        assert world.do(ALICE, a_report(evidence)).reason == RejectionReason.ALREADY_CONVICTED
    assert world.ledger.account(world.set.members[CULPRIT].account).stake == stake


@pytest.mark.parametrize(
    "message",
    [
        pb.ReportFault(),
        pb.ReportFault(evidence=encode(double_vote(CULPRIT)) + b"\0"),
        pb.ReportFault(evidence=bytes(20_000)),
        a_report(double_vote(CULPRIT, chain="another chain")),
        a_report(replace(double_vote(CULPRIT), culprit=1)),
        a_report(replace(double_vote(CULPRIT), culprit=5)),
        a_report(replace(double_vote(CULPRIT), second=double_vote(CULPRIT).first)),
    ],
    ids=["none", "one byte more", "too long", "other chain", "not its", "nobody's", "one half"],
)
def test_what_proves_nothing_convicts_nobody(message: pb.ReportFault) -> None:
    world = a_world()
    assert world.do(ALICE, message).reason == RejectionReason.BAD_EVIDENCE
    assert not world.ledger.convictions()


def test_a_convicted_validator_neither_judges_nor_operates_again() -> None:
    world = a_world()
    assert world.do(ALICE, a_report(double_vote(CULPRIT))).accepted
    culprit = world.set.members[CULPRIT].account
    assert world.do(culprit, serving()).reason == RejectionReason.CONVICTED
    again = world.do(PROVIDERS[0], an_offer(operator=CULPRIT))
    assert again.reason == RejectionReason.CONVICTED
    assert world.do(PROVIDERS[0], an_offer(operator=1)).accepted


def test_a_job_under_way_at_its_provider_is_still_settled() -> None:
    world = a_world()
    job = world.answered_job()
    world.send(ALICE, a_report(double_vote(CULPRIT)))
    world.vote(job, PASS_ALL)
    assert world.job(job).status is JobStatus.VERIFIED
    assert CULPRIT not in {seat.validator for seat in world.job(job).committee}


def test_the_fees_of_its_lane_go_to_the_treasury() -> None:
    world = a_world()
    assert world.do(ALICE, a_report(double_vote(CULPRIT))).accepted
    culprit = world.set.members[CULPRIT].account
    earned, treasury = balance(world, culprit), balance(world, TREASURY)
    receipt = world.do(ALICE, pb.Transfer(to=PROVIDERS[1], amount=1))
    kept = receipt.fee - receipt.fee * Parameters().fee_burn_bps // BASIS_POINTS
    assert balance(world, culprit) == earned
    assert balance(world, TREASURY) == treasury + kept


def test_a_report_that_is_rolled_back_leaves_no_conviction() -> None:
    world = a_world()
    before = everything(world.ledger)[0]
    receipt = world.do(ALICE, a_report(double_vote(CULPRIT)), pb.Transfer(to=b"short", amount=1))
    assert receipt.reason == RejectionReason.BAD_ADDRESS
    assert not world.ledger.convictions()
    changed = set(everything(world.ledger)[0]) ^ set(before)
    assert {row[0] for row in changed} <= {8, 9}  # supply and ids: the fee was paid


def test_a_restarted_ledger_remembers() -> None:
    world = a_world()
    assert world.do(ALICE, a_report(double_vote(CULPRIT))).accepted
    again = restarted(world.ledger)
    assert again.convictions() == world.ledger.convictions()
    context, lanes = world.next_block()
    lanes[0] = lane_batch(0, [world.make(ALICE, a_report(two_batches()))])
    assert world.ledger.execute(context, lanes).execution_root == (
        again.execute(context, lanes).execution_root
    )
