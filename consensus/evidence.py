"""Proof that a validator broke a rule: two of its own signatures that no honest validator makes.

Evidence is self-contained (it needs the validator set and the chain id, nothing else) and
canonical (the two halves are sorted by their encoding), so the same fault found twice is the same
evidence.

Faults: two notarize votes in a view for different blocks; two finalize votes in a view for
different blocks; nullify and finalize in one view; two proposals for a view; two batches at one
place of a lane.
"""

import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Final

from consensus.messages import Proposal, proposal_message
from consensus.values import BatchHeader, ValidatorSet, Vote, VoteKind
from consensus.wire import U16, DecodeError, Signature, Size, decode, encode
from ext import signatures
from ext.hashing import tagged_hash

EVIDENCE_HALF_BYTES_MAX: Final = 8_192
EVIDENCE_BYTES_MAX: Final = 2 * EVIDENCE_HALF_BYTES_MAX + 16
"""Of all of it, encoded."""

Verify = Callable[[bytes, bytes, bytes], bool]
"""(public key, message, signature) -> whether the signature is good."""


class Fault(enum.IntEnum):
    """Which rule was broken."""

    CONFLICTING_VOTES = 1
    CONFLICTING_PROPOSALS = 2
    CONFLICTING_BATCHES = 3


@dataclass(frozen=True, slots=True)
class SignedHeader:
    """A batch without its payload, as its owner signed it."""

    header: BatchHeader
    signature: Signature


@dataclass(frozen=True, slots=True)
class Evidence:
    """Two encoded values of the kind that `fault` names, both signed by `culprit`."""

    fault: Fault
    culprit: U16
    first: Annotated[bytes, Size(EVIDENCE_HALF_BYTES_MAX)]
    second: Annotated[bytes, Size(EVIDENCE_HALF_BYTES_MAX)]

    def digest(self) -> bytes:
        """What makes two reports the same: 32 bytes."""
        return tagged_hash(b"evidence", encode(self))


Half = Vote | Proposal | SignedHeader
_HALVES: Final[dict[Fault, type[Half]]] = {
    Fault.CONFLICTING_VOTES: Vote,
    Fault.CONFLICTING_PROPOSALS: Proposal,
    Fault.CONFLICTING_BATCHES: SignedHeader,
}


def conflict(fault: Fault, culprit: int, first: Half, second: Half) -> Evidence:
    """Evidence from two signed values; their order does not matter."""
    halves = sorted((encode(first), encode(second)))
    return Evidence(fault, culprit, halves[0], halves[1])


def evidence_fault(
    evidence: Evidence,
    validators: ValidatorSet,
    chain_id: str,
    verify: Verify = signatures.verify,
) -> str | None:
    """Why the evidence proves nothing, or None if it convicts the culprit."""
    if evidence.culprit not in validators.by_index:
        return f"culprit {evidence.culprit} is none of {len(validators.members)} validators"
    if evidence.first >= evidence.second:
        return "the halves are equal or not in order"
    kind = _HALVES[evidence.fault]
    try:
        first, second = decode(kind, evidence.first), decode(kind, evidence.second)
    except DecodeError as error:
        return f"a half does not decode: {error}"
    for half in (first, second):
        epoch, signer, message, signature = _statement(half, chain_id)
        if epoch != validators.epoch:
            return f"epoch is {epoch}, the validator set is of epoch {validators.epoch}"
        if signer != evidence.culprit:
            return f"a half is by validator {signer}, the culprit is {evidence.culprit}"
        if not verify(validators.by_index[signer].signing_key, message, signature):
            return f"a signature of validator {signer} is bad"
    if not contradicts(first, second):
        return "an honest validator may sign both halves"
    return None


def contradicts(first: Half, second: Half) -> bool:
    """Whether no honest validator signs both (epochs and signers are compared by the caller)."""
    if isinstance(first, Vote) and isinstance(second, Vote):
        if first.body == second.body or first.body.view != second.body.view:
            return False
        kinds = {first.body.kind, second.body.kind}
        return len(kinds) == 1 or kinds == {VoteKind.NULLIFY, VoteKind.FINALIZE}
    if isinstance(first, Proposal) and isinstance(second, Proposal):
        return first.block.view == second.block.view and first.block != second.block
    if isinstance(first, SignedHeader) and isinstance(second, SignedHeader):
        same_place = first.header.sequence == second.header.sequence
        return same_place and first.header != second.header
    return False


def _statement(half: Half, chain_id: str) -> tuple[int, int, bytes, bytes]:
    """Epoch, signer, signed message and signature of one half."""
    if isinstance(half, Vote):
        return half.body.epoch, half.signer, half.body.signed_message(chain_id), half.signature
    if isinstance(half, Proposal):
        message = proposal_message(chain_id, half.block.digest())
        return half.block.epoch, half.block.proposer, message, half.signature
    header = half.header
    return header.epoch, header.lane, header.signed_message(chain_id), half.signature
