"""What can be read of a store. Any thread may call any method."""

import logging
from collections.abc import Iterator

from chain.leaves import PackedLeaves
from chain.records import TransactionReceipt
from chain.rejections import Rejection, RejectionReason
from chain.rocks import Rocks
from chain.store_checkpoint import ID_BYTES
from chain.store_lookups import LookupKind, RecentLookups, find_in_segment
from chain.store_rows import (
    BATCH,
    BOUNDARY,
    CERTIFICATE,
    EVENTS,
    EXECUTED,
    FINAL_BLOCK,
    JOURNAL,
    LANE,
    ORIGINS,
    PAYLOADS,
    PLACE,
    RECEIPTS,
    Executed,
    FinalRow,
    Head,
    JobOrigin,
    JournalRow,
    LaneRow,
    LeafLocation,
    PlaceRow,
    Segment,
    StoredBlock,
    damaged,
    decode_row,
    lane_key,
    leaves_of_row,
    number,
    read_leaves,
    read_row,
)
from consensus.epochs import EpochBoundary
from consensus.values import Batch, BatchHeader, Block, Certificate
from consensus.wire import DecodeError, decode

TRANSACTION_TAG = b"T"
JOB_TAG = b"J"

logger = logging.getLogger(__name__)


class StoreReads:
    """The reading half of `Store`, which opens the database and keeps these fields current."""

    _rocks: Rocks
    _recent: RecentLookups
    _head: Head | None
    _final_height: int

    def _segments(self) -> tuple[Segment, ...]:
        raise NotImplementedError

    def _settled_segments(self) -> tuple[Segment, ...]:
        raise NotImplementedError

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

    @property
    def pruned_through(self) -> int:
        """Blocks up to and with this height are forgotten; 0 if none is."""
        raise NotImplementedError

    def check_kept(self, height: int) -> None:
        """Raise Rejection (PRUNED) for a block that this node has forgotten."""
        if 1 <= height <= self.pruned_through:
            raise Rejection(
                RejectionReason.PRUNED,
                f"block {height} is pruned: this node keeps blocks from height "
                f"{self.pruned_through + 1}; ask a node that keeps the archive",
            )

    def kept_note(self) -> str:
        """What to add when an id is not found here: it may have been forgotten."""
        if not self.pruned_through:
            return ""
        return f" (pruned: this node keeps blocks from height {self.pruned_through + 1})"

    # --- batches ------------------------------------------------------------------------------

    def batch(self, lane: int, sequence: int, epoch: int = 0) -> Batch | None:
        """A batch at a place of a lane; of two forked ones, that with the lower digest."""
        place = lane_key(BATCH, epoch, lane, sequence)
        rows = self._rocks.rows(place, place, limit=1)
        return decode_row(Batch, rows[0][1]) if rows else None

    def batch_by_digest(self, digest: bytes) -> Batch | None:
        """The batch whose header has this digest."""
        place = read_row(self._rocks, PlaceRow, PLACE + digest)
        if place is None:
            return None
        key = lane_key(BATCH, place.epoch, place.lane, place.sequence, digest)
        return read_row(self._rocks, Batch, key)

    def batches(self) -> Iterator[Batch]:
        """All stored batches in order of epoch, lane and sequence."""
        for _, value in self._rocks.all_rows(BATCH):
            yield decode_row(Batch, value)

    def batch_headers(
        self, lane: int, from_sequence: int, limit: int, epoch: int = 0
    ) -> list[BatchHeader]:
        """Headers of stored batches of a lane, rising in sequence; of a fork, each."""
        start = lane_key(LANE, epoch, lane, from_sequence)
        rows = self._rocks.rows(lane_key(LANE, epoch, lane), start, limit)
        return [decode_row(LaneRow, value).header for _, value in rows]

    def lane_tip(self, lane: int, epoch: int = 0) -> BatchHeader | None:
        """Header of the stored batch with the highest sequence; pruning keeps it, in the newest
        epoch."""
        last = self._rocks.last(lane_key(LANE, epoch, lane))
        return None if last is None else decode_row(LaneRow, last[1]).header

    # --- final blocks -------------------------------------------------------------------------

    def final_block(self, height: int) -> tuple[Block, bytes] | None:
        """A final block, executed or not, and its beacon."""
        row = read_row(self._rocks, FinalRow, FINAL_BLOCK + number(height))
        return None if row is None else (row.block, row.beacon)

    def final_blocks_from(self, height: int, limit: int) -> list[Block]:
        """Up to `limit` final blocks from `height` on, executed or not, in order; none if the first
        is pruned."""
        rows = self._rocks.rows(FINAL_BLOCK, FINAL_BLOCK + number(height), limit)
        blocks = [decode_row(FinalRow, value).block for _, value in rows]
        if blocks and blocks[0].height > max(height, 1):
            logger.info("block %d is asked for%s", height, self.kept_note())
            return []
        return blocks

    def certificate_at(self, height: int) -> tuple[int, Certificate] | None:
        """The certificate of `height` or of its nearest certified descendant, and whose it is."""
        for key, value in self._rocks.rows(CERTIFICATE, CERTIFICATE + number(height), limit=1):
            return int.from_bytes(key[1:], "big"), decode_row(Certificate, value)
        return None

    def boundary(self, epoch: int) -> EpochBoundary | None:
        """How an epoch ended, if it has; never pruned."""
        return read_row(self._rocks, EpochBoundary, BOUNDARY + number(epoch))

    def boundaries(self, from_epoch: int, limit: int) -> list[EpochBoundary]:
        """Of up to `limit` ended epochs from `from_epoch` on, in order."""
        rows = self._rocks.rows(BOUNDARY, BOUNDARY + number(from_epoch), limit)
        return [decode_row(EpochBoundary, value) for _, value in rows]

    # --- executed blocks ----------------------------------------------------------------------

    def block_by_height(self, height: int) -> StoredBlock | None:
        """An executed block; height 0 has none."""
        executed = read_row(self._rocks, Executed, EXECUTED + number(height))
        final = self.final_block(height)
        if executed is None or final is None:
            return None
        return StoredBlock(final[0], final[1], executed.link, executed.execution_root)

    def blocks_from(self, height: int, limit: int) -> list[StoredBlock]:
        """Up to `limit` executed blocks from `height` on, in order."""
        blocks: list[StoredBlock] = []
        for at in range(max(height, 1), max(height, 1) + limit):
            block = self.block_by_height(at)
            if block is None:
                break
            blocks.append(block)
        return blocks

    def execution_root_at(self, height: int) -> bytes | None:
        """After the block of that height; 0 is genesis."""
        executed = read_row(self._rocks, Executed, EXECUTED + number(height))
        return None if executed is None else executed.execution_root

    def state_root_at(self, height: int) -> bytes | None:
        """Of the ledger after the block of that height; 0 is genesis."""
        executed = read_row(self._rocks, Executed, EXECUTED + number(height))
        return None if executed is None else executed.link.state_root

    def execution_roots(self, limit: int) -> tuple[tuple[int, bytes], ...]:
        """(height, execution root) of the newest `limit` executed heights, rising, without 0."""
        lowest = max(1, (self.height or 0) - limit + 1)
        rows = self._rocks.rows(EXECUTED, EXECUTED + number(lowest), limit)
        return tuple(
            (int.from_bytes(key[1:], "big"), decode_row(Executed, value).execution_root)
            for key, value in rows
        )

    # --- what blocks brought about ------------------------------------------------------------

    def receipts_at(self, height: int) -> PackedLeaves:
        """Leaf data of a block's receipts, in order."""
        return read_leaves(self._rocks, RECEIPTS + number(height))

    def events_at(self, height: int) -> PackedLeaves:
        """Leaf data of a block's events, in order."""
        return read_leaves(self._rocks, EVENTS + number(height))

    def journal_at(self, height: int) -> JournalRow:
        """What a block changed in the tables, as it was committed."""
        row = read_row(self._rocks, JournalRow, JOURNAL + number(height))
        return JournalRow((), b"") if row is None else row

    def transaction_location(self, transaction: bytes) -> LeafLocation | None:
        """Where a transaction's receipt is.

        A transaction that was refused may have a receipt in every block it was put into; the one
        that says it was included, or else the newest, counts.
        """
        newest: LeafLocation | None = None
        read_height, receipts = 0, PackedLeaves()
        for height, slot in self._candidates(transaction, LookupKind.TRANSACTION):
            if height != read_height:  # a lane may hold the same transaction a thousand times
                read_height, receipts = height, self.receipts_at(height)
            leaf = _at(receipts, slot)
            if not leaf.startswith(TRANSACTION_TAG + transaction):
                continue
            location = LeafLocation(height, slot)
            if _was_included(leaf):
                return location
            newest = newest or location
        return newest

    def job_location(self, job: bytes) -> LeafLocation | None:
        """Where a finished job's receipt is."""
        for height, slot in self._candidates(job, LookupKind.JOB):
            if _at(self.receipts_at(height), slot).startswith(JOB_TAG + job):
                return LeafLocation(height, slot)
        return None

    def receipt_leaf(self, location: LeafLocation) -> bytes:
        """The leaf that a lookup found. Raises Rejection (PRUNED) if it was forgotten since."""
        leaf = _at(self.receipts_at(location.height), location.index)
        if not leaf:
            self.check_kept(location.height)
            raise damaged(f"receipt {location.index} of block {location.height} is missing")
        return leaf

    def job_origin(self, job: bytes) -> JobOrigin | None:
        """Which operation asked for a job."""
        for height, slot in self._candidates(job, LookupKind.ORIGIN):
            leaf = _at(read_leaves(self._rocks, ORIGINS + number(height)), slot)
            if leaf.startswith(job):
                return decode_row(JobOrigin, leaf)
        return None

    def payload(self, digest: bytes) -> bytes | None:
        """The bytes of a request or a result."""
        for height, slot in self._candidates(digest, LookupKind.PAYLOAD):
            prefix = PAYLOADS + number(height)
            row = self._rocks.last(prefix, prefix + slot.to_bytes(4, "big"))
            if row is None:
                continue
            first = int.from_bytes(row[0][len(prefix) :], "big")
            leaf = _at(leaves_of_row(row[1]), slot - first)
            if leaf.startswith(digest):
                return leaf[ID_BYTES:]
        return None

    def _candidates(self, identity: bytes, kind: LookupKind) -> Iterator[tuple[int, int]]:
        """(height, slot) of what may be this id's, newest first; none for what is no id."""
        self._rocks.check_open()
        if len(identity) != ID_BYTES:  # a part of one would find the whole
            return
        yield from self._recent.find(identity, kind)
        segments = self._segments()
        while True:
            for segment in reversed(segments):
                yield from find_in_segment(self._rocks, segment, identity, kind)
            settled = self._settled_segments()
            if settled is segments:
                return
            segments = settled  # a checkpoint merged segments away while we looked


def _at(leaves: PackedLeaves, slot: int) -> bytes:
    return leaves[slot] if slot < len(leaves) else b""


def _was_included(leaf: bytes) -> bool:
    try:
        return decode(TransactionReceipt, leaf[1:]).was_included
    except DecodeError:
        return False
