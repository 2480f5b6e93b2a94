"""The replica's boundary: what it is told, what it asks for, and what it is made of.

A driver (the node, or the simulator) feeds events and performs the effects of each step in order.
It may batch them, under one rule: everything named by a Persist or StoreBatch is durable before
any later Send or Broadcast leaves. Times are unix milliseconds. Peers are named by validator
index; a driver may use higher numbers for peers that are no validators.
"""

from dataclasses import dataclass
from typing import Protocol

from consensus.epochs import EpochBoundary, last_height
from consensus.evidence import Evidence
from consensus.messages import Message
from consensus.values import Batch, BatchHeader, Block, Certificate, ValidatorSet


@dataclass(frozen=True, slots=True)
class Timing:
    """The clockwork of one chain; every validator uses the same."""

    leader_timeout_ms: int = 1_000
    """2 delta: how long a due proposal may take to arrive. Half of it is the pace of resends."""
    leader_timeout_least_ms: int = 300
    """A leader that is always quick is waited for this long at least (`punctuality`)."""
    certificate_timeout_ms: int = 1_500
    """3 delta: how long a due view may last in all."""
    block_interval_ms: int = 100
    """Least time between two blocks while there is work."""
    heartbeat_ms: int = 10_000
    """An empty block is due this long after the last one."""

    def __post_init__(self) -> None:
        if not 1 <= self.leader_timeout_ms <= self.certificate_timeout_ms:
            raise ValueError(
                f"leader_timeout_ms {self.leader_timeout_ms} must be at least 1 and at most "
                f"certificate_timeout_ms {self.certificate_timeout_ms}"
            )
        if self.leader_timeout_least_ms < 1:
            raise ValueError(
                f"leader_timeout_least_ms {self.leader_timeout_least_ms} must be at least 1"
            )
        if not 0 <= self.block_interval_ms <= self.heartbeat_ms or self.heartbeat_ms < 1:
            raise ValueError(
                f"block_interval_ms {self.block_interval_ms} must be at least 0 and at most "
                f"heartbeat_ms {self.heartbeat_ms}, which must be at least 1"
            )


@dataclass(frozen=True, slots=True)
class ReplicaConfig:
    """What a replica must know before it speaks: the chain, its members, its own seat."""

    chain_id: str
    genesis_digest: bytes
    """32 bytes; stands as the digest of height 0."""
    genesis_timestamp_ms: int
    genesis_execution_root: bytes
    """Execution root of height 0, 32 bytes."""
    validators: ValidatorSet
    own_index: int | None
    """None for an observer: it follows and delivers, and never signs."""
    timing: Timing
    epoch_blocks: int = 0
    """Blocks of an epoch; 0: this one lasts for ever."""
    root: "FinalBlock | None" = None
    """The last block of the epoch before; None: genesis."""
    next_validators: ValidatorSet | None = None
    """Of the epoch after this one; None if there is none."""

    @property
    def last_height(self) -> int | None:
        """Where this epoch ends; None: nowhere."""
        return last_height(self.validators.epoch, self.epoch_blocks)

    @property
    def base_view(self) -> int:
        """The view before this epoch's first."""
        return 0 if self.root is None else self.root.block.view


class Signer(Protocol):
    """Holds a validator's two keys."""

    def sign(self, message: bytes) -> bytes:
        """Ed25519 signature by the signing key, 64 bytes."""
        ...

    def prove_vrf(self, alpha: bytes) -> bytes:
        """ECVRF proof by the VRF key, 80 bytes."""
        ...


@dataclass(frozen=True, slots=True)
class FinalBlock:
    """A finalized block and the beacon that its VRF output makes."""

    block: Block
    beacon: bytes


@dataclass(frozen=True, slots=True)
class Recovered:
    """What survived: the WAL's records and what the store holds. Empty for a fresh chain."""

    wal_records: tuple[bytes, ...] = ()
    finalized: tuple[FinalBlock, ...] = ()
    """Stored finalized blocks in height order without gaps: from the newest executed one (if it is
    not genesis) up to the newest stored one."""
    certificate: Certificate | None = None
    """Finalizes the last of `finalized`."""
    executed: tuple[tuple[int, bytes], ...] = ()
    """(height, execution root) of executed heights, rising; the newest 256 are enough. The first
    block of `finalized` is the last of these."""
    own_tip: BatchHeader | None = None
    """Header of the newest own batch in the store."""
    headers: tuple[BatchHeader, ...] = ()
    """Headers of the stored batches above the executed cut, in any order (own lane included)."""


# --- events -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Start:
    """Begin; the first event after `recover`."""


@dataclass(frozen=True, slots=True)
class MessageReceived:
    """A decoded message from an authenticated peer."""

    peer: int
    message: Message


@dataclass(frozen=True, slots=True)
class PeerConnected:
    """A peer is reachable (again): it is told where we stand."""

    peer: int


@dataclass(frozen=True, slots=True)
class SealBatch:
    """Append this payload to the own lane. Refused with LaneFull while `lane_room` is 0."""

    payload: bytes


@dataclass(frozen=True, slots=True)
class BatchChecked:
    """The driver's answer to CheckBatch."""

    peer: int
    header_digest: bytes
    valid: bool


@dataclass(frozen=True, slots=True)
class Executed:
    """A delivered block was executed; `root` is the execution root of its height."""

    height: int
    root: bytes


@dataclass(frozen=True, slots=True)
class Demand:
    """Whether execution wants blocks although the lanes are empty, and how fast."""

    blocks_wanted: bool
    interval_ms: int = 0
    """At least this long after the last block; `block_interval_ms` still holds."""


@dataclass(frozen=True, slots=True)
class Tick:
    """The time named by the last WakeAt has come (earlier or later does no harm)."""


Event = (
    Start | MessageReceived | PeerConnected | SealBatch | BatchChecked | Executed | Demand | Tick
)


# --- effects ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Persist:
    """Append to the WAL; durable before any later Send or Broadcast, and not before an earlier
    StoreBatch."""

    record: bytes


@dataclass(frozen=True, slots=True)
class Compact:
    """Replace the WAL's records by these. Comes after the Finalized that made the others idle."""

    records: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class StoreBatch:
    """Keep a checked batch, by digest (a forked lane has two for one sequence); durable before
    any later Send or Broadcast."""

    batch: Batch


@dataclass(frozen=True, slots=True)
class Send:
    """To one peer, if it is connected; may be lost."""

    peer: int
    message: Message


@dataclass(frozen=True, slots=True)
class Broadcast:
    """To every other validator; may be lost."""

    message: Message


@dataclass(frozen=True, slots=True)
class CheckBatch:
    """Run the pipeline on the payload and answer BatchChecked(peer, batch.header.digest(), …).
    Its header, its signature and its payload root have been checked."""

    peer: int
    batch: Batch


@dataclass(frozen=True, slots=True)
class Finalized:
    """Newly final blocks in height order; the certificate finalizes the last. Store them: they are
    what this validator serves to those who lag."""

    blocks: tuple[FinalBlock, ...]
    certificate: Certificate | None
    """None for an epoch's last block that became final under a filler's certificate."""


@dataclass(frozen=True, slots=True)
class EpochEnded:
    """The newest Finalized ended the epoch; this is for ever the proof of it, and durable no later
    than that block. The replica signs nothing more. It still delivers and serves, until all is
    executed: then the driver makes the next epoch's replica."""

    boundary: EpochBoundary


@dataclass(frozen=True, slots=True)
class LaneIncrement:
    """The batches of one lane that a block makes final."""

    lane: int
    first_sequence: int
    last_sequence: int
    digests: tuple[bytes, ...]
    """One for each sequence from first to last."""


@dataclass(frozen=True, slots=True)
class Deliver:
    """Execute this block: it is final and every batch it names is stored. In height order, each
    once (after a restart from the first that `Recovered` does not call executed)."""

    block: Block
    beacon: bytes
    certificate: Certificate | None
    """None for a block that became final under a descendant's certificate."""
    increments: tuple[LaneIncrement, ...]
    """In order of lane."""


@dataclass(frozen=True, slots=True)
class WakeAt:
    """Send Tick at this time. Replaces the earlier WakeAt."""

    at_ms: int


@dataclass(frozen=True, slots=True)
class LoadBlocks:
    """Serve a lagging peer from the store: send Blocks from `from_height`, in height order, as many
    as BLOCKS_PER_MESSAGE_MAX and BLOCKS_BYTES_MAX allow, all of one epoch, ending at a block whose
    finalization certificate is stored, or at the epoch's last with the fillers above it."""

    peer: int
    from_height: int


@dataclass(frozen=True, slots=True)
class LoadBatch:
    """Serve a peer from the store: send BatchMessage(batch, None) for the batch with this digest
    and, following `header.parent`, up to `count - 1` ancestors; stop at 1 MiB. Oldest first is
    best, but any order serves."""

    peer: int
    lane: int
    sequence: int
    digest: bytes
    count: int


@dataclass(frozen=True, slots=True)
class Misbehaviour:
    """Self-contained proof that a validator broke a rule; one fault gives the same evidence."""

    evidence: Evidence


@dataclass(frozen=True, slots=True)
class Diverged:
    """The chain made another execution root final than ours: own execution or storage is broken.
    Stop executing, say so; never sign on."""

    height: int
    own_root: bytes
    final_root: bytes


Effect = (
    Persist
    | Compact
    | StoreBatch
    | Send
    | Broadcast
    | CheckBatch
    | Finalized
    | EpochEnded
    | Deliver
    | WakeAt
    | LoadBlocks
    | LoadBatch
    | Misbehaviour
    | Diverged
)


class LaneFull(Exception):
    """The own lane is as far ahead of its final tip as it may be; wait for `lane_room`."""
