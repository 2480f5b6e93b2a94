"""Ends of epochs of a chain of `tests.builders`: real signatures, sets that change each epoch."""

import dataclasses

from consensus.epochs import EpochBoundary
from consensus.values import (
    Block,
    Certificate,
    Validator,
    ValidatorSet,
    VoteBody,
    VoteKind,
)
from consensus.wire import encode
from ext.hashing import sha256
from tests.builders import block, genesis, key

EPOCH_BLOCKS = 4


def set_of(epoch: int) -> ValidatorSet:
    """Of four, one goes and another comes each epoch from the second on."""
    if epoch == 0:
        return genesis().validator_set()
    ids = range(epoch - 1, epoch + 3)
    return ValidatorSet(
        epoch,
        tuple(
            Validator(
                index,
                key(f"signing-{index}").public_key,
                key(f"vrf-{index}").public_key,
                key(f"account-{index}").public_key,
                100,
            )
            for index in ids
        ),
    )


def sign(certified: Block, signers: tuple[int, ...]) -> Certificate:
    """A certificate that finalizes the block, by these validators' keys."""
    body = VoteBody(
        VoteKind.FINALIZE,
        certified.epoch,
        certified.view,
        certified.parent_view,
        certified.digest(),
    )
    message = body.signed_message(genesis().chain_id)
    return Certificate(
        body, signers, tuple(key(f"signing-{index}").sign(message) for index in signers)
    )


def boundary(epoch: int, fillers: int = 0) -> EpochBoundary:
    """The end of an epoch; its certificate is above so many fillers."""
    height = (epoch + 1) * EPOCH_BLOCKS
    plain = block(height, sha256(b"parent"), (height - 2, sha256(b"root")))
    last = dataclasses.replace(plain, epoch=epoch, next_validators=set_of(epoch + 1).digest())
    above: list[Block] = []
    for _ in range(fillers):
        below = above[-1] if above else last
        above.append(
            dataclasses.replace(
                below,
                view=below.view + 1,
                height=below.height + 1,
                parent_view=below.view,
                parent=below.digest(),
                next_validators=bytes(32),
            )
        )
    certified = above[-1] if above else last
    return EpochBoundary(
        last, tuple(above), sign(certified, set_of(epoch).ids[:3]), set_of(epoch + 1).members
    )


def boundaries(count: int, first: int = 0) -> tuple[bytes, ...]:
    """Encoded ends of so many epochs; some under a filler."""
    return tuple(encode(boundary(epoch, epoch % 2)) for epoch in range(first, first + count))
