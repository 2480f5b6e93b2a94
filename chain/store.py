"""What a validator keeps on disk: batches, blocks, the ledger's tables, receipts, payloads.

One RocksDB. A block and everything its execution changed go in by one synced write batch, so a process
killed at any point reopens either before the block or after it, never between. The tables are kept
current in the same batch that carries the block's journal.

One thread writes (it owns `commit_genesis`, `commit_block`, `put_batch`); any thread may read.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from chain.records import ExecutionLink
from consensus.values import Batch, BatchHeader, Block, Certificate
from consensus.wire import U8, U32, U64, Hash, Size

RECORD_BYTES_MAX = 1 << 20


class StoreError(Exception):
    """The home directory cannot be used. The message says why and what to do."""


@dataclass(frozen=True, slots=True)
class StoredBlock:
    """A final block with what the node needs beside it."""

    block: Block
    beacon: Hash
    """After this block."""
    link: ExecutionLink
    execution_root: Hash


@dataclass(frozen=True, slots=True)
class JobOrigin:
    """Where a job comes from: job id = H("job", transaction id, operation as u32-LE)."""

    job: Hash
    transaction: Hash
    operation: U32


@dataclass(frozen=True, slots=True)
class LeafLocation:
    """Where a receipt stands: leaf `index` among the receipts of block `height`."""

    height: U64
    index: U32


Journal = Sequence[tuple[int, bytes, bytes | None]]
"""(table 0 to 255, key, value or None to delete)."""


@dataclass(frozen=True, slots=True)
class BlockCommit:
    """One executed block, as `commit_block` writes it."""

    block: Block
    beacon: bytes
    certificate: Certificate | None
    """The finalization certificate of this very block, if the node holds one."""
    link: ExecutionLink
    execution_root: bytes
    receipt_leaves: Sequence[bytes]
    """Leaf data in order; transactions and jobs are indexed from them."""
    events: Sequence[bytes]
    journal: Journal
    payloads: Sequence[tuple[bytes, bytes]] = ()
    """(digest, bytes) of requests and results, whose digests alone are in the ledger."""
    job_origins: Sequence[JobOrigin] = ()
    """Jobs requested in this block."""


class Store:
    """The database of one validator. Opening takes an exclusive lock until `close`."""

    def __init__(self, path: Path, chain_id: str, genesis_digest: bytes) -> None:
        """Open or create. Raises StoreError if in use, damaged, or of another chain."""
        raise NotImplementedError

    def close(self) -> None:
        """Release the lock; later calls raise StoreError. Closing twice is nothing."""
        raise NotImplementedError

    @property
    def height(self) -> int | None:
        """Of the newest committed block; 0 after genesis, None before."""
        raise NotImplementedError

    @property
    def execution_root(self) -> bytes | None:
        """After the newest committed block."""
        raise NotImplementedError

    def commit_genesis(self, link: ExecutionLink, execution_root: bytes, beacon: bytes, records: Journal) -> None:
        """Write height 0: the tables before any block. Raises StoreError if there is a state already."""
        raise NotImplementedError

    def commit_block(self, commit: BlockCommit) -> None:
        """Write one block and all its consequences, durable on return. ValueError if out of order."""
        raise NotImplementedError

    def put_certificate(self, height: int, certificate: Certificate) -> None:
        """Keep the finalization certificate of a block that is committed or will be."""
        raise NotImplementedError

    def put_batch(self, batch: Batch, sync: bool = True) -> None:
        """Keep a batch; with `sync` it is durable on return."""
        raise NotImplementedError

    def batch(self, lane: int, sequence: int) -> Batch | None:
        """The batch at a place of a lane."""
        raise NotImplementedError

    def batch_by_digest(self, digest: bytes) -> Batch | None:
        """The batch whose header has this digest."""
        raise NotImplementedError

    def batch_headers(self, lane: int, from_sequence: int, limit: int) -> list[BatchHeader]:
        """Headers of stored batches of a lane, in order of sequence."""
        raise NotImplementedError

    def lane_tip(self, lane: int) -> BatchHeader | None:
        """Header of the stored batch with the highest sequence."""
        raise NotImplementedError

    def load_records(self) -> Iterator[tuple[int, bytes, bytes]]:
        """All current (table, key, value), in order of table and key."""
        raise NotImplementedError

    def block_by_height(self, height: int) -> StoredBlock | None:
        """A committed block; height 0 has none."""
        raise NotImplementedError

    def block_by_digest(self, digest: bytes) -> StoredBlock | None:
        """A committed block by its digest."""
        raise NotImplementedError

    def blocks_from(self, height: int, limit: int) -> list[StoredBlock]:
        """Up to `limit` committed blocks from `height` on, in order."""
        raise NotImplementedError

    def execution_root_at(self, height: int) -> bytes | None:
        """After the block of that height; 0 is genesis."""
        raise NotImplementedError

    def certificate_at(self, height: int) -> tuple[int, Certificate] | None:
        """The finalization certificate of `height` or of its nearest certified descendant, and whose."""
        raise NotImplementedError

    def receipts_at(self, height: int) -> tuple[bytes, ...]:
        """Leaf data of a block's receipts, in order."""
        raise NotImplementedError

    def events_at(self, height: int) -> tuple[bytes, ...]:
        """Leaf data of a block's events, in order."""
        raise NotImplementedError

    def transaction_location(self, transaction: bytes) -> LeafLocation | None:
        """Where an included transaction's receipt is."""
        raise NotImplementedError

    def job_location(self, job: bytes) -> LeafLocation | None:
        """Where a finished job's receipt is."""
        raise NotImplementedError

    def job_origin(self, job: bytes) -> JobOrigin | None:
        """Which operation asked for a job."""
        raise NotImplementedError

    def payload(self, digest: bytes) -> bytes | None:
        """The bytes of a request or a result."""
        raise NotImplementedError
