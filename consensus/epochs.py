"""Where one epoch ends and the next begins: the boundary, and how it is followed.

The last block of an epoch names the digest of the next one's validator set. Whoever trusts the set
of an epoch checks the certificate over its boundary with it, and then trusts the next set: by
`EpochBoundary.follow`, which needs no state and no other block.
"""

from dataclasses import dataclass, replace
from typing import Annotated, Final

from consensus.certificates import VerifyMany, certificate_fault
from consensus.values import (
    VALIDATORS_MAX,
    ZERO_HASH,
    Block,
    Certificate,
    Validator,
    ValidatorSet,
    VoteKind,
)
from consensus.wire import Count
from ext import signatures
from ext.hashing import tagged_hash

FILLERS_MAX: Final = 256
"""Between a boundary and the block whose certificate makes it final: most often none."""


def last_height(epoch: int, epoch_blocks: int) -> int | None:
    """Of an epoch; None if it lasts for ever, which is what `epoch_blocks` 0 says."""
    return (epoch + 1) * epoch_blocks or None


class BoundaryInvalid(Exception):
    """What was given as the end of an epoch is none. The message says why."""


@dataclass(frozen=True, slots=True)
class EpochBoundary:
    """The end of an epoch, with all that proves it to who trusts that epoch's validators."""

    block: Block
    """The epoch's last."""
    descendants: Annotated[tuple[Block, ...], Count(FILLERS_MAX)]
    """Fillers: blocks without content above it, up to the certified one. Never executed."""
    certificate: Certificate
    """Finalizes the last of them, or the boundary itself."""
    members: Annotated[tuple[Validator, ...], Count(VALIDATORS_MAX)]
    """Of the next epoch."""

    @property
    def validators(self) -> ValidatorSet:
        """The next epoch's. Raises ValueError if the members make no set."""
        return ValidatorSet(self.block.epoch + 1, self.members)

    def follow(
        self,
        trusted: ValidatorSet,
        chain_id: str,
        verify_many: VerifyMany = signatures.verify_many,
    ) -> ValidatorSet:
        """The next epoch's validators, on the word of the trusted ones of this epoch.

        Raises BoundaryInvalid.
        """
        fault = final_path_fault(self.block, self.descendants, self.certificate)
        if fault is None and self.block.epoch != trusted.epoch:
            fault = f"it ends epoch {self.block.epoch}, trusted is the set of {trusted.epoch}"
        if fault is None:
            fault = certificate_fault(self.certificate, trusted, chain_id, verify_many)
        if fault is not None:
            raise BoundaryInvalid(f"boundary of epoch {self.block.epoch}: {fault}")
        try:
            following = self.validators
        except ValueError as error:
            raise BoundaryInvalid(f"boundary of epoch {self.block.epoch}: {error}") from error
        if following.digest() != self.block.next_validators:
            raise BoundaryInvalid(
                f"boundary of epoch {self.block.epoch}: the members given have digest "
                f"{following.digest().hex()}, the block names {self.block.next_validators.hex()}"
            )
        return following


def final_path_fault(
    boundary: Block, fillers: tuple[Block, ...], certificate: Certificate
) -> str | None:
    """Why a certificate, if its signatures are good, does not make a boundary final."""
    if boundary.next_validators == ZERO_HASH:
        return "the block is not the last of its epoch"
    below = boundary
    for block in fillers:
        if block.parent != below.digest() or block.parent_view != below.view:
            return f"block {block.height} does not follow block {below.height}"
        if filler_fault(block, below) is not None or block.epoch != boundary.epoch:
            return f"block {block.height} is no filler: {filler_fault(block, below)}"
        below = block
    body = certificate.body
    named = (body.kind, body.epoch, body.view, body.parent_view, body.digest)
    expected = (VoteKind.FINALIZE, below.epoch, below.view, below.parent_view, below.digest())
    return None if named == expected else "the certificate does not finalize the last block"


def filler_fault(block: Block, below: Block) -> str | None:
    """Why a block above the boundary is more than a filler."""
    if block.height != below.height + 1 or block.view <= below.view:
        return f"height {block.height} after {below.height}, view {block.view} after {below.view}"
    if block.cut != below.cut or block.next_validators != ZERO_HASH:
        return "it brings something"
    same = (block.executed_height, block.executed_root)
    if same != (below.executed_height, below.executed_root):
        return "it vouches for another execution"
    return None


def begins_on(boundary: Block) -> Block:
    """The boundary as the next epoch sees it: its lanes begin anew. The digest stays the block's
    own."""
    return replace(boundary, cut=(), epoch=boundary.epoch + 1)


def leader_seed(genesis_digest: bytes, epoch: int, boundary_digest: bytes) -> bytes:
    """What shuffles an epoch's leaders."""
    return tagged_hash(b"epoch", boundary_digest) if epoch else genesis_digest
