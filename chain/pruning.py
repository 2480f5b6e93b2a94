"""Forgetting old blocks and all that came with them: by height, by age, in small steps.

What is kept whatever the policy says: the last KEEP_BLOCKS_MIN blocks, which hold the replay window
and what a restart reads; everything since the oldest open job was requested, since its payload is
needed; what follows the snapshots that this node offers; what no checkpoint has taken in yet; the
newest batch of each lane of the newest forgotten block's epoch; the boundaries of all epochs. What
is kept is whole: a peer that asks for anything above the pruned height gets all of it.

One step writes its deletions and the new pruned height in one batch, so it happens or does not. In
memory the height is raised first: a reader that looks at it after its rows, and finds its block
above, has read the whole block.
Rows of a height go by range; RocksDB drops the files when the ranges are compacted, which is done
each time enough was forgotten, a slice at a time: between two slices a checkpoint that is due goes
first. What is left of it when the process ends is done with the next.
"""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from chain.rocks import Rocks, SteppedWriter
from chain.store_checkpoint import Checkpoints
from chain.store_rows import (
    BATCH,
    BY_HEIGHT,
    EXECUTED,
    FINAL_BLOCK,
    LANE,
    PLACE,
    PRUNED_KEY,
    Executed,
    FinalRow,
    Head,
    LaneRow,
    PrunedRow,
    damaged,
    decode_row,
    lane_key,
    number,
    read_row,
)
from chain.transactions import WINDOW_BLOCKS
from consensus.values import Block
from consensus.wire import encode

KEEP_BLOCKS_MIN: Final = 2 * WINDOW_BLOCKS
STEP_BLOCKS_MAX: Final = 64
AHEAD_BLOCKS_MAX: Final = 1024
"""A checkpoint is made for pruning's sake when so many blocks wait to be forgotten."""
COMPACT_BYTES: Final = 64 << 20
"""Deleted rows are compacted away when they have so many bytes."""
DIGEST_BYTES: Final = 32
PLACE_SLICES: Final = 16
"""Places are by digest, so each is compacted each time."""


@dataclass(frozen=True, slots=True)
class PruningPolicy:
    """What to keep: a block stays if either says so. With neither, everything stays."""

    keep_blocks: int | None = None
    """At least KEEP_BLOCKS_MIN."""
    keep_ms: int | None = None
    """Blocks that are not older than this, by block time, than the newest executed one."""

    def __post_init__(self) -> None:
        if self.keep_blocks is not None and self.keep_blocks < KEEP_BLOCKS_MIN:
            raise ValueError(
                f"keep_blocks is {self.keep_blocks}; a node needs its last {KEEP_BLOCKS_MIN} blocks"
            )
        if self.keep_ms is not None and self.keep_ms < 0:
            raise ValueError(f"keep_ms is {self.keep_ms}, which is less than nothing")


KEEP_EVERYTHING: Final = PruningPolicy()


class Pruner:
    """The pruned height, and the steps that raise it. For one thread at a time."""

    def __init__(self, rocks: Rocks, checkpoints: Checkpoints) -> None:
        self._rocks = rocks
        self._checkpoints = checkpoints
        self._loose_bytes = 0
        self._slices: deque[tuple[bytes, bytes]] = deque()
        """What is left to compact, as ranges of keys."""
        self._compacted = 0
        self.keep_from: int | None = None
        """What snapshots on this node's shelf are followed by."""
        row = read_row(rocks, PrunedRow, PRUNED_KEY)
        self.through = 0 if row is None else row.through
        """The newest height that is forgotten; 0 if none is."""

    def target(self, policy: PruningPolicy, head: Head) -> int:
        """The height to prune through, as soon as a checkpoint has passed it."""
        most = head.height - KEEP_BLOCKS_MIN
        if head.oldest_open_height is not None:
            most = min(most, head.oldest_open_height - 1)
        if self.keep_from is not None:
            most = min(most, self.keep_from - 1)
        if most <= self.through:  # nor need the head have a block yet: genesis has none
            return self.through
        asked: list[int] = []
        if policy.keep_blocks is not None:
            asked.append(head.height - policy.keep_blocks)
        if policy.keep_ms is not None:
            asked.append(self._older_than(policy.keep_ms, head.height))
        if not asked:
            return self.through
        return max(self.through, min(most, *asked))

    def step(self, target: int) -> bool:
        """Forget up to STEP_BLOCKS_MAX more blocks below the checkpoint; whether there were any."""
        through = min(target, self._checkpoints.row.height, self.through + STEP_BLOCKS_MAX)
        if through <= self.through:
            return False
        block = self._block(through)
        writer = SteppedWriter(self._rocks)
        size = self._stored_bytes(through)
        size += self._drop_batches(writer, b"", number(block.epoch))
        for tip in block.cut:
            lane = number(block.epoch) + tip.lane.to_bytes(4, "big")
            size += self._drop_batches(writer, lane, lane + number(tip.sequence))
        for kind in BY_HEIGHT:  # height 0 stays: it is where the chain of roots begins
            writer.changes.delete_range(kind + number(1), kind + number(through + 1))
        row = self._checkpoints.drop_pruned(writer, through)
        writer.changes.put(PRUNED_KEY, encode(PrunedRow(through)))
        # Said before it is done: who finds something missing also finds out why.
        self.through = through
        writer.finish()
        self._checkpoints.row = row
        self._loose_bytes += size
        return True

    def compact(self, at_least: int = COMPACT_BYTES) -> bool:
        """One slice of giving deleted rows' space back, if there are enough of them or a slice is
        left of the last time; whether there was one."""
        if not self._slices:
            if not self._loose_bytes or self._loose_bytes < at_least:
                return False
            self._slices.extend(self._compaction())
            self._loose_bytes = 0
        self._rocks.compact(*self._slices.popleft())
        return True

    def _compaction(self) -> Iterator[tuple[bytes, bytes]]:
        """The ranges of keys in which rows were deleted, in slices: whoever waits for the tables
        waits for no more than one of them."""
        for kind in BY_HEIGHT:
            yield kind + number(self._compacted), kind + number(self.through + 1)
        self._compacted = self.through
        block = self._block(self.through + 1)
        for kind in (BATCH, LANE):
            if block.epoch > 0:
                yield kind, kind + number(block.epoch)
            for tip in block.cut:
                start = lane_key(kind, block.epoch, tip.lane)
                yield start, lane_key(kind, block.epoch, tip.lane, tip.sequence)
        width = 256 // PLACE_SLICES
        for first in range(0, 256, width):
            last = bytes((first + width - 1,)) + b"\xff" * (DIGEST_BYTES - 1)
            yield PLACE + bytes((first,)), PLACE + last

    def _older_than(self, keep_ms: int, head: int) -> int:
        """The newest height whose block is older than `keep_ms`; `through` if none is."""
        oldest_kept_ms = self._block(head).timestamp_ms - keep_ms
        return (
            first_height(
                self.through + 1, head, lambda at: self._block(at).timestamp_ms >= oldest_kept_ms
            )
            - 1
        )

    def _drop_batches(self, writer: SteppedWriter, first: bytes, past: bytes) -> int:
        """Delete the batches from one place, or all, up to another; their bytes."""
        start, end = LANE + first, LANE + past
        size = 0
        for key, value in self._rocks.all_rows(start):
            if key >= end:
                break
            writer.changes.delete(PLACE + key[-DIGEST_BYTES:])
            size += decode_row(LaneRow, value).batch_bytes
        if size:
            writer.changes.delete_range(start, end)
            writer.changes.delete_range(BATCH + first, BATCH + past)
        return size

    def _stored_bytes(self, through: int) -> int:
        size = 0
        for height in range(self.through + 1, through + 1):
            executed = read_row(self._rocks, Executed, EXECUTED + number(height))
            size += 0 if executed is None else executed.stored_bytes
        return size

    def _block(self, height: int) -> Block:
        row = read_row(self._rocks, FinalRow, FINAL_BLOCK + number(height))
        if row is None:
            raise damaged(f"block {height} is missing, blocks are pruned through {self.through}")
        return row.block


def first_height(low: int, high: int, holds: Callable[[int], bool]) -> int:
    """The least height from `low` to `high` from which on a condition holds; it holds at `high`."""
    while low < high:
        middle = (low + high) // 2
        if holds(middle):
            high = middle
        else:
            low = middle + 1
    return low
