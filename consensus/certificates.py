"""Votes, acks and what a quorum of them makes: signed, assembled, verified.

Whoever trusts a validator set can check a certificate with `certificate_fault` alone; receipts do.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Protocol

from consensus import vrf
from consensus.messages import Ack, AckBody, AvailabilityProof
from consensus.values import ZERO_HASH, Certificate, ValidatorSet, Vote, VoteBody, VoteKind
from ext import signatures

if TYPE_CHECKING:
    from consensus.events import Signer

VerifyMany = Callable[[Sequence[tuple[bytes, bytes, bytes]]], list[bool]]
"""(public key, message, signature) of each -> whether each is good."""


class Checks(Protocol):
    """The cryptography of others' words; replaced only in simulation."""

    def verify_many(self, items: Sequence[tuple[bytes, bytes, bytes]]) -> list[bool]:
        """For each (public key, message, signature), whether the signature is good."""
        ...

    def vrf_output(self, public_key: bytes, alpha: bytes, proof: bytes) -> bytes | None:
        """The output of a proof that holds, else None."""
        ...


class RealChecks:
    """Ed25519 as `ext.signatures` decides it, and RFC 9381."""

    def verify_many(self, items: Sequence[tuple[bytes, bytes, bytes]]) -> list[bool]:
        """See `Checks`."""
        return signatures.verify_many(items)

    def vrf_output(self, public_key: bytes, alpha: bytes, proof: bytes) -> bytes | None:
        """See `Checks`."""
        return vrf.verify(public_key, alpha, proof)


def nullify_body(epoch: int, view: int) -> VoteBody:
    """The body of every vote to give up a view."""
    return VoteBody(VoteKind.NULLIFY, epoch, view, 0, ZERO_HASH)


def sign_vote(signer: "Signer", chain_id: str, index: int, body: VoteBody) -> Vote:
    """The vote of validator `index`."""
    return Vote(body, index, signer.sign(body.signed_message(chain_id)))


def sign_ack(signer: "Signer", chain_id: str, index: int, body: AckBody) -> Ack:
    """The ack of validator `index`."""
    return Ack(body, index, signer.sign(body.signed_message(chain_id)))


def assemble_certificate(votes: Mapping[int, Vote], body: VoteBody) -> Certificate:
    """A certificate from verified votes by signer, all for `body`."""
    signers = tuple(sorted(votes))
    return Certificate(body, signers, tuple(votes[signer].signature for signer in signers))


def assemble_proof(acks: Mapping[int, Ack], body: AckBody) -> AvailabilityProof:
    """An availability proof from verified acks by signer, all for `body`."""
    signers = tuple(sorted(acks))
    return AvailabilityProof(body, signers, tuple(acks[signer].signature for signer in signers))


def certificate_fault(
    certificate: Certificate,
    validators: ValidatorSet,
    chain_id: str,
    verify_many: VerifyMany = signatures.verify_many,
) -> str | None:
    """Why the certificate proves nothing, or None if it is good."""
    body = certificate.body
    if body.epoch != validators.epoch:
        return f"epoch is {body.epoch}, the validator set is of epoch {validators.epoch}"
    if body.kind is VoteKind.NULLIFY and body != nullify_body(body.epoch, body.view):
        return "a nullification names a block"
    return _signers_fault(
        certificate.signers,
        certificate.signatures,
        body.signed_message(chain_id),
        validators,
        validators.quorum_stake,
        verify_many,
    )


def proof_fault(
    proof: AvailabilityProof,
    validators: ValidatorSet,
    chain_id: str,
    verify_many: VerifyMany = signatures.verify_many,
) -> str | None:
    """Why the availability proof proves nothing, or None if it is good."""
    if proof.body.epoch != validators.epoch:
        return f"epoch is {proof.body.epoch}, the validator set is of epoch {validators.epoch}"
    return _signers_fault(
        proof.signers,
        proof.signatures,
        proof.body.signed_message(chain_id),
        validators,
        validators.availability_stake,
        verify_many,
    )


def _signers_fault(
    signers: tuple[int, ...],
    given: tuple[bytes, ...],
    message: bytes,
    validators: ValidatorSet,
    stake_needed: int,
    verify_many: VerifyMany,
) -> str | None:
    if len(signers) != len(given):
        return f"{len(signers)} signers and {len(given)} signatures"
    if any(later <= earlier for earlier, later in pairwise(signers)):
        return "signers are not in rising order"
    strangers = [signer for signer in signers if signer not in validators.by_index]
    if strangers:
        return f"signer {strangers[-1]} is none of {len(validators.members)} validators"
    stake = validators.weight(set(signers))
    if stake < stake_needed:
        return f"signers hold {stake} of the stake, needed are {stake_needed}"
    items = [
        (validators.by_index[signer].signing_key, message, signature)
        for signer, signature in zip(signers, given, strict=True)
    ]
    for signer, good in zip(signers, verify_many(items), strict=True):
        if not good:
            return f"signature of validator {signer} is bad"
    return None
