"""The values validators agree on: blocks, votes, certificates, batches, and who may sign them.

Digests are `H(tag, encode(value))`; signatures never enter a digest. A signature covers
tag, chain id and the value's own bytes, so nothing signed for one purpose or chain serves another.
"""

import enum
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Annotated

from consensus.wire import (
    I32,
    U8,
    U16,
    U32,
    U64,
    Count,
    Exactly,
    Hash,
    PublicKey,
    Signature,
    Size,
    encode,
)
from ext.hashing import tagged_hash

VALIDATORS_MAX = 128
BATCH_PAYLOAD_BYTES_MAX = 1 << 20
ZERO_HASH = bytes(32)


class VoteKind(enum.IntEnum):
    """What a vote says about a view (Simplex, section 5 of the design)."""

    NOTARIZE = 1
    NULLIFY = 2
    FINALIZE = 3


@dataclass(frozen=True, slots=True)
class Tip:
    """The newest batch of one lane that a block makes final: 44 bytes."""

    lane: U32
    sequence: U64
    digest: Hash


@dataclass(frozen=True, slots=True)
class Block:
    """A cut over all lanes; it carries no payload."""

    epoch: U64
    view: U64
    height: U64
    parent_view: U64
    parent: Hash
    proposer: U16
    timestamp_ms: U64
    cut: Annotated[tuple[Tip, ...], Count(VALIDATORS_MAX)]
    """One tip for each lane that has a final batch, in order of lane."""
    vrf_proof: Annotated[bytes, Exactly(80)]
    """The proposer's ECVRF proof on its parent's beacon."""
    executed_height: U64
    """The newest final height, at least two below, whose execution the proposer vouches for."""
    executed_root: Hash
    next_validators: Hash = ZERO_HASH
    """`ValidatorSet.digest()` of the next epoch in the last block of an epoch, else zero."""

    def digest(self) -> bytes:
        """What votes and children name: 32 bytes."""
        return tagged_hash(b"block", encode(self))


@dataclass(frozen=True, slots=True)
class VoteBody:
    """What a vote's signature covers, after the tag and the chain id."""

    kind: VoteKind
    epoch: U64
    view: U64
    parent_view: U64
    digest: Hash

    def signed_message(self, chain_id: str) -> bytes:
        """The bytes under the signature: 32 bytes. `parent_view` and `digest` are zero to
        nullify."""
        return tagged_hash(b"vote", chain_id.encode(), encode(self))


@dataclass(frozen=True, slots=True)
class Vote:
    """One validator's vote."""

    body: VoteBody
    signer: U16
    signature: Signature


@dataclass(frozen=True, slots=True)
class Certificate:
    """Votes of one kind, for one body, by more than two thirds of the stake."""

    body: VoteBody
    signers: Annotated[tuple[U16, ...], Count(VALIDATORS_MAX)]
    """Validator indices in rising order."""
    signatures: Annotated[tuple[Signature, ...], Count(VALIDATORS_MAX)]
    """One for each signer, in the same order."""


@dataclass(frozen=True, slots=True)
class BatchHeader:
    """A link of a lane's hash chain."""

    epoch: U64
    lane: U32
    sequence: U64
    """The first batch of a lane is 1."""
    parent: Hash
    """The digest of batch `sequence - 1`; zero for the first."""
    payload_root: Hash
    """SHA-256 of the payload bytes."""

    def digest(self) -> bytes:
        """What acks and tips name: 32 bytes."""
        return tagged_hash(b"batch", encode(self))

    def signed_message(self, chain_id: str) -> bytes:
        """The bytes under the owner's signature."""
        return tagged_hash(b"lane", chain_id.encode(), encode(self))


@dataclass(frozen=True, slots=True)
class Batch:
    """Transactions and attestations sealed by a lane's owner."""

    header: BatchHeader
    signature: Signature
    payload: Annotated[bytes, Size(BATCH_PAYLOAD_BYTES_MAX)]
    """A serialised BatchPayload (node.proto), opaque to ordering."""


@dataclass(frozen=True, slots=True)
class Validator:
    """One member of a validator set."""

    index: U16
    """Its id for life: sets of other epochs may lack it, and it is no position."""
    signing_key: PublicKey
    vrf_key: PublicKey
    account: PublicKey
    """Where its rewards go, and who operates its provider."""
    stake: U64
    """Voting weight."""


@dataclass(frozen=True)
class ValidatorSet:
    """The validators of one epoch, rising by id. Quorums are counted in stake, never in heads."""

    epoch: int
    members: tuple[Validator, ...]
    """In rising order of id; ids have gaps where validators have left."""
    by_account: dict[bytes, int] = field(init=False, repr=False, compare=False)
    by_index: dict[int, Validator] = field(init=False, repr=False, compare=False)
    """By id."""

    def __post_init__(self) -> None:
        if not 1 <= len(self.members) <= VALIDATORS_MAX:
            raise ValueError(f"{len(self.members)} validators, allowed are 1 to {VALIDATORS_MAX}")
        if any(left.index >= right.index for left, right in pairwise(self.members)):
            raise ValueError("validators are not in rising order of id")
        for member in self.members:
            if member.stake < 1:
                raise ValueError(f"validator {member.index} has stake {member.stake}")
        for name in ("signing_key", "vrf_key", "account"):
            if len({getattr(member, name) for member in self.members}) != len(self.members):
                raise ValueError(f"two validators share a {name}")
        accounts = {member.account: member.index for member in self.members}
        object.__setattr__(self, "by_account", accounts)
        by_index = {member.index: member for member in self.members}
        object.__setattr__(self, "by_index", by_index)

    @property
    def ids(self) -> tuple[int, ...]:
        """Of all members, rising."""
        return tuple(self.by_index)

    @cached_property
    def _digest(self) -> bytes:
        return tagged_hash(
            b"validators", self.epoch.to_bytes(8, "little"), *map(encode, self.members)
        )

    def digest(self) -> bytes:
        """What names this set of this epoch: 32 bytes."""
        return self._digest

    @cached_property
    def stake_total(self) -> int:
        """Stake of all members."""
        return sum(member.stake for member in self.members)

    @cached_property
    def quorum_stake(self) -> int:
        """The least stake that is more than two thirds of the total."""
        return self.stake_total * 2 // 3 + 1

    @cached_property
    def honest_stake(self) -> int:
        """The least stake that must hold an honest member, if less than a third is not: f + 1."""
        return (self.stake_total - 1) // 3 + 1

    @property
    def availability_stake(self) -> int:
        """The least stake whose acks prove that a lane can be had: one of them is honest."""
        return self.honest_stake

    def weight(self, signers: frozenset[int] | set[int]) -> int:
        """Stake of the named members; ids of nobody here weigh nothing."""
        by_index = self.by_index
        return sum(by_index[index].stake for index in signers if index in by_index)

    def others(self, first: int, own: int | None) -> list[int]:
        """Ids of all but the own, from `first` on round and round."""
        ids = self.ids
        start = next((place for place, index in enumerate(ids) if index >= first), 0)
        return [index for index in ids[start:] + ids[:start] if index != own]


class Verdict(enum.IntEnum):
    """A verifier's word on a result. ABSTAIN (no such model, runtime down) is never FAIL."""

    PASS = 1
    FAIL = 2
    ABSTAIN = 3


@dataclass(frozen=True, slots=True)
class Scores:
    """Integer scores of one verification, as in inference.proto; distances in 2^-20 nats."""

    positions: U32
    replay_mismatches: U32
    margin_max: U32
    margin_sum: U64
    distance_max: U32
    distance_sum: U64
    outside_candidates: U32
    doubt_sum: U64
    """How much honest engines may differ on these tokens, in 2^-20: at most 1 for each position.
    `runtime.scoring.doubt_of` has the formula."""
    input_tokens: U32
    finish_plausible: bool
    text_matches: bool
    opening_margin_sum: U64 = 0
    """This and the next two are of the first `bets.OPENING_TOKENS` positions alone."""
    opening_distance_sum: U64 = 0
    opening_doubt_sum: U64 = 0


class AttestationKind(enum.IntEnum):
    """First byte of an attestation in a batch payload."""

    COMMIT = 1
    REVEAL = 2


@dataclass(frozen=True, slots=True)
class JobCommit:
    """A verifier binds itself to its verdict before it sees another's."""

    kind: AttestationKind
    job: Hash
    round: U8
    """0 for the drawn committee, 1 for the escalated one."""
    commitment: Hash


FINGERPRINT_VALUES_MAX = 256
APPEAL_ROUND = 255
"""Of commits and reveals in an appeal; committees' rounds count from 0 and end long before."""


@dataclass(frozen=True, slots=True)
class JobReveal:
    """The opening of a commitment: `H("commit", job, verifier account, encode(this))`."""

    kind: AttestationKind
    job: Hash
    round: U8
    verdict: Verdict
    scores: Scores
    fingerprint: Annotated[tuple[I32, ...], Count(FINGERPRINT_VALUES_MAX)]
    salt: Hash

    def commitment(self, verifier: bytes) -> bytes:
        """The digest a JobCommit carries; binding the verifier stops copying."""
        return commitment_to(encode(self), self.job, verifier)


def commitment_to(reveal: bytes, job: bytes, verifier: bytes) -> bytes:
    """The digest that commits a verifier (its account) to an encoded JobReveal of the job."""
    return tagged_hash(b"commit", job, verifier, reveal)
