"""A chain that a real ledger executes into a real store: signed transfers in batches, blocks with
cuts and certificates, one after another. Everything follows from the height, so two such chains
are equal."""

import asyncio
from dataclasses import replace

from assay.v1 import transactions_pb2
from chain.node.worker import LedgerWorker, open_ledger
from chain.store import Store
from chain.transactions import make_operation, sign_transaction
from consensus.beacon import genesis_beacon, next_beacon
from consensus.events import Deliver, LaneIncrement
from consensus.values import Batch, BatchHeader, Block, Tip
from consensus.vrf import VrfKey, output_of, prove
from ext.hashing import sha256
from tests.builders import block, certify, genesis, key

TRANSFERS = 2
"""In each block, each to an account of its own."""
MAX_FEE = 10**9
NO_PARENT = bytes(32)


def transfers(height: int, chain_id: str) -> list[transactions_pb2.SignedTx]:
    """The transactions of a block."""
    signed = []
    for index in range(TRANSFERS):
        receiver = key(f"receiver-{height % 7}-{index}").public_key
        operation = make_operation(transactions_pb2.Transfer(to=receiver, amount=1_000 + height))
        signed.append(
            sign_transaction(
                key("alice").signing_key,
                chain_id,
                [operation],
                valid_until_height=height + 10,
                max_fee=MAX_FEE,
                salt=height * TRANSFERS + index,
            )
        )
    return signed


class ExecutedChain:
    """Goes on where the store stands, whatever was pruned."""

    def __init__(self, store: Store, proves: bool = False) -> None:
        """`proves` makes the leaders' VRF proofs, a few milliseconds each."""
        self.store = store
        self._proves = proves
        self.genesis = genesis()
        self.worker = LedgerWorker(self.genesis, store)

    def commit(self, count: int = 1) -> None:
        """Execute more blocks; each makes one batch of one lane final."""
        for _ in range(count):
            self._commit()

    def close(self) -> None:
        """End the ledger's thread."""
        self.worker.close()

    def _commit(self) -> None:
        height = (self.store.height or 0) + 1
        lane = height % 4
        found = self.store.final_block(height - 1)
        parent = found[0] if found else None
        tips = {tip.lane: tip for tip in parent.cut} if parent else {}
        batch = self._batch(height, lane, tips.get(lane))
        self.store.put_batch(batch, sync=False)
        sequence, digest = batch.header.sequence, batch.header.digest()
        tips[lane] = Tip(lane, sequence, digest)
        fresh, beacon = self.store.final_block(height) or self._block(
            height, found, tuple(tips[at] for at in sorted(tips))
        )
        deliver = Deliver(
            fresh,
            beacon,
            certify(self.genesis, fresh),
            (LaneIncrement(lane, sequence, sequence, (digest,)),),
        )
        asyncio.run(self.worker.execute(deliver))

    def _block(
        self, height: int, below: tuple[Block, bytes] | None, cut: tuple[Tip, ...]
    ) -> tuple[Block, bytes]:
        """The next block and its beacon."""
        genesis_digest = self.genesis.digest()
        parent = genesis_digest if below is None else below[0].digest()
        executed = max(0, height - 2)
        root = self.store.execution_root_at(executed)
        if root is None:  # a store that began in between: as a proposer does
            assert below is not None
            executed, root = below[0].executed_height, below[0].executed_root
        fresh = block(height, parent, (executed, root), cut)
        if not self._proves:
            return fresh, sha256(f"beacon-{height}".encode())
        alpha = genesis_beacon(genesis_digest) if below is None else below[1]
        proof = prove(VrfKey.from_secret(key(f"vrf-{fresh.proposer}").seed), alpha)
        return replace(fresh, vrf_proof=proof), next_beacon(alpha, output_of(proof))

    def _batch(self, height: int, lane: int, tip: Tip | None) -> Batch:
        payload = transactions_pb2.BatchPayload(
            transactions=transfers(height, self.genesis.chain_id)
        ).SerializeToString()
        sequence, parent = (0, NO_PARENT) if tip is None else (tip.sequence, tip.digest)
        header = BatchHeader(0, lane, sequence + 1, parent, sha256(payload))
        return Batch(header, bytes(64), payload)


def state_root(store: Store) -> bytes:
    """Of the ledger rebuilt from the store's rows; equal to what the newest block says."""
    root = open_ledger(genesis(), store).state_root()
    assert store.height is not None
    assert root == store.state_root_at(store.height)
    return root
