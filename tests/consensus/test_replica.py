"""One replica at a time: when it votes, when it refuses, what it remembers, what it serves."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from consensus.certificates import sign_ack
from consensus.events import (
    BatchChecked,
    CheckBatch,
    Deliver,
    Executed,
    Finalized,
    LaneFull,
    LoadBatch,
    LoadBlocks,
    MessageReceived,
    Misbehaviour,
    PeerConnected,
    Persist,
    Recovered,
    SealBatch,
    Send,
    Start,
    StoreBatch,
    Tick,
    WakeAt,
)
from consensus.evidence import Fault, evidence_fault
from consensus.journal import encode_record
from consensus.messages import (
    Ack,
    AckBody,
    AvailabilityProof,
    BatchMessage,
    BatchRequest,
    Blocks,
    BlocksRequest,
    Certificates,
    ProofRequest,
    Proposal,
    Status,
)
from consensus.replica import RecoveryConflict, Replica
from consensus.sim.crypto import make_validators
from consensus.values import Batch, BatchHeader, Block, Tip, Vote, VoteKind
from ext.hashing import sha256
from tests.consensus.harness import (
    CHAIN_ID,
    NOW_MS,
    SIGNERS,
    TIMING,
    VALIDATORS,
    Bench,
    certificate,
    config,
    first_proposal,
    leader_of,
    sign_proposal,
    vote,
)

LEADER = leader_of(1)
VOTER = (LEADER + 1) % 4
OTHERS = tuple(index for index in range(4) if index != VOTER)


def offered(proposal: Proposal, peer: int = LEADER) -> Bench:
    bench = Bench(VOTER)
    bench.step(MessageReceived(peer, proposal), after_ms=TIMING.heartbeat_ms)
    return bench


def batch(lane: int, sequence: int = 1, payload: bytes = b"p", parent: bytes = bytes(32)) -> Batch:
    header = BatchHeader(0, lane, sequence, parent, sha256(payload))
    return Batch(header, SIGNERS[lane].sign(header.signed_message(CHAIN_ID)), payload)


# --- pacing -------------------------------------------------------------------------------------


def test_a_replica_alone_is_silent_until_a_heartbeat_and_two_deltas_have_passed() -> None:
    bench = Bench(VOTER)
    deadline_ms = TIMING.heartbeat_ms + TIMING.leader_timeout_ms
    while bench.wake_at_ms() < NOW_MS + deadline_ms:
        bench.step(Tick(), after_ms=bench.wake_at_ms() - bench.now_ms)
        assert bench.votes(1) == []
    bench.step(Tick(), after_ms=bench.wake_at_ms() - bench.now_ms)
    assert bench.now_ms == NOW_MS + deadline_ms
    assert bench.votes(1) == [VoteKind.NULLIFY]


def test_a_leader_proposes_an_empty_block_when_the_heartbeat_is_due_and_not_before() -> None:
    bench = Bench(LEADER)
    assert bench.wake_at_ms() == NOW_MS + TIMING.heartbeat_ms
    bench.step(Tick(), after_ms=TIMING.heartbeat_ms - 1)
    assert bench.said(Proposal) == []
    bench.step(Tick(), after_ms=1)
    (proposal,) = bench.said(Proposal)
    assert (proposal.block.height, proposal.block.view, proposal.block.cut) == (1, 1, ())
    assert bench.votes(1) == [VoteKind.NOTARIZE]


def test_a_proven_batch_makes_the_leader_propose_it_at_once() -> None:
    bench = Bench(LEADER)
    bench.step(SealBatch(b"payload"), after_ms=TIMING.block_interval_ms)
    (sealed,) = bench.all(StoreBatch)
    tip = Tip(LEADER, 1, sealed.batch.header.digest())
    assert bench.said(Proposal) == []
    ack = sign_ack(SIGNERS[VOTER], CHAIN_ID, VOTER, AckBody(0, tip))
    bench.step(MessageReceived(VOTER, ack), after_ms=1)
    (proposal,) = bench.said(Proposal)
    assert proposal.block.cut == (tip,)
    assert bench.said(AvailabilityProof)[0].body.tip == tip


# --- voting -------------------------------------------------------------------------------------


def test_a_vote_and_its_block_are_persisted_before_the_vote_is_sent() -> None:
    proposal = first_proposal()
    bench = offered(proposal)
    assert bench.votes(1) == [VoteKind.NOTARIZE]
    records = [effect.record for effect in bench.all(Persist)]
    sent = bench.said(Vote)[0]
    assert records == [encode_record(proposal), encode_record(sent)]
    kinds = [type(effect).__name__ for effect in bench.effects]
    assert kinds.index("Persist") < kinds.index("Broadcast")


def shifted_root(block: Block) -> Block:
    return replace(block, executed_root=b"r" * 32)


REFUSALS: dict[str, Callable[[Block], Block]] = {
    "height": lambda block: replace(block, height=2),
    "validators of a next epoch that there is not": lambda block: replace(
        block, next_validators=b"v" * 32
    ),
    "parent view": lambda block: replace(block, parent_view=1),
    "unknown parent at the final view": lambda block: replace(block, parent=b"x" * 32),
    "time not after the parent's": lambda block: replace(block, timestamp_ms=NOW_MS - 10_000),
    "VRF proof": lambda block: replace(block, vrf_proof=bytes(80)),
    "execution root": shifted_root,
    "executed height too new": lambda block: replace(block, executed_height=1),
    "lane that does not exist": lambda block: replace(block, cut=(Tip(4, 1, b"t" * 32),)),
    "cut out of order": lambda block: replace(
        block, cut=(Tip(1, 1, b"t" * 32), Tip(0, 1, b"t" * 32))
    ),
    "tip beyond the window": lambda block: replace(block, cut=(Tip(0, 4_097, b"t" * 32),)),
    "more batches than a block may bring": lambda block: replace(
        block, cut=(Tip(0, 1_000, b"t" * 32), Tip(1, 25, b"t" * 32))
    ),
    "tip zero": lambda block: replace(block, cut=(Tip(0, 0, b"t" * 32),)),
}


@pytest.mark.parametrize("change", REFUSALS.values(), ids=REFUSALS.keys())
def test_a_proposal_that_breaks_a_rule_is_answered_by_giving_the_view_up(
    change: Callable[[Block], Block],
) -> None:
    proposal = first_proposal()
    bench = offered(sign_proposal(change(proposal.block)))
    assert bench.votes(1) == [VoteKind.NULLIFY]


def test_a_proposal_of_another_epoch_is_nothing_and_blames_nobody() -> None:
    proposal = first_proposal()
    bench = offered(sign_proposal(replace(proposal.block, epoch=1)))
    assert bench.votes(1) == []
    bench.step(MessageReceived(LEADER, proposal))
    assert bench.votes(1) == [VoteKind.NOTARIZE]
    assert bench.all(Misbehaviour) == []


@pytest.mark.parametrize("signer", OTHERS)
def test_a_proposal_that_its_leader_did_not_sign_is_ignored(signer: int) -> None:
    proposal = sign_proposal(first_proposal().block, signer)
    expected = [VoteKind.NOTARIZE] if signer == LEADER else []
    assert offered(proposal).votes(1) == expected


def test_a_proposal_from_the_future_waits_until_its_time_comes() -> None:
    ahead = NOW_MS + TIMING.heartbeat_ms + 2_000 + 500
    bench = offered(first_proposal(timestamp_ms=ahead))
    assert bench.votes(1) == []
    bench.step(Tick(), after_ms=499)
    assert bench.votes(1) == []
    bench.step(Tick(), after_ms=1)
    assert bench.votes(1) == [VoteKind.NOTARIZE]


def test_a_proposal_waits_for_its_tips_and_asks_the_leader_for_their_proofs() -> None:
    held = batch(OTHERS[0])
    tip = Tip(OTHERS[0], 1, held.header.digest())
    bench = offered(first_proposal(cut=(tip,)))
    assert bench.votes(1) == []
    bench.step(Tick(), after_ms=bench.wake_at_ms() - bench.now_ms)
    assert bench.said(ProofRequest) == [ProofRequest(tip)]
    body = AckBody(0, tip)
    acks = {i: sign_ack(SIGNERS[i], CHAIN_ID, i, body).signature for i in sorted(OTHERS[:2])}
    proof = AvailabilityProof(body, tuple(acks), tuple(acks.values()))
    forged = replace(proof, signatures=tuple(reversed(proof.signatures)))
    bench.step(MessageReceived(LEADER, forged))
    assert bench.votes(1) == []
    bench.step(MessageReceived(LEADER, proof))
    assert bench.votes(1) == [VoteKind.NOTARIZE]


def test_only_one_of_two_proposals_gets_a_vote_and_the_leader_is_convicted() -> None:
    first, second = first_proposal(), first_proposal(timestamp_ms=NOW_MS + 1)
    bench = offered(first)
    bench.step(MessageReceived(LEADER, second))
    assert [v.body.digest for v in bench.said(Vote)] == [first.block.digest()]
    (misbehaviour,) = bench.all(Misbehaviour)
    assert misbehaviour.evidence.fault is Fault.CONFLICTING_PROPOSALS
    assert evidence_fault(misbehaviour.evidence, VALIDATORS, CHAIN_ID) is None
    # Seen to equivocate: the view may be notarized, but this validator does not finalize it.
    for signer in OTHERS[:2]:
        bench.step(MessageReceived(signer, vote(VoteKind.NOTARIZE, first.block, signer)))
    assert bench.replica.view == 2
    assert bench.votes(1) == [VoteKind.NOTARIZE]


def test_a_quorum_notarizes_and_a_second_one_finalizes_and_delivers() -> None:
    block = first_proposal().block
    bench = offered(sign_proposal(block))
    for signer in OTHERS[:2]:
        bench.step(MessageReceived(signer, vote(VoteKind.NOTARIZE, block, signer)))
    assert bench.replica.view == 2
    assert bench.votes(1) == [VoteKind.NOTARIZE, VoteKind.FINALIZE]
    assert bench.all(Finalized) == []
    for signer in OTHERS[:2]:
        bench.step(MessageReceived(signer, vote(VoteKind.FINALIZE, block, signer)))
    (finalized,) = bench.all(Finalized)
    assert [final.block for final in finalized.blocks] == [block]
    assert finalized.certificate == certificate(
        VoteKind.FINALIZE, block, tuple(sorted((VOTER, *OTHERS[:2])))
    )
    (delivered,) = bench.all(Deliver)
    assert (delivered.block, delivered.increments) == (block, ())
    assert bench.replica.finalized_height == bench.replica.delivered_height == 1


def test_a_view_that_was_given_up_is_not_finalized() -> None:
    block = first_proposal().block
    bench = offered(sign_proposal(block))
    bench.step(Tick(), after_ms=TIMING.certificate_timeout_ms)
    assert bench.votes(1) == [VoteKind.NOTARIZE, VoteKind.NULLIFY]
    for signer in OTHERS[:2]:
        bench.step(MessageReceived(signer, vote(VoteKind.NOTARIZE, block, signer)))
    assert bench.replica.view == 2
    assert VoteKind.FINALIZE not in bench.votes(1)


def test_giving_up_follows_a_third_of_the_stake_and_a_quorum_of_it_moves_on() -> None:
    bench = Bench(VOTER)
    bench.step(MessageReceived(OTHERS[0], vote(VoteKind.NULLIFY, None, OTHERS[0])))
    assert bench.votes(1) == []
    bench.step(MessageReceived(OTHERS[1], vote(VoteKind.NULLIFY, None, OTHERS[1])))
    assert bench.votes(1) == [VoteKind.NULLIFY]
    assert bench.replica.view == 2


@pytest.mark.parametrize(
    ("kind", "heard", "waits_ms"),
    [
        (VoteKind.NOTARIZE, False, 1_000),
        (VoteKind.NULLIFY, True, 333 * 3 // 2),
        (VoteKind.NULLIFY, False, 0),
    ],
)
def test_who_was_given_up_in_its_last_view_is_waited_for_less_and_not_at_all_while_it_is_silent(
    kind: VoteKind, heard: bool, waits_ms: int
) -> None:
    bench = Bench(VOTER)
    assert leader_of(5) == leader_of(1)
    block = first_proposal().block
    kinds = [kind, *[VoteKind.NOTARIZE] * 3]
    items = [
        certificate(kind, replace(block, view=view), OTHERS, view)
        for view, kind in enumerate(kinds, start=1)
    ]
    for item in items:
        bench.step(MessageReceived(OTHERS[0], Certificates((item,))))
    assert bench.replica.view == 5
    if heard:
        leader = leader_of(5)
        bench.step(MessageReceived(leader, vote(VoteKind.NULLIFY, None, leader, view=4)))
    entered_ms = bench.now_ms
    while VoteKind.NULLIFY not in bench.votes(5):
        bench.step(Tick(), after_ms=bench.wake_at_ms() - bench.now_ms)
    assert bench.now_ms - entered_ms == TIMING.heartbeat_ms + waits_ms


@pytest.mark.parametrize("index", range(4))
def test_a_certificate_is_passed_on_by_the_leaders_of_its_view_and_of_the_next(index: int) -> None:
    bench = Bench(index)
    for other in [other for other in range(4) if other != index][:2]:
        bench.step(MessageReceived(other, vote(VoteKind.NULLIFY, None, other)))
    assert bench.replica.view == 2
    relays = index in {leader_of(1), leader_of(2)}
    assert len(bench.said(Certificates)) == int(relays)


def test_who_was_told_of_a_certificate_by_nobody_hears_it_with_the_resends() -> None:
    bench = Bench(next(index for index in range(4) if index not in {leader_of(1), leader_of(2)}))
    for other in [other for other in range(4) if other != bench.index][:2]:
        bench.step(MessageReceived(other, vote(VoteKind.NULLIFY, None, other)))
    assert bench.said(Certificates) == []
    while not bench.said(Certificates):
        assert bench.now_ms < NOW_MS + 2 * TIMING.heartbeat_ms
        bench.step(Tick(), after_ms=bench.wake_at_ms() - bench.now_ms)
    (passed,) = bench.said(Certificates)[0].items
    assert (passed.body.kind, passed.body.view) == (VoteKind.NULLIFY, 1)


def test_votes_in_anothers_name_or_with_a_bad_signature_do_not_count() -> None:
    block = first_proposal().block
    bench = offered(sign_proposal(block))
    good = vote(VoteKind.NOTARIZE, block, OTHERS[0])
    bad = replace(vote(VoteKind.NOTARIZE, block, OTHERS[1]), signature=bytes(64))
    bench.step(MessageReceived(OTHERS[2], good))
    bench.step(MessageReceived(OTHERS[1], bad))
    bench.step(MessageReceived(OTHERS[0], good))
    assert bench.replica.view == 1
    bench.step(MessageReceived(OTHERS[1], vote(VoteKind.NOTARIZE, block, OTHERS[1])))
    assert bench.replica.view == 2


def test_a_certificate_from_a_far_view_is_taken_and_a_forged_one_is_not() -> None:
    bench = Bench(VOTER)
    far = certificate(VoteKind.NULLIFY, None, view=1_000)
    forged = replace(far, signers=(0, 1, 3))
    bench.step(MessageReceived(OTHERS[0], Certificates((forged,))))
    assert bench.replica.view == 1
    bench.step(MessageReceived(OTHERS[1], Certificates((far,))))
    assert bench.replica.view == 1_001


# --- restarting ---------------------------------------------------------------------------------


def test_after_a_restart_the_log_binds() -> None:
    bench = offered(first_proposal())
    records = tuple(effect.record for effect in bench.all(Persist))
    again = Bench(VOTER, Recovered(wal_records=records))
    rival = first_proposal(timestamp_ms=NOW_MS + 1)
    again.step(MessageReceived(LEADER, rival), after_ms=10)
    assert again.votes(1) == []
    again.step(Tick(), after_ms=TIMING.leader_timeout_ms)
    assert {v.body.digest for v in again.said(Vote) if v.body.kind is VoteKind.NOTARIZE} == {
        bench.said(Vote)[0].body.digest
    }


def test_a_leader_that_restarts_repeats_its_proposal_and_makes_no_other() -> None:
    bench = Bench(LEADER)
    bench.step(Tick(), after_ms=TIMING.heartbeat_ms)
    records = tuple(effect.record for effect in bench.all(Persist))
    again = Bench(LEADER, Recovered(wal_records=records))
    for _ in range(20):
        again.step(Tick(), after_ms=max(1, again.wake_at_ms() - again.now_ms))
    assert set(again.said(Proposal)) == set(bench.said(Proposal))


def test_a_finalized_chain_is_recovered_from_the_store() -> None:
    bench = offered(first_proposal())
    block = first_proposal().block
    for kind in (VoteKind.NOTARIZE, VoteKind.FINALIZE):
        for signer in OTHERS[:2]:
            bench.step(MessageReceived(signer, vote(kind, block, signer)))
    (finalized,) = bench.all(Finalized)
    records = tuple(effect.record for effect in bench.all(Persist))
    stored = Recovered(records, finalized.blocks, finalized.certificate)
    again = Bench(VOTER, stored)
    assert (again.replica.finalized_height, again.replica.view) == (1, 2)
    assert [effect.block for effect in again.all(Deliver)] == [block]
    executed = replace(stored, executed=((1, b"r" * 32),))
    assert Bench(VOTER, executed).all(Deliver) == []


def test_a_log_of_another_validator_is_refused() -> None:
    records = tuple(effect.record for effect in offered(first_proposal()).all(Persist))
    with pytest.raises(RecoveryConflict, match=f"a vote of validator {VOTER}, this is {LEADER}"):
        Bench(LEADER, Recovered(wal_records=records))


def test_a_store_without_the_executed_block_is_refused() -> None:
    with pytest.raises(RecoveryConflict, match="the store lacks the block of executed height 3"):
        Bench(VOTER, Recovered(executed=((3, b"r" * 32),)))


# --- lanes --------------------------------------------------------------------------------------


def test_a_batch_is_checked_stored_and_acked_in_this_order() -> None:
    bench = Bench(VOTER)
    sent = batch(LEADER)
    bench.step(MessageReceived(LEADER, BatchMessage(sent, None)))
    assert bench.all(CheckBatch) == [CheckBatch(LEADER, sent)]
    assert bench.said(Ack) == []
    effects = bench.step(BatchChecked(LEADER, sent.header.digest(), True))
    kinds = [type(effect) for effect in effects]
    assert kinds.index(StoreBatch) < kinds.index(Send)
    assert bench.said(Ack)[0].body.tip == Tip(LEADER, 1, sent.header.digest())


def test_a_batch_that_fails_its_check_is_neither_stored_nor_acked() -> None:
    bench = Bench(VOTER)
    bench.step(MessageReceived(LEADER, BatchMessage(batch(LEADER), None)))
    bench.step(BatchChecked(LEADER, batch(LEADER).header.digest(), False))
    bench.step(MessageReceived(LEADER, BatchMessage(batch(LEADER), None)))
    assert (bench.all(StoreBatch), bench.said(Ack), len(bench.all(CheckBatch))) == ([], [], 1)


@pytest.mark.parametrize(
    "sent",
    [
        replace(batch(LEADER), payload=b"another"),
        replace(batch(LEADER), signature=bytes(64)),
        batch(LEADER, parent=b"x" * 32),
        batch(LEADER, sequence=18),
        batch(OTHERS[1] if OTHERS[0] == LEADER else OTHERS[0]),
    ],
    ids=["payload", "signature", "parent", "far ahead", "not its owner"],
)
def test_a_batch_out_of_order_or_not_signed_by_its_owner_is_not_even_checked(sent: Batch) -> None:
    bench = Bench(VOTER)
    bench.step(MessageReceived(LEADER, BatchMessage(sent, None)))
    assert bench.all(CheckBatch) == []


def test_batches_out_of_order_are_acked_in_order_and_a_gap_is_asked_for() -> None:
    bench = Bench(VOTER)
    first = batch(LEADER)
    second = batch(LEADER, 2, b"q", first.header.digest())
    bench.step(MessageReceived(LEADER, BatchMessage(second, None)))
    bench.step(BatchChecked(LEADER, second.header.digest(), True))
    assert bench.said(Ack) == []
    bench.step(Tick(), after_ms=TIMING.leader_timeout_ms // 2)
    assert bench.said(BatchRequest) == [BatchRequest(Tip(LEADER, 1, first.header.digest()), 1)]
    bench.step(MessageReceived(LEADER, BatchMessage(first, None)))
    bench.step(BatchChecked(LEADER, first.header.digest(), True))
    assert [ack.body.tip.sequence for ack in bench.said(Ack)] == [1, 2]


def test_a_forked_lane_is_evidence_whether_the_first_branch_is_held_or_waiting() -> None:
    for held in (True, False):
        bench = Bench(VOTER)
        first, second = batch(LEADER), batch(LEADER, payload=b"q")
        bench.step(MessageReceived(LEADER, BatchMessage(first, None)))
        if held:
            bench.step(BatchChecked(LEADER, first.header.digest(), True))
        bench.step(MessageReceived(LEADER, BatchMessage(second, None)))
        (misbehaviour,) = bench.all(Misbehaviour)
        assert misbehaviour.evidence.fault is Fault.CONFLICTING_BATCHES
        assert evidence_fault(misbehaviour.evidence, VALIDATORS, CHAIN_ID) is None


def test_a_lane_as_far_ahead_as_it_may_be_takes_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("consensus.lanes.LANE_AHEAD_MAX", 2)
    bench = Bench(VOTER)
    assert bench.replica.lane_room == 2
    bench.step(SealBatch(b"1"))
    bench.step(SealBatch(b"2"))
    assert bench.replica.lane_room == 0
    with pytest.raises(LaneFull, match="2 batches ahead"):
        bench.step(SealBatch(b"3"))


def test_own_batches_are_unproven_until_peers_hold_them() -> None:
    bench = Bench(VOTER)
    for payload in (b"1", b"2", b"3"):
        bench.step(SealBatch(payload))
    assert bench.replica.lane_unproven == 3
    second = bench.all(StoreBatch)[1].batch.header
    body = AckBody(0, Tip(VOTER, 2, second.digest()))
    peer = OTHERS[0]  # with the owner itself more than a third, so one of them is honest
    bench.step(MessageReceived(peer, sign_ack(SIGNERS[peer], CHAIN_ID, peer, body)))
    assert bench.replica.lane_unproven == 1


def test_unacked_batches_are_sent_again_ever_more_slowly() -> None:
    bench = Bench(VOTER)
    bench.step(SealBatch(b"payload"))
    digest = bench.all(StoreBatch)[0].batch.header.digest()
    pace_ms = TIMING.leader_timeout_ms // 2
    times = []
    for _ in range(30 * pace_ms // 100):
        effects = bench.step(Tick(), after_ms=100)
        if any(isinstance(effect, LoadBatch) for effect in effects):
            times.append(bench.now_ms - NOW_MS)
    assert times[:4] == [pace_ms, 2 * pace_ms, 4 * pace_ms, 8 * pace_ms]
    peers = [effect.peer for effect in bench.all(LoadBatch)][:3]
    assert peers == list(OTHERS)
    assert bench.all(LoadBatch)[0] == LoadBatch(OTHERS[0], VOTER, 1, digest, 1)


# --- catching up --------------------------------------------------------------------------------


def finalized_block() -> tuple[Block, Blocks]:
    block = first_proposal().block
    return block, Blocks((block,), certificate(VoteKind.FINALIZE, block))


def test_blocks_under_a_finalization_are_committed() -> None:
    block, blocks = finalized_block()
    bench = Bench(VOTER)
    bench.step(MessageReceived(OTHERS[0], blocks))
    assert [effect.block for effect in bench.all(Deliver)] == [block]
    assert bench.replica.view == 2


@pytest.mark.parametrize("kind", ["notarized", "other block", "quorum", "parent", "vrf", "empty"])
def test_blocks_that_are_not_proven_final_are_ignored(kind: str) -> None:
    block, blocks = finalized_block()
    wrong = {
        "notarized": replace(blocks, certificate=certificate(VoteKind.NOTARIZE, block)),
        "other block": replace(blocks, blocks=(replace(block, timestamp_ms=NOW_MS),)),
        "quorum": replace(blocks, certificate=certificate(VoteKind.FINALIZE, block, (0, 1))),
        "empty": replace(blocks, blocks=()),
    }
    for name, changes in (("parent", {"parent": b"x" * 32}), ("vrf", {"vrf_proof": bytes(80)})):
        changed = replace(block, **changes)  # type: ignore[arg-type]
        wrong[name] = Blocks((changed,), certificate(VoteKind.FINALIZE, changed))
    bench = Bench(VOTER)
    bench.step(MessageReceived(OTHERS[0], wrong[kind]))
    assert bench.replica.finalized_height == 0


def test_a_finalization_of_an_unknown_block_makes_the_replica_ask_one_peer_after_the_other() -> (
    None
):
    block, _ = finalized_block()
    bench = Bench(VOTER)
    proof = certificate(VoteKind.FINALIZE, block)
    bench.step(MessageReceived(OTHERS[0], Certificates((proof,))))
    for _ in range(3):
        bench.step(Tick(), after_ms=TIMING.leader_timeout_ms // 2)
    requests = [effect.peer for effect in bench.all(Send) if effect.message == BlocksRequest(1)]
    assert len(requests) == 4
    assert len(set(requests)) == 3
    assert VOTER not in requests


def test_missing_final_batches_are_fetched_and_delivery_waits_for_them() -> None:
    held = batch(OTHERS[0])
    tip = Tip(OTHERS[0], 1, held.header.digest())
    block = first_proposal(cut=(tip,)).block
    bench = Bench(VOTER)
    bench.step(MessageReceived(OTHERS[1], Blocks((block,), certificate(VoteKind.FINALIZE, block))))
    assert bench.all(Deliver) == []
    assert bench.said(BatchRequest) == [BatchRequest(tip, 1)]
    bench.step(Tick(), after_ms=TIMING.leader_timeout_ms // 2)
    asked = [effect.peer for effect in bench.all(Send) if effect.message == BatchRequest(tip, 1)]
    assert asked[0] == OTHERS[0]
    assert asked[1] not in (OTHERS[0], VOTER)
    bench.step(MessageReceived(asked[1], BatchMessage(replace(held, payload=b"forged"), None)))
    assert bench.all(Deliver) == []
    bench.step(MessageReceived(asked[1], BatchMessage(held, None)))
    assert bench.all(StoreBatch) == [StoreBatch(held)]
    (increment,) = bench.all(Deliver)[0].increments
    assert (increment.first_sequence, increment.last_sequence) == (1, 1)
    assert increment.digests == (tip.digest,)


@pytest.mark.parametrize("oldest_first", [True, False])
def test_many_final_batches_are_fetched_with_one_request_in_whatever_order_they_come(
    oldest_first: bool,
) -> None:
    lane = OTHERS[0]
    batches = [batch(lane)]
    for sequence in range(2, 21):
        parent = batches[-1].header.digest()
        batches.append(batch(lane, sequence, bytes([sequence]), parent))
    tip = Tip(lane, 20, batches[-1].header.digest())
    block = first_proposal(cut=(tip,)).block
    bench = Bench(VOTER)
    final = Blocks((block,), certificate(VoteKind.FINALIZE, block))
    bench.step(MessageReceived(OTHERS[1], final))
    for each in batches if oldest_first else reversed(batches):
        bench.step(MessageReceived(OTHERS[1], BatchMessage(each, None)), after_ms=1)
    assert bench.said(BatchRequest) == [BatchRequest(tip, 20)]
    (delivered,) = bench.all(Deliver)
    digests = tuple(each.header.digest() for each in batches)
    assert delivered.increments[0].digests == digests
    assert {effect.batch for effect in bench.all(StoreBatch)} == set(batches)


def test_a_timer_that_rang_early_is_set_again() -> None:
    bench = Bench(VOTER)
    at_ms = bench.wake_at_ms()
    effects = bench.step(Tick(), after_ms=at_ms - bench.now_ms - 1)
    assert WakeAt(at_ms) in effects


@pytest.mark.parametrize("peer", [OTHERS[1], 9], ids=["validator", "observer"])
def test_a_lagging_peer_is_given_the_finalization_and_then_the_blocks(peer: int) -> None:
    _, blocks = finalized_block()
    bench = Bench(VOTER)
    bench.step(MessageReceived(OTHERS[0], blocks))
    for _ in range(2):
        bench.step(MessageReceived(peer, Status(1, 0, 0, ())))
    help_given = Send(peer, Certificates((blocks.certificate,)))
    assert bench.effects.count(help_given) == 1
    bench.step(MessageReceived(peer, BlocksRequest(1)))
    assert bench.all(LoadBlocks) == [LoadBlocks(peer, 1)]
    bench.step(MessageReceived(peer, BlocksRequest(2)))
    assert len(bench.all(LoadBlocks)) == 1


def test_a_new_connection_is_told_where_we_stand() -> None:
    bench = Bench(VOTER)
    bench.step(PeerConnected(OTHERS[0]))
    assert bench.effects[-1] == Send(OTHERS[0], Status(1, 0, 0, ()))


# --- other seats --------------------------------------------------------------------------------


def test_a_single_validator_makes_a_chain_of_its_own() -> None:
    validators, (signer,), _ = make_validators((7,), real=True)
    replica = Replica.recover(config(0, validators), signer, Recovered(), NOW_MS)
    effects = replica.step(Start(), NOW_MS)
    effects += replica.step(SealBatch(b"payload"), NOW_MS + 1)
    for step in range(2, 8):
        effects += replica.step(Tick(), NOW_MS + 100 * step)
        done = [e for e in effects if isinstance(e, Deliver)]
        for delivered in done[replica.executed_height :]:
            height = delivered.block.height
            effects += replica.step(Executed(height, sha256(bytes([height]))), NOW_MS + 100 * step)
    delivered_blocks = [e for e in effects if isinstance(e, Deliver)]
    assert delivered_blocks[0].increments[0].last_sequence == 1
    assert replica.finalized_height == len(delivered_blocks)


def test_more_batches_than_one_block_takes_become_final_in_several(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for module in ("lanes", "proposals"):
        monkeypatch.setattr(f"consensus.{module}.CUT_BATCHES_MAX", 3)
    validators, (signer,), _ = make_validators((7,), real=True)
    replica = Replica.recover(config(0, validators), signer, Recovered(), NOW_MS)
    effects = replica.step(Start(), NOW_MS)
    for number in range(8):
        effects += replica.step(SealBatch(bytes([number])), NOW_MS)
    for step in range(1, 12):
        effects += replica.step(Tick(), NOW_MS + 100 * step)
        done = [e for e in effects if isinstance(e, Deliver)]
        for delivered in done[replica.executed_height :]:
            height = delivered.block.height
            effects += replica.step(Executed(height, sha256(bytes([height]))), NOW_MS + 100 * step)
    increments = [e.increments[0] for e in effects if isinstance(e, Deliver) and e.increments]
    sizes = [len(increment.digests) for increment in increments]
    assert max(sizes) == 3
    assert sum(sizes) == 8
    assert increments[-1].last_sequence == 8


def test_an_observer_follows_and_signs_nothing() -> None:
    replica = Replica.recover(config(None), None, Recovered(), NOW_MS)
    effects = replica.step(Start(), NOW_MS)
    block, blocks = finalized_block()
    effects += replica.step(MessageReceived(LEADER, sign_proposal(block)), NOW_MS + 1)
    effects += replica.step(MessageReceived(LEADER, blocks), NOW_MS + 2)
    effects += replica.step(Tick(), NOW_MS + 60_000)
    assert replica.delivered_height == 1
    assert replica.lane_room == 0
    said = [e.message for e in effects if isinstance(e, Send)]
    assert all(isinstance(message, Status | BlocksRequest) for message in said)
