"""What validators say to each other, and the one envelope it travels in.

A message is one tag byte and the canonical encoding of the value (`consensus.wire`).
`decode_message` is total: any bytes give a message or a DecodeError. Nothing here is trusted:
signatures, indices and heights are judged by the part that receives the value.
"""

from dataclasses import dataclass
from typing import Annotated, Final

from consensus.values import (
    BATCH_PAYLOAD_BYTES_MAX,
    VALIDATORS_MAX,
    Batch,
    Block,
    Certificate,
    Tip,
    Vote,
)
from consensus.wire import U16, U64, Count, DecodeError, Hash, Signature, decode, encode
from ext.hashing import tagged_hash

BLOCKS_PER_MESSAGE_MAX: Final = 256
"""Blocks in one answer; a driver also stops at BLOCKS_BYTES_MAX."""
BLOCKS_BYTES_MAX: Final = 1 << 20
CERTIFICATES_PER_MESSAGE_MAX: Final = 32
BATCHES_PER_REQUEST_MAX: Final = 32
MESSAGE_BYTES_MAX: Final = BATCH_PAYLOAD_BYTES_MAX + (1 << 18)
"""Larger messages are refused before they are decoded."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """A leader's block for its view."""

    block: Block
    signature: Signature
    """The proposer's, over `proposal_message`."""


def proposal_message(chain_id: str, block_digest: bytes) -> bytes:
    """The bytes under a proposal's signature."""
    return tagged_hash(b"proposal", chain_id.encode(), block_digest)


@dataclass(frozen=True, slots=True)
class Certificates:
    """Certificates the receiver may lack, in rising order of view."""

    items: Annotated[tuple[Certificate, ...], Count(CERTIFICATES_PER_MESSAGE_MAX)]


@dataclass(frozen=True, slots=True)
class AckBody:
    """What an ack's signature covers, after the tag and the chain id."""

    epoch: U64
    tip: Tip

    def signed_message(self, chain_id: str) -> bytes:
        """The bytes under the signature: 32 bytes."""
        return tagged_hash(b"ack", chain_id.encode(), encode(self))


@dataclass(frozen=True, slots=True)
class Ack:
    """`signer` has checked and durably holds the lane up to this batch."""

    body: AckBody
    signer: U16
    signature: Signature


@dataclass(frozen=True, slots=True)
class AvailabilityProof:
    """Acks by at least f + 1 of the stake: somebody honest holds the lane up to this tip."""

    body: AckBody
    signers: Annotated[tuple[U16, ...], Count(VALIDATORS_MAX)]
    """Validator indices in rising order."""
    signatures: Annotated[tuple[Signature, ...], Count(VALIDATORS_MAX)]


@dataclass(frozen=True, slots=True)
class BatchMessage:
    """A batch from its owner, or from a store; with the newest proof the owner has."""

    batch: Batch
    proof: AvailabilityProof | None


@dataclass(frozen=True, slots=True)
class ProofRequest:
    """Asks for the availability proof of a tip that a proposal names."""

    tip: Tip


@dataclass(frozen=True, slots=True)
class BatchRequest:
    """Asks for the batch with this digest and up to `count - 1` of its ancestors."""

    tip: Tip
    count: U16


@dataclass(frozen=True, slots=True)
class ProposalRequest:
    """Asks for the proposal with this block digest."""

    view: U64
    digest: Hash


@dataclass(frozen=True, slots=True)
class CertificatesRequest:
    """Asks for a certificate of every view from `from_view` up to and without `to_view`."""

    from_view: U64
    to_view: U64


@dataclass(frozen=True, slots=True)
class BlocksRequest:
    """Asks for the finalized blocks from this height on."""

    from_height: U64


@dataclass(frozen=True, slots=True)
class Blocks:
    """Finalized blocks of consecutive heights, of one epoch; the certificate finalizes the last."""

    blocks: Annotated[tuple[Block, ...], Count(BLOCKS_PER_MESSAGE_MAX)]
    certificate: Certificate
    fillers: Annotated[tuple[Block, ...], Count(BLOCKS_PER_MESSAGE_MAX)] = ()
    """Above an epoch's last block; the certificate finalizes the last of these, if there are any.
    """


LATER_VIEWS: Final = 1 << 32
"""More than anybody can be ahead; who forgot what it signed says that much more (`memory`)."""


@dataclass(frozen=True, slots=True)
class Status:
    """Where the sender stands; sent on connecting and when it has been stuck for a while."""

    view: U64
    finalized_height: U64
    finalized_view: U64
    tips: Annotated[tuple[Tip, ...], Count(VALIDATORS_MAX)]
    """For each lane the newest batch up to which the sender holds everything, in order of lane."""
    epoch: U64 = 0
    """Views, heights and tips are of this one."""

    @property
    def is_forgetful(self) -> bool:
        """Whether the sender's vote log is new, so that it can't vouch for where it stood."""
        return self.view > LATER_VIEWS

    @property
    def standing(self) -> int:
        """The sender's view."""
        return self.view - LATER_VIEWS if self.is_forgetful else self.view


Message = (
    Proposal
    | Vote
    | Certificates
    | BatchMessage
    | Ack
    | AvailabilityProof
    | ProofRequest
    | BatchRequest
    | ProposalRequest
    | CertificatesRequest
    | BlocksRequest
    | Blocks
    | Status
)

_KINDS: Final[dict[int, type[Message]]] = {
    1: Proposal,
    2: Vote,
    3: Certificates,
    4: BatchMessage,
    5: Ack,
    6: AvailabilityProof,
    7: ProofRequest,
    8: BatchRequest,
    9: ProposalRequest,
    10: CertificatesRequest,
    11: BlocksRequest,
    12: Blocks,
    13: Status,
}
_TAGS: Final = {kind: tag for tag, kind in _KINDS.items()}


def encode_message(message: Message) -> bytes:
    """Tag byte and canonical encoding. Raises ValueError if a field is out of its bounds."""
    return bytes((_TAGS[type(message)],)) + encode(message)


def decode_message(data: bytes) -> Message:
    """The message whose one encoding is `data`. Raises DecodeError for anything else."""
    if not 1 <= len(data) <= MESSAGE_BYTES_MAX:
        raise DecodeError(f"message of {len(data)} bytes, allowed are 1 to {MESSAGE_BYTES_MAX}")
    kind = _KINDS.get(data[0])
    if kind is None:
        raise DecodeError(f"message tag {data[0]} is unknown, known are 1 to {len(_KINDS)}")
    return decode(kind, data[1:])
