"""The values in the store's rows, and what a block's commit consists of."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Final

from chain.records import ExecutionLink, JobReceipt
from consensus.values import Block, Certificate
from consensus.wire import U8, U32, U64, Count, Hash, Size, decode

LEAF_BYTES_MAX: Final = 1 << 20
ROW_ENTRIES_MAX: Final = 1 << 24
RECORD_KEY_BYTES_MAX: Final = 1024
RECORD_BYTES_MAX: Final = 1 << 30
CHAIN_ID_BYTES_MAX: Final = 64

Journal = Sequence[tuple[int, bytes, bytes | None]]
"""(table 0 to 255, key, value or None to delete)."""


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
    """Leaf data in order; transactions and jobs are indexed from them."""
    events: Sequence[bytes]
    journal: Journal
    payloads: Sequence[tuple[bytes, bytes]] = ()
    """(digest, bytes) of requests and results, whose digests alone are in the ledger."""
    job_origins: Sequence[JobOrigin] = ()
    """Jobs requested in this block."""


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


@dataclass(frozen=True, slots=True)
class FinalRow:
    """A final block."""

    block: Block
    beacon: Hash


@dataclass(frozen=True, slots=True)
class Executed:
    """What execution made of a block."""

    link: ExecutionLink
    execution_root: Hash
    beacon: Hash


@dataclass(frozen=True, slots=True)
class JournalEntry:
    """One changed record."""

    table: U8
    key: Annotated[bytes, Size(RECORD_KEY_BYTES_MAX)]
    value: Annotated[bytes, Size(RECORD_BYTES_MAX)] | None


@dataclass(frozen=True, slots=True)
class JournalRow:
    """All records a block changed."""

    entries: Annotated[tuple[JournalEntry, ...], Count(ROW_ENTRIES_MAX)]


@dataclass(frozen=True, slots=True)
class LeavesRow:
    """The leaves of one of a block's trees."""

    leaves: Annotated[tuple[Annotated[bytes, Size(LEAF_BYTES_MAX)], ...], Count(ROW_ENTRIES_MAX)]


def job_of_leaf(leaf: bytes) -> bytes:
    """The job id (32 bytes) in a job receipt's leaf."""
    return decode(JobReceipt, leaf[1:]).job


# What is written once for each transaction is laid out by hand: the same bytes as `encode` gives,
# at a fraction of its cost. It is read back through `decode`, so a difference cannot stay hidden.


def transaction_of_leaf(leaf: bytes) -> bytes:
    """The transaction id (32 bytes) in a transaction receipt's leaf: its first field."""
    return leaf[1:33]


def location_bytes(height: int, index: int) -> bytes:
    """`encode(LeafLocation(height, index))`."""
    return height.to_bytes(8, "little") + index.to_bytes(4, "little")


def leaves_bytes(leaves: Sequence[bytes]) -> bytes:
    """`encode(LeavesRow(tuple(leaves)))`."""
    out = bytearray(len(leaves).to_bytes(4, "little"))
    for leaf in leaves:
        out += len(leaf).to_bytes(4, "little")
        out += leaf
    return bytes(out)


def journal_bytes(journal: Journal) -> bytes:
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
    return bytes(out)
