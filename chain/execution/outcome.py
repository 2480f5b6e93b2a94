"""What goes into the execution of a block, and what comes out."""

from dataclasses import dataclass
from typing import NamedTuple

from chain.leaves import PackedLeaves
from chain.records import ExecutionLink, Job, JobReceipt
from chain.rejections import RejectionReason
from consensus.wire import U64, Hash
from ext.transactions import ParsedBatch


@dataclass(frozen=True, slots=True)
class BlockContext:
    """What execution needs to know of a final block."""

    height: int
    timestamp_ms: int
    beacon: bytes
    proposer: int


@dataclass(frozen=True, slots=True, eq=False)
class LaneBatch:
    """One batch that the block makes final; its owner's index is the lane."""

    lane: int
    batch: ParsedBatch
    """Transactions whose signatures were checked, and the owner's own JobCommits and JobReveals."""


@dataclass(frozen=True, slots=True)
class LedgerMeta:
    """What a restart needs beside the tables; the state root does not cover it."""

    height: U64
    timestamp_ms: U64
    execution_root: Hash


class NewJob(NamedTuple):
    """Which operation of which transaction asked for a job."""

    job: bytes
    transaction: bytes
    operation: int


@dataclass(frozen=True, slots=True)
class RefusedAttestation:
    """An attestation that changed nothing, for logs and metrics."""

    validator: int
    reason: RejectionReason
    detail: str


@dataclass(frozen=True, slots=True)
class BlockOutcome:
    """Everything one block changed. Equal on every node; no object for each transaction."""

    link: ExecutionLink
    execution_root: bytes
    meta: LedgerMeta
    receipts: PackedLeaves
    """Leaves of the receipts tree: TransactionReceipt.leaf() and JobReceipt.leaf(). A replayed
    transaction leaves no second receipt."""
    events: PackedLeaves
    """Leaves of the events tree: Event.leaf()."""
    job_receipts: tuple[tuple[int, bytes, JobReceipt], ...]
    """(leaf index, job id, receipt) of each job that became final."""
    journal: tuple[tuple[int, bytes, bytes | None], ...]
    """(table, key, stored value or None if deleted) of every changed row, sorted; no accounts."""
    accounts: bytes
    """Every changed account row, packed as `ext.ledger` does, in order of row number."""
    changed_jobs: tuple[tuple[bytes, Job], ...]
    changed_appeals: tuple[tuple[bytes, Job], ...]
    """Jobs under appeal, as their arbiters see them."""
    new_jobs: tuple[NewJob, ...]
    payloads: tuple[tuple[bytes, bytes], ...]
    """(digest, bytes) of RequestInference and InferenceResult messages that jobs now refer to, and
    (key, bytes) of `choices.Choice`, which nothing refers to."""
    refused_attestations: tuple[RefusedAttestation, ...]
    wants_blocks: bool
    """True while some job's next step needs nothing but another block."""
    next_deadline_ms: int | None
    """The earliest deadline of an open job; a block later than this moves it on."""
