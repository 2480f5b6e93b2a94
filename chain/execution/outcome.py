"""What goes into the execution of a block, and what comes out."""

from collections.abc import Sequence
from dataclasses import dataclass

from chain.events import Event
from chain.records import ExecutionLink, Job, JobReceipt
from chain.rejections import RejectionReason
from chain.transactions import Transaction
from consensus.wire import U64, Hash


@dataclass(frozen=True, slots=True)
class BlockContext:
    """What execution needs to know of a final block."""

    height: int
    timestamp_ms: int
    beacon: bytes
    proposer: int


@dataclass(frozen=True, slots=True)
class Rejected:
    """A transaction of a batch that could not be decoded: it pays nothing and does nothing."""

    id: bytes
    reason: RejectionReason


@dataclass(frozen=True, slots=True)
class LaneBatch:
    """One batch that the block makes final; its owner's index is the lane."""

    lane: int
    transactions: Sequence[Transaction | Rejected]
    attestations: Sequence[bytes]
    """Encoded JobCommit or JobReveal; the attestor is the lane's owner."""


@dataclass(frozen=True, slots=True)
class LedgerMeta:
    """What a restart needs beside the tables; the state root does not cover it."""

    height: U64
    timestamp_ms: U64
    execution_root: Hash


@dataclass(frozen=True, slots=True)
class RefusedAttestation:
    """An attestation that changed nothing, for logs and metrics."""

    validator: int
    reason: RejectionReason
    detail: str


@dataclass(frozen=True, slots=True)
class BlockOutcome:
    """Everything one block changed. Equal on every node."""

    link: ExecutionLink
    execution_root: bytes
    meta: LedgerMeta
    receipt_leaves: tuple[bytes, ...]
    """Leaf data of the receipts tree, in order: TransactionReceipt.leaf() and JobReceipt.leaf()."""
    transaction_receipts: tuple[tuple[int, bytes], ...]
    """(leaf index, transaction id). A replayed transaction leaves no second receipt."""
    job_receipts: tuple[tuple[int, bytes, JobReceipt], ...]
    """(leaf index, job id, receipt) of each job that became final."""
    events: tuple[Event, ...]
    journal: tuple[tuple[int, bytes, bytes | None], ...]
    """(table, key, value or None if deleted) of every changed row, sorted."""
    changed_jobs: tuple[tuple[bytes, Job], ...]
    payloads: tuple[tuple[bytes, bytes], ...]
    """(digest, bytes) of RequestInference and InferenceResult messages that jobs now refer to."""
    refused_attestations: tuple[RefusedAttestation, ...]
    wants_blocks: bool
    """True while some job's next step needs nothing but another block."""
    next_deadline_ms: int | None
    """The earliest deadline of an open job; a block later than this moves it on."""
