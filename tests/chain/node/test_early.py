"""What comes before its epoch waits for it, within bounds."""

from chain.node.early import EARLY_BYTES_MAX, EARLY_BYTES_MAX_BY_PEER, Early, epoch_of
from consensus.messages import BlocksRequest, Certificates, Message, Status
from consensus.values import Vote, VoteBody, VoteKind


def a_vote(view: int, epoch: int = 1) -> Vote:
    return Vote(VoteBody(VoteKind.NOTARIZE, epoch, view, 0, bytes(32)), 0, bytes(64))


def released(early: Early) -> list[tuple[int, Message]]:
    found: list[tuple[int, Message]] = []
    early.release(lambda peer, message, size: found.append((peer, message)))
    return found


def test_messages_come_out_once_in_the_order_they_came() -> None:
    early = Early()
    for peer, view in ((1, 5), (2, 5), (1, 6)):
        early.keep(peer, a_vote(view), 100)
    assert released(early) == [(1, a_vote(5)), (2, a_vote(5)), (1, a_vote(6))]
    assert released(early) == []


def test_neither_one_peer_nor_all_fill_the_memory() -> None:
    early = Early()
    size = EARLY_BYTES_MAX_BY_PEER // 4
    for peer in range(100):
        for view in range(10):
            early.keep(peer, a_vote(view), size)
    kept = [peer for peer, _ in released(early)]
    assert all(kept.count(peer) <= 4 for peer in kept)
    assert len(kept) * size <= EARLY_BYTES_MAX
    assert len(kept) > 4
    early.keep(0, a_vote(1), size)
    assert len(released(early)) == 1


def test_what_belongs_to_no_epoch_has_none() -> None:
    assert epoch_of(a_vote(1, epoch=7)) == 7
    assert epoch_of(Certificates(())) is None
    assert epoch_of(BlocksRequest(1)) is None
    assert epoch_of(Status(1, 0, 0, (), 7)) is None  # it is looked at whatever its epoch
