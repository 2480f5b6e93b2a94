"""Evidence convicts on its own, and never an honest validator."""

from dataclasses import replace

import pytest

from consensus.certificates import nullify_body
from consensus.evidence import Fault, SignedHeader, conflict, evidence_fault
from consensus.values import BatchHeader, Vote, VoteBody, VoteKind
from tests.consensus.harness import CHAIN_ID, SIGNERS, VALIDATORS, first_proposal, sign_proposal

BODY = VoteBody(VoteKind.NOTARIZE, 0, 5, 4, b"d" * 32)


def vote(body: VoteBody, signer: int = 1) -> Vote:
    return Vote(body, signer, SIGNERS[signer].sign(body.signed_message(CHAIN_ID)))


def header(payload_root: bytes, sequence: int = 3) -> SignedHeader:
    value = BatchHeader(0, 1, sequence, bytes(32), payload_root)
    return SignedHeader(value, SIGNERS[1].sign(value.signed_message(CHAIN_ID)))


def judged(first: Vote, second: Vote, culprit: int = 1) -> str | None:
    evidence = conflict(Fault.CONFLICTING_VOTES, culprit, first, second)
    return evidence_fault(evidence, VALIDATORS, CHAIN_ID)


OTHER = replace(BODY, digest=b"e" * 32)
FINAL = replace(BODY, kind=VoteKind.FINALIZE)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (BODY, OTHER),
        (FINAL, replace(FINAL, digest=b"e" * 32)),
        (nullify_body(0, 5), FINAL),
    ],
    ids=["two notarize", "two finalize", "nullify and finalize"],
)
def test_votes_no_honest_validator_sends_convict(first: VoteBody, second: VoteBody) -> None:
    assert judged(vote(first), vote(second)) is None


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (BODY, FINAL),
        (BODY, replace(OTHER, view=6)),
        (BODY, nullify_body(0, 5)),
        (nullify_body(0, 6), FINAL),
    ],
    ids=["notarize then finalize", "two views", "notarize then nullify", "nullify elsewhere"],
)
def test_votes_an_honest_validator_may_send_do_not(first: VoteBody, second: VoteBody) -> None:
    assert judged(vote(first), vote(second)) == "an honest validator may sign both halves"


def test_evidence_is_the_same_whichever_half_was_seen_first() -> None:
    forward = conflict(Fault.CONFLICTING_VOTES, 1, vote(BODY), vote(OTHER))
    backward = conflict(Fault.CONFLICTING_VOTES, 1, vote(OTHER), vote(BODY))
    assert forward == backward
    assert forward.digest() == backward.digest()


def test_evidence_with_a_flaw_convicts_nobody() -> None:
    good = conflict(Fault.CONFLICTING_VOTES, 1, vote(BODY), vote(OTHER))
    forged = conflict(
        Fault.CONFLICTING_VOTES, 1, vote(BODY), replace(vote(OTHER), signature=bytes(64))
    )
    flaws = {
        "culprit 9 is none of 4 validators": replace(good, culprit=9),
        "a half is by validator 1, the culprit is 2": replace(good, culprit=2),
        "the halves are equal or not in order": replace(good, second=good.first),
        "a signature of validator 1 is bad": forged,
    }
    for reason, evidence in flaws.items():
        assert evidence_fault(evidence, VALIDATORS, CHAIN_ID) == reason
    cut = replace(good, first=b"")
    assert "a half does not decode" in str(evidence_fault(cut, VALIDATORS, CHAIN_ID))
    other_chain = evidence_fault(good, VALIDATORS, "other")
    assert other_chain == "a signature of validator 1 is bad"


def test_two_batches_at_one_place_and_two_proposals_of_one_view_convict() -> None:
    batches = conflict(Fault.CONFLICTING_BATCHES, 1, header(b"a" * 32), header(b"b" * 32))
    assert evidence_fault(batches, VALIDATORS, CHAIN_ID) is None
    apart = conflict(Fault.CONFLICTING_BATCHES, 1, header(b"a" * 32), header(b"b" * 32, 4))
    assert evidence_fault(apart, VALIDATORS, CHAIN_ID) is not None
    first = first_proposal()
    second = sign_proposal(replace(first.block, timestamp_ms=first.block.timestamp_ms + 1))
    culprit = first.block.proposer
    proposals = conflict(Fault.CONFLICTING_PROPOSALS, culprit, first, second)
    assert evidence_fault(proposals, VALIDATORS, CHAIN_ID) is None
