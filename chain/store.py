"""What a validator keeps on disk: batches, blocks, the ledger's tables, receipts, payloads.

One RocksDB. A block and everything its execution changed go in by one synced write batch, so a
process killed at any point reopens either before the block or after it, never between. The tables
are kept current in the same batch that carries the block's journal. Final blocks may lie ahead of
the executed ones: ordering stores them as soon as they are final, execution follows.

The rows, by the first byte of their key (integers in keys are big-endian, so they sort rightly):

    B digest                  batch          F height        final block and its beacon
    L lane sequence digest    batch header   C height        finalization certificate
    S table key               ledger record  X height        what execution made of the block
    J height                  journal        H block digest  height
    R height  E height        receipt and event leaves
    T transaction  I job      where its receipt is    O job  which operation asked for it
    P digest                  payload        M               whose database this is, and its head

Any thread may call any method. Writers take turns; nothing is ever half visible.
"""

import fcntl
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final, TypeVar

from rocksdict import WriteBatch

from chain.records import ExecutionLink
from chain.rocks import Rocks, StoreError
from chain.store_rows import (
    BlockCommit,
    Executed,
    FinalRow,
    Head,
    Identity,
    JobOrigin,
    Journal,
    JournalRow,
    LeafLocation,
    LeavesRow,
    StoredBlock,
    job_of_leaf,
    journal_bytes,
    leaves_bytes,
    location_bytes,
    transaction_of_leaf,
)
from consensus.values import Batch, BatchHeader, Block, Certificate, VoteKind
from consensus.wire import DecodeError, decode, encode

__all__ = [
    "BlockCommit",
    "JobOrigin",
    "Journal",
    "LeafLocation",
    "Store",
    "StoreError",
    "StoredBlock",
]

T = TypeVar("T")

FORMAT_VERSION: Final = 1
LOCK_FILE_NAME: Final = "lock"
DATABASE_NAME: Final = "rocks"
IDENTITY_KEY: Final = b"Midentity"
HEAD_KEY: Final = b"Mhead"
TRANSACTION_LEAF: Final = b"T"
JOB_LEAF: Final = b"J"


def _number(height: int) -> bytes:
    return height.to_bytes(8, "big")


def _lane(lane: int) -> bytes:
    return b"L" + lane.to_bytes(4, "big")


class Store:
    """The database of one validator. Opening takes an exclusive lock until `close`."""

    def __init__(self, path: Path, chain_id: str, genesis_digest: bytes) -> None:
        """Open or create. Raises StoreError if in use, damaged, or of another chain."""
        self._path = path
        self._writing = threading.Lock()
        self._lock_descriptor: int | None = _take_lock(path)
        try:
            self._rocks = Rocks(path / DATABASE_NAME)
            try:
                self._check_identity(Identity(FORMAT_VERSION, chain_id, genesis_digest))
                self._head = self._read(Head, HEAD_KEY)
                last = self._rocks.last(b"F")
                self._final_height = 0 if last is None else int.from_bytes(last[0][1:], "big")
            except (StoreError, DecodeError):
                self._rocks.close()
                raise
        except (StoreError, DecodeError) as error:
            self._release_lock()
            if isinstance(error, DecodeError):
                raise StoreError(f"{path} holds a row that cannot be read: {error}") from error
            raise

    def close(self) -> None:
        """Release the lock; later calls raise StoreError. Closing twice is nothing."""
        with self._writing:
            self._rocks.close()
            self._release_lock()

    def __enter__(self) -> "Store":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- where we are -------------------------------------------------------------------------

    @property
    def height(self) -> int | None:
        """Of the newest executed block; 0 after genesis, None before."""
        return None if self._head is None else self._head.height

    @property
    def execution_root(self) -> bytes | None:
        """After the newest executed block."""
        return None if self._head is None else self._head.execution_root

    @property
    def final_height(self) -> int:
        """Of the newest stored final block, executed or not; 0 if there is none."""
        return self._final_height

    # --- batches ------------------------------------------------------------------------------

    def put_batch(self, batch: Batch, sync: bool = True) -> None:
        """Keep a batch; with `sync` it is durable on return, and all before it."""
        header = batch.header
        digest = header.digest()
        changes = WriteBatch(raw_mode=True)
        changes.put(b"B" + digest, encode(batch))
        changes.put(_lane(header.lane) + _number(header.sequence) + digest, encode(header))
        with self._writing:
            self._rocks.write(changes, sync)

    def batch(self, lane: int, sequence: int) -> Batch | None:
        """A batch at a place of a lane; of two forked ones, that with the lower digest."""
        headers = self.batch_headers(lane, sequence, limit=1)
        if not headers or headers[0].sequence != sequence:
            return None
        return self.batch_by_digest(headers[0].digest())

    def batch_by_digest(self, digest: bytes) -> Batch | None:
        """The batch whose header has this digest."""
        return self._read(Batch, b"B" + digest)

    def batch_headers(self, lane: int, from_sequence: int, limit: int) -> list[BatchHeader]:
        """Headers of stored batches of a lane, rising in sequence; of a fork, each."""
        rows = self._rocks.rows(_lane(lane), _lane(lane) + _number(from_sequence), limit)
        return [self._decode(BatchHeader, value) for _, value in rows]

    def lane_tip(self, lane: int) -> BatchHeader | None:
        """Header of the stored batch with the highest sequence."""
        last = self._rocks.last(_lane(lane))
        return None if last is None else self._decode(BatchHeader, last[1])

    # --- final blocks -------------------------------------------------------------------------

    def put_final_blocks(
        self, blocks: list[tuple[Block, bytes]], certificate: Certificate | None
    ) -> None:
        """Keep (block, beacon) in height order; `certificate` finalizes the last.

        Durable on return. Blocks that are stored already may come again. Raises StoreError if a
        block contradicts a stored one or leaves a gap: that breaks agreement, and the node must
        stop.
        """
        changes = WriteBatch(raw_mode=True)
        with self._writing:
            height = self._final_height
            for block, beacon in blocks:
                self._add_final(changes, block, beacon, height)
                height = max(height, block.height)
            if certificate is not None and blocks:
                self._add_certificate(changes, blocks[-1][0], certificate)
            self._rocks.write(changes, sync=True)
            self._final_height = height

    def _add_final(self, changes: WriteBatch, block: Block, beacon: bytes, highest: int) -> None:
        key = b"F" + _number(block.height)
        row = encode(FinalRow(block, beacon))
        if block.height <= highest:
            stored = self._rocks.get(key)
            if stored != row:
                raise StoreError(
                    f"two final blocks at height {block.height}: agreement is broken; keep this "
                    "home as evidence and ask the other validators"
                )
            return
        if block.height != highest + 1:
            raise StoreError(f"final block {block.height} after {highest} leaves a gap")
        changes.put(key, row)
        changes.put(b"H" + block.digest(), _number(block.height))

    def _add_certificate(self, changes: WriteBatch, block: Block, certificate: Certificate) -> None:
        body = certificate.body
        if body.kind is not VoteKind.FINALIZE or body.digest != block.digest():
            raise ValueError(f"the certificate does not finalize block {block.height}")
        changes.put(b"C" + _number(block.height), encode(certificate))

    def final_block(self, height: int) -> tuple[Block, bytes] | None:
        """A final block, executed or not, and its beacon."""
        row = self._read(FinalRow, b"F" + _number(height))
        return None if row is None else (row.block, row.beacon)

    def final_blocks_from(self, height: int, limit: int) -> list[Block]:
        """Up to `limit` final blocks from `height` on, executed or not, in order."""
        rows = self._rocks.rows(b"F", b"F" + _number(height), limit)
        return [self._decode(FinalRow, value).block for _, value in rows]

    def certificate_at(self, height: int) -> tuple[int, Certificate] | None:
        """The certificate of `height` or of its nearest certified descendant, and whose it is."""
        for key, value in self._rocks.rows(b"C", b"C" + _number(height), limit=1):
            return int.from_bytes(key[1:], "big"), self._decode(Certificate, value)
        return None

    # --- executed blocks ----------------------------------------------------------------------

    def commit_genesis(
        self, link: ExecutionLink, execution_root: bytes, beacon: bytes, records: Journal
    ) -> None:
        """Write height 0: the tables before any block.

        Raises StoreError if there is a state already.
        """
        changes = WriteBatch(raw_mode=True)
        with self._writing:
            if self._head is not None:
                raise StoreError(f"{self._path} has a state already, at height {self._head.height}")
            head = Head(0, execution_root)
            self._add_records(changes, records)
            changes.put(b"X" + _number(0), encode(Executed(link, execution_root, beacon)))
            changes.put(HEAD_KEY, encode(head))
            self._rocks.write(changes, sync=True)
            self._head = head

    def commit_block(self, commit: BlockCommit) -> None:
        """Write one block and all its consequences, durable on return.

        Raises ValueError if it is not the next one, StoreError if it contradicts a final block.
        """
        block, height = commit.block, commit.block.height
        changes = WriteBatch(raw_mode=True)
        with self._writing:
            if self._head is None or (height, height) != (
                self._head.height + 1,
                commit.link.height,
            ):
                raise ValueError(
                    f"block {height} with link {commit.link.height} cannot follow {self.height}"
                )
            self._add_final(changes, block, commit.beacon, self._final_height)
            if commit.certificate is not None:
                self._add_certificate(changes, block, commit.certificate)
            self._add_records(changes, commit.journal)
            self._add_consequences(changes, commit)
            head = Head(height, commit.execution_root)
            changes.put(HEAD_KEY, encode(head))
            self._rocks.write(changes, sync=True)
            self._head = head
            self._final_height = max(self._final_height, height)

    def _add_records(self, changes: WriteBatch, records: Journal) -> None:
        for table, key, value in records:
            row_key = b"S" + table.to_bytes(1, "big") + key
            if value is None:
                changes.delete(row_key)
            else:
                changes.put(row_key, value)

    def _add_consequences(self, changes: WriteBatch, commit: BlockCommit) -> None:
        height = commit.block.height
        number = _number(height)
        executed = Executed(commit.link, commit.execution_root, commit.beacon)
        changes.put(b"X" + number, encode(executed))
        changes.put(b"R" + number, leaves_bytes(commit.receipt_leaves))
        changes.put(b"E" + number, leaves_bytes(commit.events))
        changes.put(b"J" + number, journal_bytes(commit.journal))
        for index, leaf in enumerate(commit.receipt_leaves):
            kind = leaf[:1]
            if kind == TRANSACTION_LEAF:
                key = b"T" + transaction_of_leaf(leaf)
            elif kind == JOB_LEAF:
                key = b"I" + job_of_leaf(leaf)
            else:
                raise ValueError(f"leaf {index} of block {height} is of no known kind: {kind!r}")
            changes.put(key, location_bytes(height, index))
        for origin in commit.job_origins:
            changes.put(b"O" + origin.job, encode(origin))
        for digest, data in commit.payloads:
            changes.put(b"P" + digest, data)

    def load_records(self) -> Iterator[tuple[int, bytes, bytes]]:
        """All current (table, key, value), in order of table and key.

        For start-up: the caller must not commit between the first and the last.
        """
        for key, value in self._rocks.all_rows(b"S"):
            yield key[1], key[2:], value

    def block_by_height(self, height: int) -> StoredBlock | None:
        """An executed block; height 0 has none."""
        executed = self._read(Executed, b"X" + _number(height))
        final = self.final_block(height)
        if executed is None or final is None:
            return None
        return StoredBlock(final[0], final[1], executed.link, executed.execution_root)

    def block_by_digest(self, digest: bytes) -> StoredBlock | None:
        """An executed block by its digest."""
        number = self._rocks.get(b"H" + digest)
        return None if number is None else self.block_by_height(int.from_bytes(number, "big"))

    def blocks_from(self, height: int, limit: int) -> list[StoredBlock]:
        """Up to `limit` executed blocks from `height` on, in order."""
        blocks: list[StoredBlock] = []
        for number in range(max(height, 1), max(height, 1) + limit):
            block = self.block_by_height(number)
            if block is None:
                break
            blocks.append(block)
        return blocks

    def execution_root_at(self, height: int) -> bytes | None:
        """After the block of that height; 0 is genesis."""
        executed = self._read(Executed, b"X" + _number(height))
        return None if executed is None else executed.execution_root

    def execution_roots(self, limit: int) -> tuple[tuple[int, bytes], ...]:
        """(height, execution root) of the newest `limit` executed heights, rising, without 0."""
        height = self.height or 0
        lowest = max(1, height - limit + 1)
        rows = self._rocks.rows(b"X", b"X" + _number(lowest), limit)
        return tuple(
            (int.from_bytes(key[1:], "big"), self._decode(Executed, value).execution_root)
            for key, value in rows
        )

    # --- what blocks brought about ------------------------------------------------------------

    def receipts_at(self, height: int) -> tuple[bytes, ...]:
        """Leaf data of a block's receipts, in order."""
        row = self._read(LeavesRow, b"R" + _number(height))
        return () if row is None else row.leaves

    def events_at(self, height: int) -> tuple[bytes, ...]:
        """Leaf data of a block's events, in order."""
        row = self._read(LeavesRow, b"E" + _number(height))
        return () if row is None else row.leaves

    def journal_at(self, height: int) -> tuple[tuple[int, bytes, bytes | None], ...]:
        """What a block changed in the tables, as it was committed."""
        row = self._read(JournalRow, b"J" + _number(height))
        entries = () if row is None else row.entries
        return tuple((entry.table, entry.key, entry.value) for entry in entries)

    def transaction_location(self, transaction: bytes) -> LeafLocation | None:
        """Where an included transaction's receipt is."""
        return self._read(LeafLocation, b"T" + transaction)

    def job_location(self, job: bytes) -> LeafLocation | None:
        """Where a finished job's receipt is."""
        return self._read(LeafLocation, b"I" + job)

    def job_origin(self, job: bytes) -> JobOrigin | None:
        """Which operation asked for a job."""
        return self._read(JobOrigin, b"O" + job)

    def payload(self, digest: bytes) -> bytes | None:
        """The bytes of a request or a result."""
        return self._rocks.get(b"P" + digest)

    # --- plumbing -----------------------------------------------------------------------------

    def _decode(self, kind: type[T], data: bytes) -> T:
        try:
            return decode(kind, data)
        except DecodeError as error:
            raise StoreError(
                f"{self._path} holds a {kind.__name__} that cannot be read ({error}): "
                "restore this home from a snapshot"
            ) from error

    def _read(self, kind: type[T], key: bytes) -> T | None:
        data = self._rocks.get(key)
        return None if data is None else self._decode(kind, data)

    def _check_identity(self, expected: Identity) -> None:
        found = self._read(Identity, IDENTITY_KEY)
        if found is None:
            changes = WriteBatch(raw_mode=True)
            changes.put(IDENTITY_KEY, encode(expected))
            self._rocks.write(changes, sync=True)
        elif found.version != expected.version:
            raise StoreError(
                f"{self._path} has format {found.version}, this program reads {expected.version}: "
                "use the program that wrote it, or another home"
            )
        elif (found.chain_id, found.genesis_digest) != (expected.chain_id, expected.genesis_digest):
            raise StoreError(
                f"home directory of another chain: {self._path} belongs to {found.chain_id}, the "
                f"genesis is {expected.chain_id}; give the right genesis or another home"
            )

    def _release_lock(self) -> None:
        if self._lock_descriptor is not None:
            os.close(self._lock_descriptor)
            self._lock_descriptor = None


def _take_lock(path: Path) -> int:
    """A descriptor that holds the home's lock until it is closed. Raises StoreError."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path / LOCK_FILE_NAME, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise StoreError(
            f"{path} is in use by another process: stop that node, or give this one its own home"
        ) from error
    return descriptor
