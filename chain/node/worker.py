"""The ledger's own thread: it alone touches the ledger, so that no lock is needed and no vote
waits.

Everything the event loop wants of the ledger (a balance, an admission check, the execution of a
block) is a function handed to this thread and awaited.
"""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

import numpy as np

from chain.contacts import Contacts
from chain.execution import BlockContext, BlockOutcome, LaneBatch, Ledger, LedgerMeta
from chain.genesis import Genesis
from chain.state import StateError
from chain.store import BlockCommit, JobOrigin, Store, StoreError
from chain.transactions import Transaction
from consensus.beacon import genesis_beacon
from consensus.events import Deliver
from consensus.values import Batch
from ext.signatures import verify_batch
from ext.transactions import ParsedBatch, ParseError, parse_batch

READS_MAX = 16
"""Before a block on the ledger's thread; however many more are asked for, they wait behind it."""

T = TypeVar("T")


class LedgerWorker:
    """Owns a ledger and writes its blocks to the store, on one thread."""

    def __init__(
        self,
        genesis: Genesis,
        store: Store,
        after_block: Callable[[int], None] = lambda _: None,
    ) -> None:
        """`after_block` is called with each height that was committed, before the next is begun."""
        self._genesis = genesis
        self._after_block = after_block
        self._store = store
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="ledger")
        self._ledger = open_ledger(genesis, store)
        self._reads = asyncio.Semaphore(READS_MAX)

    async def read(self, function: Callable[[Ledger], T]) -> T:
        """Run a function on the ledger between two blocks; it must not keep the ledger."""
        loop = asyncio.get_running_loop()
        async with self._reads:
            return await loop.run_in_executor(self._thread, lambda: function(self._ledger))

    def read_at_start(self, function: Callable[[Ledger], T]) -> T:
        """The same while there is no event loop's work to hold up."""
        return self._thread.submit(lambda: function(self._ledger)).result()

    async def admit(self, transaction: Transaction) -> None:
        """Raise Rejection if the transaction would fail in the next block."""
        await self.read(lambda ledger: ledger.admit(transaction))

    async def execute(self, deliver: Deliver) -> BlockOutcome:
        """Execute a final block whose batches are stored, and commit it durably."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, self._execute, deliver)

    def close(self) -> None:
        """Finish what is running, then stop."""
        self._thread.shutdown(wait=True)

    def _execute(self, deliver: Deliver) -> BlockOutcome:
        outcome = self._ledger.execute(block_context(deliver), read_lanes(self._store, deliver))
        commit_outcome(self._store, self._ledger, deliver, outcome)
        self._after_block(deliver.block.height)
        return outcome


def read_lanes(store: Store, deliver: Deliver) -> list[LaneBatch]:
    """The batches that a final block names, in order, parsed. They must be stored."""
    lanes = []
    for increment in deliver.increments:
        for digest in increment.digests:
            batch = store.batch_by_digest(digest)
            if batch is None:
                raise RuntimeError(f"batch {digest.hex()} of a delivered block is not stored")
            lanes.append(LaneBatch(batch.header.lane, parse_batch(batch.payload)))
    return lanes


def block_context(deliver: Deliver) -> BlockContext:
    """What execution needs to know of a final block."""
    block = deliver.block
    return BlockContext(block.height, block.timestamp_ms, deliver.beacon, block.proposer)


def commit_outcome(store: Store, ledger: Ledger, deliver: Deliver, outcome: BlockOutcome) -> None:
    """Make a block and what its execution changed durable; `ledger` stands right behind it."""
    # Whatever is under appeal still needs its payloads, too.
    needed = [*islice(ledger.open_jobs(), 1), *ledger.appealed_jobs()]
    oldest = min((job.requested_height for _, job in needed), default=None)
    store.commit_block(
        BlockCommit(
            block=deliver.block,
            beacon=deliver.beacon,
            certificate=deliver.certificate,
            link=outcome.link,
            execution_root=outcome.execution_root,
            receipt_leaves=outcome.receipts,
            events=outcome.events,
            journal=outcome.journal,
            accounts=outcome.accounts,
            oldest_open_height=oldest,
            payloads=outcome.payloads,
            job_origins=[
                JobOrigin(new.job, new.transaction, new.operation) for new in outcome.new_jobs
            ],
        )
    )


def open_ledger(genesis: Genesis, store: Store) -> Ledger:
    """The ledger at the store's height; an empty store is given the state of genesis.

    Raises StoreError if the stored tables do not hash to the stored execution root.
    """
    if store.height is None:
        ledger = genesis_ledger(genesis)
        commit_genesis(store, ledger, genesis_beacon(genesis.digest()))
        return ledger
    if store.height == 0:
        return genesis_ledger(genesis)
    return stored_ledger(genesis.chain_id, store, store.height)


def commit_genesis(store: Store, ledger: Ledger, beacon: bytes) -> None:
    """Write the state of height 0 into an empty store."""
    store.commit_genesis(
        ledger.genesis_link(),
        ledger.execution_root,
        beacon,
        tuple(ledger.to_records()),
        b"".join(ledger.account_chunks()),
    )


def stored_ledger(chain_id: str, store: Store, height: int) -> Ledger:
    """The ledger that a store holds, whose newest executed height is given.

    Raises StoreError if the stored tables are not of this version, or do not hash to the stored
    state root.
    """
    stored = store.block_by_height(height)
    if stored is None:
        raise StoreError(f"block {height} is missing; restore this home from a snapshot")
    meta = LedgerMeta(height, stored.block.timestamp_ms, stored.execution_root)
    try:
        ledger = Ledger.from_records(chain_id, meta, store.load_records(), store.load_accounts())
    except StateError as error:
        raise StoreError(
            f"the tables at height {height} are not what this version writes: {error}; use the "
            "version that wrote them, or restore this home from a snapshot"
        ) from error
    if ledger.state_root() != stored.link.state_root:
        raise StoreError(
            f"the tables at height {height} hash to {ledger.state_root().hex()}, the block "
            f"says {stored.link.state_root.hex()}; restore this home from a snapshot"
        )
    return ledger


def genesis_ledger(genesis: Genesis) -> Ledger:
    """The ledger at height 0."""
    return Ledger.from_genesis(
        genesis.chain_id,
        genesis.parameters,
        genesis.validator_set(),
        genesis.balances(),
        genesis.treasury,
        genesis.genesis_time_ms,
        Contacts.of_genesis(genesis).all,
    )


def check_payloads(chain_id: str, batches: Sequence[Batch]) -> list[bool]:
    """For each batch whether it holds only transactions that parse and are rightly signed.

    Operations are not judged here: that is execution's, against the state of its block.
    """
    parsed = [_parsed(batch) for batch in batches]
    signed = are_rightly_signed(chain_id, [payload for payload in parsed if payload is not None])
    verdicts = iter(signed)
    return [payload is not None and next(verdicts) for payload in parsed]


def _parsed(batch: Batch) -> ParsedBatch | None:
    try:
        return parse_batch(batch.payload)
    except ParseError:
        return None


def are_rightly_signed(chain_id: str, payloads: Sequence[ParsedBatch]) -> list[bool]:
    """Whether every transaction of each payload is signed by its public key, for this chain.

    All are checked in one batch: the more there are together, the less one costs. A bad one is
    found out and fails its payload alone.
    """
    if not payloads:
        return []
    valid = verify_batch(
        np.concatenate([payload.public_keys for payload in payloads]),
        np.concatenate([payload.signing_digests(chain_id.encode()) for payload in payloads]),
        np.concatenate([payload.signatures for payload in payloads]),
    )
    ends = np.cumsum([len(payload) for payload in payloads])[:-1]
    return [bool(part.all()) for part in np.split(valid, ends)]
