"""The envelope: every message survives it, no bytes crash it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consensus.journal import decode_record, encode_record
from consensus.messages import (
    MESSAGE_BYTES_MAX,
    Ack,
    AckBody,
    AvailabilityProof,
    BatchMessage,
    BatchRequest,
    Blocks,
    BlocksRequest,
    Certificates,
    CertificatesRequest,
    Message,
    ProofRequest,
    ProposalRequest,
    Status,
    decode_message,
    encode_message,
)
from consensus.values import BATCH_PAYLOAD_BYTES_MAX, Batch, BatchHeader, Tip, VoteKind
from consensus.wire import DecodeError
from tests.consensus.harness import certificate, first_proposal, vote

TIP = Tip(1, 2, b"t" * 32)
PROPOSAL = first_proposal(cut=(TIP,))
FINALIZATION = certificate(VoteKind.FINALIZE, PROPOSAL.block)
BODY = AckBody(0, TIP)
PROOF = AvailabilityProof(BODY, (0, 1), (bytes(64), b"s" * 64))
LARGEST = Batch(
    BatchHeader(0, 1, 2, bytes(32), bytes(32)), bytes(64), bytes(BATCH_PAYLOAD_BYTES_MAX)
)
MESSAGES: list[Message] = [
    PROPOSAL,
    vote(VoteKind.NULLIFY, None, 2),
    Certificates((FINALIZATION,)),
    BatchMessage(LARGEST, PROOF),
    Ack(BODY, 3, bytes(64)),
    PROOF,
    ProofRequest(TIP),
    BatchRequest(TIP, 32),
    ProposalRequest(4, b"d" * 32),
    CertificatesRequest(1, 2),
    BlocksRequest(9),
    Blocks((PROPOSAL.block,), FINALIZATION),
    Status(1, 2, 3, (TIP,)),
]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_a_message_survives_the_envelope_and_no_truncation_does(message: Message) -> None:
    data = encode_message(message)
    assert len(data) <= MESSAGE_BYTES_MAX
    assert decode_message(data) == message
    for size in {0, 1, len(data) // 2, len(data) - 1}:
        with pytest.raises(DecodeError):
            decode_message(data[:size])


@given(st.binary(max_size=300), st.integers(0, 15))
def test_decoding_a_message_is_total(data: bytes, tag: int) -> None:
    tagged = bytes((tag,)) + data
    try:
        message = decode_message(tagged)
    except DecodeError:
        return
    assert encode_message(message) == tagged


def test_unknown_tags_and_oversized_messages_are_refused_with_the_bound() -> None:
    with pytest.raises(DecodeError, match="message tag 99 is unknown, known are 1 to 13"):
        decode_message(b"\x63")
    with pytest.raises(DecodeError, match=f"allowed are 1 to {MESSAGE_BYTES_MAX}"):
        decode_message(bytes(MESSAGE_BYTES_MAX + 1))


def test_journal_records_survive_and_other_bytes_are_refused() -> None:
    for record in (PROPOSAL, FINALIZATION, vote(VoteKind.NULLIFY, None, 2)):
        assert decode_record(encode_record(record)) == record
    for data in (b"", b"\x05", b"\x01", encode_record(PROPOSAL) + b"\x00"):
        with pytest.raises(DecodeError):
            decode_record(data)
