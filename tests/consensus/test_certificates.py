"""Quorums are counted in stake, by distinct signers of one statement."""

from dataclasses import replace

import pytest

from consensus.certificates import certificate_fault, nullify_body, proof_fault, sign_ack, sign_vote
from consensus.messages import AckBody, AvailabilityProof
from consensus.sim.crypto import make_validators
from consensus.values import Certificate, Tip, VoteBody, VoteKind

CHAIN = "chain"
VALIDATORS, SIGNERS, _ = make_validators((1, 2, 3, 4), real=True)
BODY = VoteBody(VoteKind.NOTARIZE, 0, 5, 4, b"d" * 32)


def signed(body: VoteBody, *signers: int) -> Certificate:
    votes = [sign_vote(SIGNERS[signer], CHAIN, signer, body) for signer in signers]
    return Certificate(body, signers, tuple(vote.signature for vote in votes))


def fault(certificate: Certificate) -> str | None:
    return certificate_fault(certificate, VALIDATORS, CHAIN)


@pytest.mark.parametrize("signers", [(1, 2, 3), (0, 2, 3), (0, 1, 2, 3)])
def test_more_than_two_thirds_of_the_stake_make_a_certificate(signers: tuple[int, ...]) -> None:
    assert fault(signed(BODY, *signers)) is None


@pytest.mark.parametrize(
    ("signers", "stake"), [((), 0), ((3,), 4), ((0, 1, 2), 6), ((0, 1), 3), ((0, 3), 5)]
)
def test_less_stake_does_not_however_many_sign(signers: tuple[int, ...], stake: int) -> None:
    assert fault(signed(BODY, *signers)) == f"signers hold {stake} of the stake, needed are 7"


def test_every_deviation_has_its_reason() -> None:
    good = signed(BODY, 1, 2, 3)
    first, second, third = good.signatures
    reasons = {
        "signers are not in rising order": replace(good, signers=(2, 2, 3)),
        "3 signers and 2 signatures": replace(good, signatures=(first, second)),
        "signer 4 is none of 4 validators": replace(good, signers=(1, 2, 4)),
        "signature of validator 1 is bad": replace(good, signatures=(second, second, third)),
        "epoch is 1, the validator set is of epoch 0": replace(good, body=replace(BODY, epoch=1)),
        "a nullification names a block": signed(replace(BODY, kind=VoteKind.NULLIFY), 1, 2, 3),
    }
    for reason, certificate in reasons.items():
        assert fault(certificate) == reason


@pytest.mark.parametrize(
    "change", [{"kind": VoteKind.FINALIZE}, {"view": 6}, {"parent_view": 3}, {"digest": b"e" * 32}]
)
def test_signatures_do_not_serve_another_statement(change: dict[str, object]) -> None:
    moved = replace(signed(BODY, 1, 2, 3), body=replace(BODY, **change))  # type: ignore[arg-type]
    assert fault(moved) == "signature of validator 1 is bad"


def test_signatures_do_not_serve_another_chain() -> None:
    good = signed(nullify_body(0, 9), 1, 2, 3)
    assert fault(good) is None
    assert certificate_fault(good, VALIDATORS, "other") == "signature of validator 1 is bad"


def test_an_availability_proof_needs_more_than_a_third_of_the_stake() -> None:
    body = AckBody(0, Tip(2, 7, b"t" * 32))

    def proof(*signers: int) -> AvailabilityProof:
        acks = [sign_ack(SIGNERS[signer], CHAIN, signer, body) for signer in signers]
        return AvailabilityProof(body, signers, tuple(ack.signature for ack in acks))

    assert proof_fault(proof(3), VALIDATORS, CHAIN) is None
    assert proof_fault(proof(0, 2), VALIDATORS, CHAIN) is None
    assert proof_fault(proof(2), VALIDATORS, CHAIN) == "signers hold 3 of the stake, needed are 4"
    moved = replace(proof(3), body=AckBody(0, Tip(2, 8, b"t" * 32)))
    assert proof_fault(moved, VALIDATORS, CHAIN) == "signature of validator 3 is bad"
