"""The rows of the store: their keys, the values in them, and what a block's commit consists of.

By the first byte of the key (integers in keys are big-endian, so they sort rightly):

    B epoch lane sequence digest  batch       L epoch lane sequence digest  its header and size
    D digest                 its place        F height                 final block and its beacon
    C height                 certificate      X height                 what execution made of it
    R height  E height       receipt and event leaves, packed          J height    journal
    P height slot            payloads, packed by up to 64 KiB          O height    job origins
    S table key              record           A page                   account rows, packed
    T segment prefix         lookups          M                        identity, head, checkpoint
    K epoch                  its boundary, kept for ever

Everything of a block stands under its height, so that forgetting a range of heights is a handful of
range deletions. S, A and T are written by checkpoints, the others by commits.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Final, TypeVar

from chain.leaves import END_BYTES, PackedLeaves
from chain.records import ExecutionLink
from chain.rocks import Rocks, StoreError
from consensus.values import BatchHeader, Block, Certificate
from consensus.wire import U8, U32, U64, Count, DecodeError, Hash, Size, decode

T = TypeVar("T")

RECORD_KEY_BYTES_MAX: Final = 1024
RECORD_BYTES_MAX: Final = 1 << 30
JOURNAL_ENTRIES_MAX: Final = 1 << 24
CHAIN_ID_BYTES_MAX: Final = 64
SEGMENTS_MAX: Final = 1 << 20

BATCH: Final = b"B"
LANE: Final = b"L"
PLACE: Final = b"D"
FINAL_BLOCK: Final = b"F"
CERTIFICATE: Final = b"C"
EXECUTED: Final = b"X"
RECEIPTS: Final = b"R"
EVENTS: Final = b"E"
JOURNAL: Final = b"J"
PAYLOADS: Final = b"P"
ORIGINS: Final = b"O"
RECORD: Final = b"S"
ACCOUNTS: Final = b"A"
LOOKUPS: Final = b"T"
BOUNDARY: Final = b"K"
BY_HEIGHT: Final = (
    FINAL_BLOCK,
    CERTIFICATE,
    EXECUTED,
    RECEIPTS,
    EVENTS,
    JOURNAL,
    PAYLOADS,
    ORIGINS,
)
"""Rows that go when their height is pruned."""
IDENTITY_KEY: Final = b"Midentity"
HEAD_KEY: Final = b"Mhead"
CHECKPOINT_KEY: Final = b"Mcheckpoint"
PRUNED_KEY: Final = b"Mpruned"

Journal = Sequence[tuple[int, bytes, bytes | None]]
"""(table 0 to 255, key, value or None to delete)."""


def number(height: int) -> bytes:
    """An integer as keys hold it."""
    return height.to_bytes(8, "big")


def lane_key(
    kind: bytes, epoch: int, lane: int, sequence: int | None = None, digest: bytes = b""
) -> bytes:
    """The key, or the beginning of the keys, of an epoch's lane's rows."""
    prefix = kind + number(epoch) + lane.to_bytes(4, "big")
    return prefix if sequence is None else prefix + number(sequence) + digest


def record_key(table: int, key: bytes) -> bytes:
    """The key of a ledger record."""
    return RECORD + table.to_bytes(1, "big") + key


@dataclass(frozen=True, slots=True)
class StoredBlock:
    """An executed block with what the node needs beside it."""

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


@dataclass(frozen=True, slots=True)
class BlockCommit:
    """One executed block, as `Store.commit_block` writes it."""

    block: Block
    beacon: bytes
    certificate: Certificate | None
    """The finalization certificate of this very block, if the node holds one."""
    link: ExecutionLink
    execution_root: bytes
    receipt_leaves: Sequence[bytes]
    """Leaf data in order; transactions and jobs are found by them."""
    events: Sequence[bytes]
    journal: Journal
    """What changed in the small tables."""
    oldest_open_height: int | None
    """Where the oldest job that is still open was requested; None if none is open. Pruning stops
    before it."""
    accounts: bytes = b""
    """Changed account rows, packed (`ext.ledger.ACCOUNT_ROW_BYTES` each), rising in number."""
    payloads: Sequence[tuple[bytes, bytes]] = ()
    """(digest, bytes) of requests and results, whose digests alone are in the ledger."""
    job_origins: Sequence[JobOrigin] = ()
    """Jobs requested in this block."""


@dataclass(frozen=True, slots=True)
class StateBase:
    """What a store that begins above genesis must know of the chain."""

    genesis_link: ExecutionLink
    genesis_root: bytes
    genesis_beacon: bytes
    finalized: Sequence[tuple[Block, bytes]]
    """(block, beacon) from the first height on, in order."""
    certificate: Certificate
    """Finalizes the last of them."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Whose database this is."""

    version: U32
    chain_id: Annotated[str, Size(CHAIN_ID_BYTES_MAX)]
    genesis_digest: Hash


@dataclass(frozen=True, slots=True)
class Head:
    """The newest executed height."""

    height: U64
    execution_root: Hash
    oldest_open_height: U64 | None


@dataclass(frozen=True, slots=True)
class Segment:
    """Sorted lookups of heights `first` to `last`, in rows under its serial number."""

    serial: U64
    first: U64
    last: U64
    entries: U64


@dataclass(frozen=True, slots=True)
class CheckpointRow:
    """How far journals went into the tables."""

    height: U64
    account_rows: U64
    next_serial: U64
    segments: Annotated[tuple[Segment, ...], Count(SEGMENTS_MAX)]
    """Rising in height."""


@dataclass(frozen=True, slots=True)
class PrunedRow:
    """Blocks up to and with this height are forgotten."""

    through: U64


@dataclass(frozen=True, slots=True)
class FinalRow:
    """A final block."""

    block: Block
    beacon: Hash


@dataclass(frozen=True, slots=True)
class LaneRow:
    """A stored batch without its payload."""

    header: BatchHeader
    batch_bytes: U32


@dataclass(frozen=True, slots=True)
class PlaceRow:
    """Where the batch of a digest stands."""

    epoch: U64
    lane: U32
    sequence: U64


@dataclass(frozen=True, slots=True)
class Executed:
    """What execution made of a block."""

    link: ExecutionLink
    execution_root: Hash
    beacon: Hash
    stored_bytes: U64
    """Of its leaves, journal and payloads."""


@dataclass(frozen=True, slots=True)
class JournalEntry:
    """One changed record."""

    table: U8
    key: Annotated[bytes, Size(RECORD_KEY_BYTES_MAX)]
    value: Annotated[bytes, Size(RECORD_BYTES_MAX)] | None


@dataclass(frozen=True, slots=True)
class JournalRow:
    """All records and accounts a block changed."""

    entries: Annotated[tuple[JournalEntry, ...], Count(JOURNAL_ENTRIES_MAX)]
    accounts: Annotated[bytes, Size(RECORD_BYTES_MAX)]


# What grows with a block's transactions is laid out by hand: the journal as `encode` gives it, at a
# fraction of the cost (it is read back through `decode`), leaves as two slices.


def journal_bytes(journal: Journal, accounts: bytes) -> bytes:
    """`encode(JournalRow(...))` of the same entries."""
    out = bytearray(len(journal).to_bytes(4, "little"))
    for table, key, value in journal:
        out.append(table)
        out += len(key).to_bytes(4, "little")
        out += key
        if value is None:
            out.append(0)
        else:
            out.append(1)
            out += len(value).to_bytes(4, "little")
            out += value
    out += len(accounts).to_bytes(4, "little")
    return b"".join((out, accounts))


def packed(leaves: Sequence[bytes]) -> PackedLeaves:
    """The same leaves, packed."""
    return leaves if isinstance(leaves, PackedLeaves) else PackedLeaves.from_list(leaves)


def leaves_bytes(leaves: PackedLeaves) -> bytes:
    """Their number as u32-LE, their ends, their data."""
    return b"".join((len(leaves).to_bytes(END_BYTES, "little"), leaves.ends, leaves.data))


def leaves_of_row(row: bytes) -> PackedLeaves:
    """What `leaves_bytes` laid out. Raises StoreError for anything else."""
    ends = END_BYTES + END_BYTES * int.from_bytes(row[:END_BYTES], "little")
    try:
        if len(row) < ends:
            raise ValueError(f"{len(row)} bytes hold no {ends} bytes of ends")
        return PackedLeaves(row[ends:], row[END_BYTES:ends])
    except ValueError as error:
        raise damaged(f"a row of leaves cannot be read ({error})") from error


def read_leaves(rocks: Rocks, key: bytes) -> PackedLeaves:
    """The leaves in a row; none if there is no such row. Raises StoreError."""
    row = rocks.get(key)
    return PackedLeaves() if row is None else leaves_of_row(row)


def read_row(rocks: Rocks, kind: type[T], key: bytes) -> T | None:
    """The value in a row, if there is one. Raises StoreError if it is damaged."""
    data = rocks.get(key)
    return None if data is None else decode_row(kind, data)


def decode_row(kind: type[T], data: bytes) -> T:
    """What a row holds. Raises StoreError if it is damaged."""
    try:
        return decode(kind, data)
    except DecodeError as error:
        raise damaged(f"a {kind.__name__} cannot be read ({error})") from error


def damaged(detail: str) -> StoreError:
    """The error for rows that no store wrote so."""
    return StoreError(f"the store is damaged: {detail}; restore this home from a snapshot")
