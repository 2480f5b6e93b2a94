"""A validator whose vote log is gone signs nothing that could contradict what it signed before."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consensus.certificates import assemble_certificate, nullify_body, sign_vote
from consensus.events import (
    FinalBlock,
    MessageReceived,
    PeerConnected,
    Persist,
    Recovered,
    SealBatch,
    Send,
    Start,
    StoreBatch,
    Tick,
)
from consensus.journal import FORGOTTEN, HANDED_ON, Watermark, decode_record, encode_record
from consensus.messages import (
    LATER_VIEWS,
    BatchMessage,
    BatchRequest,
    Certificates,
    Proposal,
    Status,
)
from consensus.replica import Replica
from consensus.sim.crypto import make_validators
from consensus.values import Batch, BatchHeader, Certificate, Tip, Vote, VoteKind
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
)

OWN = 3
OTHERS = (0, 1, 2)


def forgetful(*records: Watermark) -> Bench:
    log = tuple(encode_record(record) for record in records or (FORGOTTEN,))
    return Bench(OWN, Recovered(wal_records=log))


def status(view: int, *tips: Tip) -> Status:
    return Status(view, 0, 0, tips)


def nullification(view: int) -> Certificate:
    return certificate(VoteKind.NULLIFY, None, OTHERS, view)


def batch(sequence: int, parent: bytes, payload: bytes = b"p") -> Batch:
    header = BatchHeader(0, OWN, sequence, parent, sha256(payload))
    return Batch(header, SIGNERS[OWN].sign(header.signed_message(CHAIN_ID)), payload)


def tip_of(batch: Batch) -> Tip:
    return Tip(OWN, batch.header.sequence, batch.header.digest())


def go_to(bench: Bench, view: int) -> None:
    """Let the others have given up every view before this one."""
    bench.step(MessageReceived(0, Certificates((nullification(view - 1),))))
    assert bench.replica.view == view


def wait_for_votes(bench: Bench) -> None:
    """As long as any view lasts that nobody else moves on."""
    for _ in range(40):
        bench.step(Tick(), after_ms=TIMING.leader_timeout_ms)


def spoken_views(bench: Bench) -> set[int]:
    proposals = {proposal.block.view for proposal in bench.said(Proposal)}
    return proposals | {vote.body.view for vote in bench.said(Vote)}


def test_it_is_silent_while_it_has_not_heard_enough() -> None:
    bench = forgetful()
    go_to(bench, 9)
    bench.step(MessageReceived(0, status(9)))
    wait_for_votes(bench)
    assert spoken_views(bench) == set()
    assert "once peers with" in bench.replica.silence


def test_it_speaks_two_views_after_the_newest_that_the_others_were_in() -> None:
    bench = forgetful()
    go_to(bench, 9)
    for peer in (0, 1):
        bench.step(MessageReceived(peer, status(9)))
    assert (
        bench.replica.silence
        == "the vote log is new: this validator votes from view 11 on, now is 9"
    )
    for view in (9, 10):
        go_to(bench, view) if view > 9 else None
        wait_for_votes(bench)
        assert spoken_views(bench) == set()
    go_to(bench, 11)
    wait_for_votes(bench)
    assert spoken_views(bench) == {11}
    assert bench.replica.silence == ""


def test_what_it_learned_is_durable_and_binds_after_a_restart() -> None:
    bench = forgetful()
    go_to(bench, 9)
    for peer in (0, 1):
        bench.step(MessageReceived(peer, status(9)))
    kept = [decode_record(effect.record) for effect in bench.all(Persist)]
    assert Watermark(10, True) in kept  # its lane never had a batch
    again = forgetful(FORGOTTEN, Watermark(10, True))
    go_to(again, 10)
    wait_for_votes(again)
    assert spoken_views(again) == set()
    go_to(again, 11)
    wait_for_votes(again)
    assert spoken_views(again) == {11}


def test_who_claims_a_view_without_a_certificate_is_not_heard() -> None:
    bench = forgetful()
    go_to(bench, 9)
    bench.step(MessageReceived(0, status(1 << 60)))
    bench.step(MessageReceived(1, status(9)))
    assert "once peers with" in bench.replica.silence
    bench.step(MessageReceived(2, status(9)))
    assert "from view 11 on" in bench.replica.silence


def test_where_no_certificate_exists_there_is_nothing_to_remember() -> None:
    bench = forgetful()
    for peer in (0, 1):
        bench.step(MessageReceived(peer, status(1)))
    assert bench.replica.silence == ""
    assert bench.replica.lane_room > 0
    wait_for_votes(bench)
    assert 1 in spoken_views(bench)


@pytest.mark.parametrize(("record", "speaks"), [(HANDED_ON, True), (FORGOTTEN, False)])
def test_in_an_epochs_first_view_who_lost_its_log_there_is_silent_and_who_lost_it_before_is_not(
    record: Watermark, speaks: bool
) -> None:
    boundary = replace(first_proposal().block, height=4, view=6)
    second = replace(
        config(OWN),
        validators=replace(VALIDATORS, epoch=1),
        epoch_blocks=4,
        root=FinalBlock(boundary, bytes(32)),
    )
    executed = tuple((height, bytes(32)) for height in range(1, 5))
    log = (encode_record(record),)
    bench = Bench(OWN, Recovered(wal_records=log, executed=executed), second)
    for peer in OTHERS:
        bench.step(MessageReceived(peer, replace(status(7), epoch=1)))
    wait_for_votes(bench)
    assert (7 in spoken_views(bench)) == speaks
    assert (bench.replica.silence == "") == speaks


def test_a_log_that_goes_back_to_the_first_vote_needs_nobody() -> None:
    bench = Bench(OWN)
    assert bench.replica.silence == ""
    assert bench.replica.lane_room > 0


@given(
    heard=st.lists(st.tuples(st.sampled_from(OTHERS), st.integers(1, 12)), max_size=8),
    moves=st.lists(st.integers(2, 12), max_size=4),
)
@settings(max_examples=30, deadline=None)
def test_whatever_it_hears_it_never_speaks_before_two_were_heard_and_left_behind(
    heard: list[tuple[int, int]], moves: list[int]
) -> None:
    bench = forgetful()
    go_to(bench, 2)
    for peer, view in heard:
        bench.step(MessageReceived(peer, status(view)))
        bench.step(Tick(), after_ms=4 * TIMING.heartbeat_ms)
    for view in moves:
        if view > bench.replica.view:
            go_to(bench, view)
        bench.step(Tick(), after_ms=4 * TIMING.heartbeat_ms)
    shown = {peer for peer, view in heard if view <= bench.replica.view}
    if len(shown) < 2:
        assert spoken_views(bench) == set()
    assert all(view > 3 for view in spoken_views(bench))


# --- asking, and those who forgot as well ---------------------------------------------------------


def marked(view: int, *tips: Tip) -> Status:
    """As one says it that forgot what it signed."""
    return status(LATER_VIEWS + view, *tips)


def asked(bench: Bench) -> list[int]:
    """Peers that were sent a status, one by one, since the last look."""
    peers = [e.peer for e in bench.all(Send) if isinstance(e.message, Status)]
    bench.effects.clear()
    return peers


def test_whom_it_did_not_hear_it_asks_again_and_again_since_statuses_get_lost() -> None:
    bench = forgetful()
    assert asked(bench) == list(OTHERS)
    for _ in range(3):
        bench.step(Tick(), after_ms=TIMING.leader_timeout_ms)
        assert asked(bench) == list(OTHERS)
    bench.step(MessageReceived(1, status(1)))
    bench.step(Tick(), after_ms=TIMING.leader_timeout_ms)
    assert asked(bench) == [0, 2]
    bench.step(MessageReceived(0, status(1)))
    bench.step(Tick(), after_ms=TIMING.leader_timeout_ms)
    assert asked(bench) == []


def test_who_is_asked_says_where_it_stands_and_shows_it() -> None:
    bench = Bench(OWN)
    go_to(bench, 9)
    bench.effects.clear()
    bench.step(MessageReceived(0, marked(1)))
    told = [effect.message for effect in bench.all(Send) if effect.peer == 0]
    assert [message.view for message in told if isinstance(message, Status)] == [9]
    (shown,) = [message for message in told if isinstance(message, Certificates)]
    assert [certificate.body.view for certificate in shown.items] == [8]


def test_two_that_forgot_do_not_vouch_for_each_other() -> None:
    bench = forgetful()
    go_to(bench, 9)
    bench.step(MessageReceived(0, status(9)))
    bench.step(MessageReceived(1, marked(9)))
    assert "once peers with" in bench.replica.silence
    wait_for_votes(bench)
    assert spoken_views(bench) == set()
    bench.step(MessageReceived(2, status(9)))
    assert "from view 11 on" in bench.replica.silence


def test_a_chain_on_which_all_logs_are_new_begins() -> None:
    bench = forgetful()
    for peer in (0, 1):
        bench.step(MessageReceived(peer, marked(1)))
    assert bench.replica.silence == ""
    wait_for_votes(bench)
    assert 1 in spoken_views(bench)


def test_it_vouches_for_nothing_before_it_votes_again() -> None:
    bench = forgetful()
    go_to(bench, 9)
    for peer in (0, 1):
        bench.step(MessageReceived(peer, status(9)))
    for view in (9, 10, 11):
        go_to(bench, view) if view > 9 else None
        bench.effects.clear()
        bench.step(PeerConnected(2))
        (said,) = bench.said(Status)
        assert (said.is_forgetful, said.standing) == (view < 11, view)


def test_where_the_others_are_no_quorum_it_says_that_the_chain_stands_still_and_what_to_do() -> (
    None
):
    validators, signers, _ = make_validators((1, 1, 1), real=True)
    log = Recovered(wal_records=(encode_record(FORGOTTEN),))
    replica = Replica.recover(config(2, validators), signers[2], log, NOW_MS)
    replica.step(Start(), NOW_MS)
    body = nullify_body(0, 8)
    votes = {index: sign_vote(signers[index], CHAIN_ID, index, body) for index in range(3)}
    shown = Certificates((assemble_certificate(votes, body),))
    replica.step(MessageReceived(0, shown), NOW_MS)
    for peer in (0, 1):
        replica.step(MessageReceived(peer, status(9)), NOW_MS)
    assert replica.silence == (
        "the vote log is new: this validator votes from view 11 on, now is 9; the others are no "
        "quorum without it, so the chain stands still: stop it and put back the vote log of its "
        "last run, no older one; if that is gone for good, the chain needs a new genesis"
    )


# --- the own lane -------------------------------------------------------------------------------


def test_nothing_is_sealed_before_all_that_others_hold_of_the_lane_is_here_again() -> None:
    first = batch(1, bytes(32))
    second = batch(2, first.header.digest())
    bench = forgetful()
    go_to(bench, 9)
    bench.step(MessageReceived(0, status(9)))
    bench.step(MessageReceived(1, status(9, tip_of(second))))
    assert bench.replica.lane_room == 0
    (asked,) = [e for e in bench.all(Send) if isinstance(e.message, BatchRequest)]
    assert asked == Send(1, BatchRequest(tip_of(second), 2))
    for found in (second, first):  # newest first, as peers answer
        bench.step(MessageReceived(1, BatchMessage(found, None)))
    assert [effect.batch for effect in bench.all(StoreBatch)] == [first, second]
    assert bench.replica.lane_room == 0
    bench.step(MessageReceived(2, status(9)))
    assert bench.replica.lane_room > 0
    bench.step(SealBatch(b"new"))
    (sealed,) = [m.batch for m in bench.said(BatchMessage)]
    assert (sealed.header.sequence, sealed.header.parent) == (3, second.header.digest())


def test_a_batch_that_is_not_ours_is_not_taken_back() -> None:
    forged = replace(batch(1, bytes(32)), signature=bytes(64))
    bench = forgetful()
    go_to(bench, 9)
    for peer in OTHERS:
        bench.step(MessageReceived(peer, status(9, tip_of(forged))))
    bench.step(MessageReceived(1, BatchMessage(forged, None)))
    assert bench.all(StoreBatch) == []
    assert bench.replica.lane_room == 0


def test_one_that_is_not_heard_may_hold_a_batch() -> None:
    first = batch(1, bytes(32))
    bench = forgetful()
    go_to(bench, 9)
    bench.step(MessageReceived(1, status(9, tip_of(first))))
    bench.step(MessageReceived(1, BatchMessage(first, None)))
    bench.step(MessageReceived(0, status(9, tip_of(first))))
    assert bench.replica.lane_room == 0
    bench.step(MessageReceived(2, status(9)))
    assert bench.replica.lane_room > 0


# --- certificates that are none -----------------------------------------------------------------


def test_after_a_bad_certificate_a_peer_is_not_listened_to_for_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench = Bench(OWN)
    bad = replace(nullification(5), signatures=(bytes(64),) * 3)
    checked: list[Certificate] = []
    ballots = bench.replica._simplex.ballots
    verified = ballots.verified

    def count(one: Certificate) -> bool:
        checked.append(one)
        return verified(one)

    monkeypatch.setattr(ballots, "verified", count)
    flood = Certificates((bad,) * 32)
    for _ in range(10):
        bench.step(MessageReceived(0, flood))
    assert len(checked) == 1
    bench.step(MessageReceived(1, Certificates((nullification(5),))))
    assert bench.replica.view == 6
    bench.step(PeerConnected(0), after_ms=TIMING.leader_timeout_ms)
    bench.step(MessageReceived(0, Certificates((nullification(6),))))
    assert bench.replica.view == 7
