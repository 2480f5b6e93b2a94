"""What a validator keeps on disk: batches, blocks, the ledger's tables, receipts, payloads.

One RocksDB (`store_rows` lists its rows). A block and everything its execution changed go in by one
synced write batch, so a process killed at any point reopens either before the block or after it,
never between. That batch has no row for an account or a transaction: it holds the block's leaves,
packed, and a journal of what changed. In the background journals go into the tables
(`store_checkpoint`), and old blocks are forgotten if the operator wants it (`pruning`). Final
blocks may lie ahead of the executed ones: ordering stores them as soon as they are final,
execution follows.

Any thread may call any method. Writers take turns; nothing is ever half visible.
"""

import fcntl
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

from rocksdict import WriteBatch

from chain.pruning import AHEAD_BLOCKS_MAX, KEEP_EVERYTHING, Pruner, PruningPolicy
from chain.records import ExecutionLink
from chain.rocks import HomeInUseError, Rocks, SteppedWriter, StoreError
from chain.store_checkpoint import CheckpointPolicy, Checkpoints, commit_entries
from chain.store_lookups import RecentLookups
from chain.store_reads import StoreReads
from chain.store_rows import (
    ACCOUNTS,
    BATCH,
    BOUNDARY,
    CERTIFICATE,
    EVENTS,
    EXECUTED,
    FINAL_BLOCK,
    HEAD_KEY,
    IDENTITY_KEY,
    JOURNAL,
    LANE,
    ORIGINS,
    PAYLOADS,
    PLACE,
    PRUNED_KEY,
    RECEIPTS,
    RECORD,
    BlockCommit,
    Executed,
    FinalRow,
    Head,
    Identity,
    JobOrigin,
    Journal,
    LaneRow,
    LeafLocation,
    PlaceRow,
    PrunedRow,
    Segment,
    StateBase,
    StoredBlock,
    journal_bytes,
    lane_key,
    leaves_bytes,
    number,
    packed,
    read_row,
    record_key,
)
from chain.store_upkeep import Upkeep
from consensus.epochs import EpochBoundary
from consensus.values import Batch, Block, Certificate, VoteKind
from consensus.wire import encode

__all__ = [
    "BlockCommit",
    "JobOrigin",
    "Journal",
    "LeafLocation",
    "Store",
    "StoreError",
    "StoredBlock",
]

FORMAT_VERSION: Final = 5
STORE_NAME: Final = "store"
"""The store's folder in a home's data folder."""
LOCK_FILE_NAME: Final = "lock"
DATABASE_NAME: Final = "rocks"
PAYLOAD_ROW_BYTES: Final = 64 << 10


class Store(StoreReads):
    """The database of one validator. Opening takes an exclusive lock until `close`."""

    def __init__(
        self,
        path: Path,
        chain_id: str,
        genesis_digest: bytes,
        *,
        pruning: PruningPolicy = KEEP_EVERYTHING,
        checkpoints: CheckpointPolicy | None = None,
        background: bool = True,
        open_rocks: Callable[[Path], Rocks] = Rocks,
    ) -> None:
        """Open or create. Raises StoreError if in use, damaged, or of another chain.

        Without `background` nothing happens but what is asked for: a test, or a tool, decides.
        """
        self._path = path
        self._pruning = pruning
        self._writing = threading.Lock()
        self._maintaining = threading.Lock()
        self._upkeep: Upkeep | None = None
        self._lock_descriptor: int | None = _take_lock(path)
        try:
            self._rocks = open_rocks(path / DATABASE_NAME)
            try:
                self._open(Identity(FORMAT_VERSION, chain_id, genesis_digest), checkpoints)
            except StoreError:
                self._rocks.close()
                raise
        except StoreError:
            self._release_lock()
            raise
        if background:
            self._upkeep = Upkeep(self.maintain)

    def _open(self, identity: Identity, policy: CheckpointPolicy | None) -> None:
        self._check_identity(identity)
        self._head = read_row(self._rocks, Head, HEAD_KEY)
        last = self._rocks.last(FINAL_BLOCK)
        self._final_height = 0 if last is None else int.from_bytes(last[0][1:], "big")
        self._recent = RecentLookups()
        self._checkpoints = Checkpoints(self._rocks, self._recent, policy or CheckpointPolicy())
        self._pruner = Pruner(self._rocks, self._checkpoints)
        self._checkpoints.recover(self.height or 0)

    def close(self) -> None:
        """Release the lock; later calls raise StoreError. Closing twice is nothing."""
        if self._upkeep is not None:
            self._upkeep.stop()
        with self._writing:
            self._rocks.close()
            self._release_lock()

    def __enter__(self) -> "Store":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pruned_through(self) -> int:
        """Blocks up to and with this height are forgotten; 0 if none is."""
        return self._pruner.through

    def _segments(self) -> tuple[Segment, ...]:
        return self._checkpoints.row.segments

    def _settled_segments(self) -> tuple[Segment, ...]:
        return self._checkpoints.settled_segments()

    # --- what ordering writes -----------------------------------------------------------------

    def put_batch(self, batch: Batch, sync: bool = True) -> None:
        """Keep a batch; with `sync` it is durable on return, and all before it."""
        header, data = batch.header, encode(batch)
        digest = header.digest()
        place = PlaceRow(header.epoch, header.lane, header.sequence)
        changes = WriteBatch(raw_mode=True)
        changes.put(lane_key(BATCH, header.epoch, header.lane, header.sequence, digest), data)
        row = encode(LaneRow(header, len(data)))
        changes.put(lane_key(LANE, header.epoch, header.lane, header.sequence, digest), row)
        changes.put(PLACE + digest, encode(place))
        with self._writing:
            self._rocks.write(changes, sync)

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

    def put_boundary(self, boundary: EpochBoundary) -> None:
        """Keep for ever how an epoch ended; durable on return."""
        changes = WriteBatch(raw_mode=True)
        changes.put(BOUNDARY + number(boundary.block.epoch), encode(boundary))
        with self._writing:
            self._rocks.write(changes, sync=True)

    def _add_final(self, changes: WriteBatch, block: Block, beacon: bytes, highest: int) -> None:
        key = FINAL_BLOCK + number(block.height)
        row = encode(FinalRow(block, beacon))
        if block.height <= highest:
            stored = self._rocks.get(key)
            if stored != row and block.height > self.pruned_through:
                raise StoreError(
                    f"two final blocks at height {block.height}: agreement is broken; keep this "
                    "home as evidence and ask the other validators"
                )
            return
        if block.height != highest + 1:
            raise StoreError(f"final block {block.height} after {highest} leaves a gap")
        changes.put(key, row)

    def _add_certificate(self, changes: WriteBatch, block: Block, certificate: Certificate) -> None:
        body = certificate.body
        if body.kind is not VoteKind.FINALIZE or body.digest != block.digest():
            raise ValueError(f"the certificate does not finalize block {block.height}")
        if block.height > self.pruned_through:
            changes.put(CERTIFICATE + number(block.height), encode(certificate))

    # --- what execution writes ----------------------------------------------------------------

    def commit_genesis(
        self,
        link: ExecutionLink,
        execution_root: bytes,
        beacon: bytes,
        records: Journal,
        accounts: bytes = b"",
    ) -> None:
        """Write height 0: the small tables and the packed accounts before any block.

        Raises StoreError if there is a state already.
        """
        with self._writing:
            if self._head is not None:
                raise StoreError(f"{self._path} has a state already, at height {self._head.height}")
            head = Head(0, execution_root, None)
            # Until the head is written the store is empty, whatever else is in it.
            writer = SteppedWriter(self._rocks)
            for table, key, value in records:
                if value is not None:
                    writer.put(record_key(table, key), value)
            self._checkpoints.write_base(writer, 0, (accounts,))
            executed = Executed(link, execution_root, beacon, 0)
            writer.changes.put(EXECUTED + number(0), encode(executed))
            writer.changes.put(HEAD_KEY, encode(head))
            writer.finish()
            self._head = head

    def begin_base(
        self,
        base: StateBase,
        records: Iterable[tuple[int, bytes, bytes]],
        accounts: Iterable[bytes],
    ) -> None:
        """Write the tables of a height above genesis, and its final blocks, into an empty store.

        Until `commit_base` the store stays empty for all but the `load_` functions, so that what
        was written can be checked. Raises ValueError for account rows with gaps.
        """
        with self._writing:
            if self._head is not None:
                raise StoreError(f"{self._path} has a state already, at height {self._head.height}")
            height = base.finalized[0][0].height
            writer = SteppedWriter(self._rocks)
            for table, key, value in records:
                writer.put(record_key(table, key), value)
            # One below: the height's own journal, which is empty, brings its lookups with it.
            self._checkpoints.write_base(writer, height - 1, accounts)
            genesis = Executed(base.genesis_link, base.genesis_root, base.genesis_beacon, 0)
            writer.put(EXECUTED + number(0), encode(genesis))
            for block, beacon in base.finalized:
                writer.put(FINAL_BLOCK + number(block.height), encode(FinalRow(block, beacon)))
            self._add_certificate(writer.changes, base.finalized[-1][0], base.certificate)
            writer.changes.put(PRUNED_KEY, encode(PrunedRow(height - 1)))
            writer.finish()

    def commit_base(self, commit: BlockCommit) -> None:
        """Make what `begin_base` wrote the store's state; the block's journal is not looked at.

        Close the store then, and open it anew.
        """
        receipts = packed(commit.receipt_leaves)
        rows = _consequences(commit, receipts, journal_bytes((), b""))
        stored_bytes = sum(len(value) for _, value in rows)
        executed = Executed(commit.link, commit.execution_root, commit.beacon, stored_bytes)
        head = Head(commit.block.height, commit.execution_root, commit.oldest_open_height)
        with self._writing:
            writer = SteppedWriter(self._rocks)
            for key, value in rows:
                writer.put(key, value)
            writer.changes.put(EXECUTED + number(commit.block.height), encode(executed))
            writer.changes.put(HEAD_KEY, encode(head))
            writer.finish()

    def commit_block(self, commit: BlockCommit) -> None:
        """Write one block and all its consequences, durable on return.

        Waits if the tables are too far behind. Raises ValueError if it is not the next one,
        StoreError if it contradicts a final block, or if upkeep failed.
        """
        self._wait_for_tables()
        height = commit.block.height
        receipts = packed(commit.receipt_leaves)
        entries = commit_entries(
            height,
            receipts,
            [origin.job for origin in commit.job_origins],
            [digest for digest, _ in commit.payloads],
        )
        journal = journal_bytes(commit.journal, commit.accounts)
        changes = WriteBatch(raw_mode=True)
        with self._writing:
            if self._head is None or (height, height) != (
                self._head.height + 1,
                commit.link.height,
            ):
                raise ValueError(
                    f"block {height} with link {commit.link.height} cannot follow {self.height}"
                )
            self._add_final(changes, commit.block, commit.beacon, self._final_height)
            if commit.certificate is not None:
                self._add_certificate(changes, commit.block, commit.certificate)
            rows = _consequences(commit, receipts, journal)
            for key, value in rows:
                changes.put(key, value)
            executed = Executed(
                commit.link,
                commit.execution_root,
                commit.beacon,
                sum(len(value) for _, value in rows),
            )
            changes.put(EXECUTED + number(height), encode(executed))
            head = Head(height, commit.execution_root, commit.oldest_open_height)
            changes.put(HEAD_KEY, encode(head))
            self._rocks.write(changes, sync=True)
            self._checkpoints.committed(height, len(journal), entries)
            self._head = head
            self._final_height = max(self._final_height, height)
        if self._upkeep is not None and self._checkpoints.is_due:
            self._upkeep.wake()

    def _wait_for_tables(self) -> None:
        if self._upkeep is not None:
            self._upkeep.check()
        while self._checkpoints.is_overdue:
            if self._upkeep is None:
                self.checkpoint()
            else:
                self._upkeep.wait_until(lambda: not self._checkpoints.is_overdue)

    # --- the tables ---------------------------------------------------------------------------

    def load_records(self) -> Iterator[tuple[int, bytes, bytes]]:
        """All current (table, key, value) of the small tables, in order of table and key.

        For start-up: the caller must not commit between the first and the last.
        """
        self.checkpoint()
        for key, value in self._rocks.all_rows(RECORD):
            yield key[1], key[2:], value

    def load_accounts(self) -> Iterator[bytes]:
        """All current account rows, packed, in chunks rising in number; as `load_records`."""
        self.checkpoint()
        for _, value in self._rocks.all_rows(ACCOUNTS):
            yield value

    # --- upkeep -------------------------------------------------------------------------------

    def checkpoint(self) -> None:
        """Bring the tables up to the newest block, now."""
        with self._maintaining:
            while self._checkpoints.step(self._pruner.through):
                pass

    def prune(self, policy: PruningPolicy) -> int:
        """Forget all that a policy lets go, now, and give its space back; how many blocks."""
        self.checkpoint()
        before = self._pruner.through
        with self._maintaining:
            if self._head is not None:
                target = self._pruner.target(policy, self._head)
                while self._pruner.step(target):
                    pass
                while self._pruner.compact(at_least=1):
                    pass
        return self._pruner.through - before

    def keep_from(self, height: int | None) -> None:
        """Whatever the policy says, forget nothing from this height on; None for no such height."""
        self._pruner.keep_from = height

    def maintain(self) -> bool:
        """One bounded step of what is due; False if nothing is. The background thread's work."""
        with self._maintaining:
            if self._head is None:
                return False
            target = self._pruner.target(self._pruning, self._head)
            in_the_way = target >= self._checkpoints.row.height + AHEAD_BLOCKS_MAX
            if self._checkpoints.is_due or in_the_way:
                return self._checkpoints.step(self._pruner.through)
            if self._pruner.step(target):
                return True
            return self._pruner.compact()

    def link_to(self, folder: Path) -> Head:
        """Put a copy of the database as of one instant into a new folder; its head.

        Raises StoreError for a store without a state.
        """
        self._rocks.flush()  # most of it before commits must wait
        with self._writing:
            if self._head is None:
                raise StoreError(f"{self._path} has no state yet; start the node once")
            self._rocks.link_to(folder)
            return self._head

    # --- plumbing -----------------------------------------------------------------------------

    def _check_identity(self, expected: Identity) -> None:
        found = read_row(self._rocks, Identity, IDENTITY_KEY)
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


def _consequences(
    commit: BlockCommit, receipts: Sequence[bytes], journal: bytes
) -> list[tuple[bytes, bytes]]:
    """The rows of what a block brought about."""
    at = number(commit.block.height)
    rows = [(JOURNAL + at, journal)]
    if receipts:
        rows.append((RECEIPTS + at, leaves_bytes(packed(receipts))))
    if commit.events:
        rows.append((EVENTS + at, leaves_bytes(packed(commit.events))))
    if commit.job_origins:
        origins = packed([encode(origin) for origin in commit.job_origins])
        rows.append((ORIGINS + at, leaves_bytes(origins)))
    first, size = 0, 0
    for slot, (digest, data) in enumerate(commit.payloads, 1):
        size += len(digest) + len(data)
        if size >= PAYLOAD_ROW_BYTES or slot == len(commit.payloads):
            group = packed([key + value for key, value in commit.payloads[first:slot]])
            rows.append((PAYLOADS + at + first.to_bytes(4, "big"), leaves_bytes(group)))
            first, size = slot, 0
    return rows


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
        raise HomeInUseError(
            f"{path} is in use by another process: stop that node, or give this one its own home"
        ) from error
    return descriptor
