"""What is fetched before a final block is handed over, and what is said of lanes meanwhile."""

from dataclasses import replace

from consensus.blocktree import Node, root_node
from consensus.certificates import RealChecks
from consensus.context import Context
from consensus.delivery import WALKING_BLOCKS_MAX, Delivery
from consensus.events import Deliver, Send
from consensus.lanes import Cut, Lanes
from consensus.messages import Ack, BatchMessage
from consensus.values import ZERO_HASH, Batch, BatchHeader, Tip
from ext.hashing import sha256
from tests.consensus.harness import CHAIN_ID, NOW_MS, SIGNERS, config

OWN = 3
SLOW, QUICK = 0, 1
"""Lanes: of the first batches are missing."""


def batch(lane: int, sequence: int, parent: bytes) -> Batch:
    payload = b"%d %d" % (lane, sequence)
    header = BatchHeader(0, lane, sequence, parent, sha256(payload))
    return Batch(header, SIGNERS[lane].sign(header.signed_message(CHAIN_ID)), payload)


def tip_of(batch: Batch) -> Tip:
    return Tip(batch.header.lane, batch.header.sequence, batch.header.digest())


class Behind:
    """A validator that learned that many blocks are final, and holds no batch of theirs."""

    def __init__(self) -> None:
        self.context = Context(config(OWN), SIGNERS[OWN], RealChecks(), NOW_MS)
        genesis = root_node(config(OWN))
        self.lanes = Lanes(self.context, ())
        self.delivery = Delivery(self.context, self.lanes, genesis)
        self.slow: list[Batch] = []
        for sequence in range(1, WALKING_BLOCKS_MAX + 1):
            parent = self.slow[-1].header.digest() if self.slow else ZERO_HASH
            self.slow.append(batch(SLOW, sequence, parent))
        self.quick = batch(QUICK, 1, ZERO_HASH)
        cuts: list[Cut] = [(tip_of(one),) for one in self.slow]
        cuts.append((tip_of(self.slow[-1]), tip_of(self.quick)))
        self.lanes.finalize(cuts[-1])
        for height, cut in enumerate(cuts, start=1):
            block = replace(genesis.block, height=height, view=height, cut=cut)
            self.delivery.add(Node(block, block.digest(), b""), None)
        self.delivery.advance()

    def receive(self, batch: Batch) -> None:
        digest = self.lanes.receive_batch(batch.header.lane, BatchMessage(batch, None))
        if digest is not None:
            self.delivery.stored(digest)

    def acked(self) -> list[Tip]:
        sent = [effect.message for effect in self.context.effects if isinstance(effect, Send)]
        return [message.body.tip for message in sent if isinstance(message, Ack)]

    def delivered(self) -> int:
        return sum(isinstance(effect, Deliver) for effect in self.context.effects)


def test_a_final_batch_that_is_missing_is_not_acked_however_far_behind_its_block_waits() -> None:
    behind = Behind()
    behind.receive(behind.quick)  # its owner says it again; no walk has asked for it yet
    assert behind.acked() == []


def test_once_nothing_is_missing_everything_is_delivered() -> None:
    behind = Behind()
    for one in behind.slow:
        behind.receive(one)
    assert behind.delivered() == WALKING_BLOCKS_MAX
    behind.receive(behind.quick)
    assert behind.delivered() == WALKING_BLOCKS_MAX + 1
    assert behind.lanes.incomplete == set()
    behind.receive(behind.quick)
    assert behind.acked() == [tip_of(behind.quick)]
