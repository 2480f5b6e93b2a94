"""From an id to where it stands: transactions, jobs, their origins, payloads.

One row for each id would cost 3 us a transaction (measured); so lookups are runs of 20-byte
entries, sorted by the first eight bytes of the id: 0.6 us. Runs of blocks above the checkpoint are
in memory. A checkpoint writes them as one segment, in rows of up to PIECE_ENTRIES; a segment that
is not more than twice as long as the next is merged into it, so there are few, whatever the
chain's length. Ids are hashes: a prefix names one id, and where strangers found two with the same,
the reader sees both and compares the whole id in the row that the entry leads to.
"""

import enum
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from chain.leaves import PackedLeaves
from chain.rocks import Rocks, SteppedWriter
from chain.store_rows import LOOKUPS, Segment, number

Entries: TypeAlias = NDArray[np.void]
"""Sorted by (prefix, height, slot)."""

ENTRY: Final = np.dtype([("prefix", "<u8"), ("height", "<u8"), ("slot", "<u4")])
KIND_SHIFT: Final = 30
SLOTS_MAX: Final = 1 << KIND_SHIFT
PREFIX_BYTES: Final = 8
PIECE_ENTRIES: Final = 1024
SEGMENT_ENTRIES_MAX: Final = 4 << 20
"""Longer segments are not merged: 80 MiB are sorted at most."""
RUN_ENTRIES_MAX: Final = 1 << 17
"""Longer runs in memory are not merged: a commit waits for a merge, 20 ms for so many."""


class LookupKind(enum.IntEnum):
    """What an id names; two bits of an entry's slot."""

    TRANSACTION = 0
    """Slot: its leaf among the block's receipts."""
    JOB = 1
    """Slot: its leaf among the block's receipts."""
    ORIGIN = 2
    """Slot: its place among the block's origins."""
    PAYLOAD = 3
    """Slot: its place among the block's payloads."""


LEAF_KINDS: Final = {ord("T"): LookupKind.TRANSACTION, ord("J"): LookupKind.JOB}
"""By the tag byte of a receipt leaf; the id follows it."""


def receipt_entries(height: int, leaves: PackedLeaves) -> Entries:
    """An entry for each receipt. Raises ValueError for a leaf that is no receipt."""
    count = len(leaves)
    if not count:
        return np.empty(0, ENTRY)
    ends = np.frombuffer(leaves.ends, "<u4").astype(np.int64)
    starts = np.concatenate((np.zeros(1, np.int64), ends[:-1]))
    data = np.frombuffer(leaves.data, np.uint8)
    short = np.flatnonzero(ends - starts <= PREFIX_BYTES)
    if len(short):
        raise ValueError(f"leaf {short[0]} of block {height} is of no known kind: too short")
    tags = data[starts]
    kinds = np.full(256, -1, np.int64)
    for tag, kind in LEAF_KINDS.items():
        kinds[tag] = kind
    unknown = np.flatnonzero(kinds[tags] < 0)
    if len(unknown):
        leaf = unknown[0]
        raise ValueError(f"leaf {leaf} of block {height} is of no known kind: tag {tags[leaf]}")
    prefixes = data[starts[:, None] + np.arange(1, 1 + PREFIX_BYTES)]
    slots = (kinds[tags] << KIND_SHIFT) | np.arange(count)
    return _entries(height, np.ascontiguousarray(prefixes).view(">u8").ravel(), slots)


def id_entries(height: int, kind: LookupKind, ids: Sequence[bytes]) -> Entries:
    """An entry for each id, in order of slot."""
    joined = b"".join(identity[:PREFIX_BYTES] for identity in ids)
    slots = (int(kind) << KIND_SHIFT) | np.arange(len(ids))
    return _entries(height, np.frombuffer(joined, ">u8"), slots)


def _entries(height: int, prefixes: NDArray[Any], slots: NDArray[Any]) -> Entries:
    if len(slots) > SLOTS_MAX:
        raise ValueError(f"block {height} has {len(slots)} lookups, {SLOTS_MAX} are possible")
    entries = np.empty(len(slots), ENTRY)
    entries["prefix"] = prefixes
    entries["height"] = height
    entries["slot"] = slots
    return _sorted(entries)


def _sorted(entries: Entries) -> Entries:
    # Stable, so that what shares a prefix stays in order of height and slot.
    return entries[np.argsort(entries["prefix"], kind="stable")]


def merged(runs: Sequence[Entries]) -> Entries:
    """One sorted run of several whose heights do not fall from run to run."""
    filled = [run for run in runs if len(run)]
    if len(filled) <= 1:
        return filled[0] if filled else np.empty(0, ENTRY)
    return _sorted(np.concatenate(filled))


def find(
    entries: Entries, identity: bytes, kind: LookupKind, prefixes: NDArray[np.uint64] | None = None
) -> list[tuple[int, int]]:
    """(height, slot) of entries that may be this id's, newest first.

    A search copies the prefixes together unless they are given so.
    """
    prefix = np.uint64(int.from_bytes(identity[:PREFIX_BYTES], "big"))
    prefixes = entries["prefix"] if prefixes is None else prefixes
    low = int(np.searchsorted(prefixes, prefix, "left"))
    high = int(np.searchsorted(prefixes, prefix, "right"))
    return [
        (int(entry["height"]), int(entry["slot"]) & (SLOTS_MAX - 1))
        for entry in reversed(entries[low:high])
        if int(entry["slot"]) >> KIND_SHIFT == kind
    ]


@dataclass(frozen=True, slots=True)
class _Run:
    entries: Entries
    prefixes: NDArray[np.uint64]


def _run(entries: Entries) -> _Run:
    return _Run(entries, np.ascontiguousarray(entries["prefix"]))


class RecentLookups:
    """Runs of the blocks above the checkpoint. One thread adds, another forgets, any may find."""

    def __init__(self) -> None:
        self._runs: tuple[_Run, ...] = ()
        self._changing = threading.Lock()

    def add(self, entries: Entries) -> None:
        """The entries of the next block. Merged so that each run is longer than all behind it, up
        to RUN_ENTRIES_MAX: there are few, and an entry is moved a few times only."""
        with self._changing:
            older = list(self._runs)
            while older and len(older[-1].entries) <= len(entries):
                if len(older[-1].entries) + len(entries) > RUN_ENTRIES_MAX:
                    break
                entries = merged([older.pop().entries, entries])
            self._runs = (*older, _run(entries)) if len(entries) else tuple(older)

    def through(self, height: int) -> Entries:
        """All entries up to and with a height."""
        entries = merged([run.entries for run in self._runs])
        return entries[entries["height"] <= height]

    def forget(self, height: int) -> None:
        """Drop the entries up to and with a height: the disk has them."""
        with self._changing:
            left = (run.entries[run.entries["height"] > height] for run in self._runs)
            self._runs = tuple(_run(entries) for entries in left if len(entries))

    def find(self, identity: bytes, kind: LookupKind) -> Iterator[tuple[int, int]]:
        """(height, slot) candidates, newest first."""
        for run in reversed(self._runs):
            yield from find(run.entries, identity, kind, run.prefixes)


def find_in_segment(
    rocks: Rocks, segment: Segment, identity: bytes, kind: LookupKind
) -> list[tuple[int, int]]:
    """(height, slot) candidates of one segment, newest first."""
    key = _piece_key(segment.serial)
    row = rocks.last(key, key + identity[:PREFIX_BYTES])
    return [] if row is None else find(np.frombuffer(row[1], ENTRY), identity, kind)


def read_segment(rocks: Rocks, segment: Segment) -> Entries:
    """All entries of a segment. Raises ValueError if some are missing."""
    rows = rocks.all_rows(_piece_key(segment.serial))
    entries = np.frombuffer(b"".join(value for _, value in rows), ENTRY)
    if len(entries) != segment.entries:
        raise ValueError(
            f"the lookups of heights {segment.first} to {segment.last} have {len(entries)} "
            f"entries, {segment.entries} were written"
        )
    return entries


def write_segment(writer: SteppedWriter, serial: int, entries: Entries) -> Segment:
    """Write sorted entries, one at least, under a serial number that no segment has."""
    drop_segment(writer, serial)  # what a killed checkpoint left
    prefixes = np.ascontiguousarray(entries["prefix"])
    start = 0
    while start < len(entries):
        # A prefix never spans two pieces: one seek finds all that share it.
        end = min(start + PIECE_ENTRIES, len(entries))
        end = int(np.searchsorted(prefixes, prefixes[end - 1], "right"))
        first = int(prefixes[start]).to_bytes(PREFIX_BYTES, "big")
        writer.put(_piece_key(serial) + first, entries[start:end].tobytes())
        start = end
    heights = entries["height"]
    return Segment(serial, int(heights.min()), int(heights.max()), len(entries))


def drop_segment(writer: SteppedWriter, serial: int) -> None:
    """Delete a segment's rows, in the writer's next step."""
    writer.changes.delete_range(_piece_key(serial), _piece_key(serial + 1))


def _piece_key(serial: int) -> bytes:
    return LOOKUPS + number(serial)
