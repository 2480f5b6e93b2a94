"""Checkpoints: journals go into the tables in the background, so that commits need not.

A commit writes a journal, which is short and in one piece. A checkpoint takes the journals since
the last one, keeps of each row its newest content, and writes rows in order of key: records, pages
of accounts, lookups. Last, in one batch, it writes its height.

It may be killed anywhere. Until its height is written, the journals above the old height stand,
and they hold the newest content of every row it has touched: doing it again gives the same tables.
So it writes in small steps, and never keeps the interpreter's lock for long.
"""

import threading
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from chain.leaves import PackedLeaves
from chain.rocks import Rocks, SteppedWriter
from chain.store_accounts import (
    PAGE_ROWS,
    merge_changes,
    split_into_pages,
    update_page,
)
from chain.store_lookups import (
    SEGMENT_ENTRIES_MAX,
    Entries,
    LookupKind,
    RecentLookups,
    drop_segment,
    id_entries,
    merged,
    read_segment,
    receipt_entries,
    write_segment,
)
from chain.store_rows import (
    ACCOUNTS,
    CHECKPOINT_KEY,
    JOURNAL,
    ORIGINS,
    PAYLOADS,
    RECEIPTS,
    CheckpointRow,
    JournalEntry,
    JournalRow,
    Segment,
    damaged,
    leaves_of_row,
    number,
    read_leaves,
    read_row,
    record_key,
)
from consensus.wire import encode
from ext.ledger import ACCOUNT_ROW_BYTES

ID_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class CheckpointPolicy:
    """How far the tables may be behind the newest block."""

    blocks: int = 16_384
    """A checkpoint is due after so many blocks, ..."""
    journal_bytes: int = 32 << 20
    """... or so many bytes of journals; or as many as the accounts have, if that is more, so that
    a checkpoint writes no more than it was given."""
    patience: int = 3
    """At so many times the above commits wait for the checkpoint."""


class Checkpoints:
    """The tables' height, what lies above it, and the one function that raises it.

    `committed` is called by the thread that commits, in order; what changes the row by one thread
    at a time, which may be another one.
    """

    def __init__(self, rocks: Rocks, recent: RecentLookups, policy: CheckpointPolicy) -> None:
        self._rocks = rocks
        self._recent = recent
        self._policy = policy
        self._counting = threading.Lock()
        self._publishing = threading.Lock()
        self._waiting: deque[tuple[int, int]] = deque()
        self._waiting_bytes = 0
        row = read_row(rocks, CheckpointRow, CHECKPOINT_KEY)
        self.row = CheckpointRow(0, 0, 0, ()) if row is None else row

    def recover(self, head: int) -> None:
        """Find what the last process left above the checkpoint. Raises StoreError for a gap."""
        for height in range(self.row.height + 1, head + 1):
            journal = self._rocks.get(JOURNAL + number(height))
            if journal is None:
                raise damaged(f"the journal of block {height} is missing")
            self.committed(height, len(journal), block_entries(self._rocks, height))

    def committed(self, height: int, journal_bytes: int, entries: Entries) -> None:
        """A block stands above the checkpoint now."""
        self._recent.add(entries)
        with self._counting:
            self._waiting.append((height, journal_bytes))
            self._waiting_bytes += journal_bytes

    @property
    def is_due(self) -> bool:
        """Whether a step should be made soon."""
        return self._lag() >= 1

    @property
    def is_overdue(self) -> bool:
        """Whether commits must wait for a step."""
        return self._lag() >= self._policy.patience

    def _lag(self) -> float:
        blocks = len(self._waiting) / self._policy.blocks
        return max(blocks, self._waiting_bytes / self._slice_bytes())

    def _slice_bytes(self) -> int:
        return max(self._policy.journal_bytes, self.row.account_rows * ACCOUNT_ROW_BYTES)

    def step(self, pruned_through: int) -> bool:
        """Fold one slice of journals in, if there are any; whether there were.

        Raises StoreError for journals, pages or lookups that are damaged.
        """
        heights = self._next_heights()
        if not heights:
            return False
        try:
            writer, row = self._fold(heights, pruned_through)
        except ValueError as error:
            raise damaged(
                f"a checkpoint of blocks {heights[0]} to {heights[-1]} is not possible: {error}"
            ) from error
        # Readers look into memory first, then into segments: in this order nothing is missed.
        with self._publishing:
            writer.finish()
            self.row = row
        self._recent.forget(row.height)
        with self._counting:
            for _ in heights:
                self._waiting_bytes -= self._waiting.popleft()[1]
        return True

    def settled_segments(self) -> tuple[Segment, ...]:
        """The segments on disk; waits for a checkpoint that is replacing some at this moment.

        Who has searched these very segments, without waiting, missed nothing.
        """
        with self._publishing:
            return self.row.segments

    def write_base(self, writer: SteppedWriter, height: int, accounts: Iterable[bytes]) -> None:
        """The pages of the first accounts, packed in pieces that rise in number, and the checkpoint
        of the height they are of. Raises ValueError for gaps between them."""
        account_rows = 0
        for piece in accounts:
            account_rows = max(account_rows, self._write_accounts(writer, piece))
        self.row = CheckpointRow(height, account_rows, 0, ())
        writer.changes.put(CHECKPOINT_KEY, encode(self.row))

    def drop_pruned(self, writer: SteppedWriter, through: int) -> CheckpointRow:
        """Drop segments that hold nothing above a height; the row to take when that is written."""
        for segment in self.row.segments:
            if segment.last <= through:
                drop_segment(writer, segment.serial)
        kept = tuple(segment for segment in self.row.segments if segment.last > through)
        row = replace(self.row, segments=kept)
        writer.changes.put(CHECKPOINT_KEY, encode(row))
        return row

    def _next_heights(self) -> list[int]:
        heights: list[int] = []
        size = 0
        with self._counting:
            waiting = list(self._waiting)
        for height, journal_bytes in waiting:
            heights.append(height)
            size += journal_bytes
            if size >= self._slice_bytes() or len(heights) >= self._policy.blocks:
                break
        return heights

    def _fold(self, heights: list[int], pruned_through: int) -> tuple[SteppedWriter, CheckpointRow]:
        """Write all but the last step, which holds the row and the end of what it replaces."""
        records: dict[bytes, JournalEntry] = {}
        accounts = bytearray()
        for height in heights:
            journal = read_row(self._rocks, JournalRow, JOURNAL + number(height))
            if journal is None:
                raise damaged(f"the journal of block {height} is missing")
            records.update((record_key(entry.table, entry.key), entry) for entry in journal.entries)
            accounts += journal.accounts
        writer = SteppedWriter(self._rocks)
        for key in sorted(records):
            value = records[key].value
            if value is None:
                writer.delete(key)
            else:
                writer.put(key, value)
        account_rows = self._write_accounts(writer, accounts)
        segments, obsolete = self._write_lookups(writer, heights[-1], pruned_through)
        for serial in obsolete:
            drop_segment(writer, serial)
        row = CheckpointRow(heights[-1], account_rows, self.row.next_serial + 1, segments)
        writer.changes.put(CHECKPOINT_KEY, encode(row))
        return writer, row

    def _write_accounts(self, writer: SteppedWriter, changes: bytes | bytearray) -> int:
        """Write changed pages; the number of rows there are then."""
        account_rows = self.row.account_rows
        for page, rows in split_into_pages(merge_changes(changes)):
            key = ACCOUNTS + number(page)
            updated = update_page(page, self._rocks.get(key) or b"", rows)
            writer.put(key, updated)
            last = page * PAGE_ROWS + len(updated) // ACCOUNT_ROW_BYTES
            account_rows = max(account_rows, last)
        return account_rows

    def _write_lookups(
        self, writer: SteppedWriter, height: int, pruned_through: int
    ) -> tuple[tuple[Segment, ...], list[int]]:
        """Write a segment up to `height`: all segments then, and serials that are so no more."""
        entries = self._recent.through(height)
        segments = list(self.row.segments)
        obsolete: list[int] = []
        while segments and segments[-1].entries <= 2 * len(entries):
            if segments[-1].entries + len(entries) > SEGMENT_ENTRIES_MAX:
                break
            older = segments.pop()
            obsolete.append(older.serial)
            entries = merged([read_segment(self._rocks, older), entries])
        entries = entries[entries["height"] > pruned_through]
        if len(entries):
            segments.append(write_segment(writer, self.row.next_serial, entries))
        return tuple(segments), obsolete


def block_entries(rocks: Rocks, height: int) -> Entries:
    """The lookups of a stored block. Raises StoreError if its rows are damaged."""
    digests = [
        leaf[:ID_BYTES]
        for _, row in rocks.all_rows(PAYLOADS + number(height))
        for leaf in leaves_of_row(row)
    ]
    origins = [leaf[:ID_BYTES] for leaf in read_leaves(rocks, ORIGINS + number(height))]
    try:
        return commit_entries(
            height, read_leaves(rocks, RECEIPTS + number(height)), origins, digests
        )
    except ValueError as error:
        raise damaged(f"the receipts of block {height} cannot be read: {error}") from error


def commit_entries(
    height: int, receipts: PackedLeaves, origins: list[bytes], payloads: list[bytes]
) -> Entries:
    """The lookups of a block: its receipts, and the ids of its origins and payloads in order.

    Raises ValueError for a receipt of no known kind.
    """
    return merged(
        [
            receipt_entries(height, receipts),
            id_entries(height, LookupKind.ORIGIN, origins),
            id_entries(height, LookupKind.PAYLOAD, payloads),
        ]
    )
