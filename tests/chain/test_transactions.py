"""From signed bytes to a checked transaction, and why bytes are refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nacl.signing import SigningKey

from assay.v1 import inference_pb2 as inference
from assay.v1 import transactions_pb2 as pb
from chain.rejections import Rejection, RejectionReason
from chain.transactions import (
    OPERATIONS_MAX,
    Transaction,
    check_signed,
    decode_transaction,
    make_operation,
    result_bytes,
    sign_transaction,
)
from ext.hashing import tagged_hash

CHAIN = "assay-test"
KEY = SigningKey(bytes(range(32)))
PUBLIC_KEY = bytes(KEY.verify_key)
TRANSFER = make_operation(pb.Transfer(to=bytes(32), amount=5))


def signed(operations: list[pb.Op] | None = None, chain: str = CHAIN) -> pb.SignedTx:
    return sign_transaction(KEY, chain, operations or [TRANSFER], 10, 1_000, salt=7)


def body_of(*operations: bytes) -> bytes:
    """A body whose operations are these bytes, whatever they are."""
    head = pb.TxBody(chain_id=CHAIN, valid_until_height=10).SerializeToString()
    return head + b"".join(b"\x2a" + bytes([len(raw)]) + raw for raw in operations)


def reason_for(body: bytes, public_key: bytes = PUBLIC_KEY) -> RejectionReason:
    with pytest.raises(Rejection) as caught:
        decode_transaction(CHAIN, body, public_key)
    return caught.value.reason


def test_a_signed_transaction_is_accepted_with_its_operations_as_signed() -> None:
    message = signed()
    transaction = check_signed(CHAIN, message.body, message.public_key, message.signature)
    assert transaction == Transaction(
        id=tagged_hash(b"tx", message.body, PUBLIC_KEY),
        sender=PUBLIC_KEY,
        session_key=None,
        body=pb.TxBody.FromString(message.body),
        body_bytes=len(message.body),
        op_bytes=(TRANSFER.transfer.SerializeToString(),),
    )


@given(st.integers(0, 63), st.integers(1, 255))
def test_a_changed_signature_is_refused(position: int, difference: int) -> None:
    message = signed()
    forged = bytearray(message.signature)
    forged[position] ^= difference
    with pytest.raises(Rejection) as caught:
        check_signed(CHAIN, message.body, message.public_key, bytes(forged))
    assert caught.value.reason is RejectionReason.BAD_SIGNATURE


def test_a_transaction_for_another_chain_is_refused() -> None:
    message = signed(chain="assay-other")
    with pytest.raises(Rejection) as caught:
        check_signed(CHAIN, message.body, message.public_key, message.signature)
    assert str(caught.value) == (
        "WRONG_CHAIN: signed for chain 'assay-other', this is 'assay-test'"
    )


def test_the_number_of_operations_is_bounded() -> None:
    assert reason_for(pb.TxBody(chain_id=CHAIN).SerializeToString()) is (
        RejectionReason.NO_OPERATIONS
    )
    raw = TRANSFER.SerializeToString()
    assert len(decode_transaction(CHAIN, body_of(*[raw] * 256), PUBLIC_KEY).op_bytes) == 256
    assert reason_for(body_of(*[raw] * (OPERATIONS_MAX + 1))) is (
        RejectionReason.TOO_MANY_OPERATIONS
    )


def test_sizes_are_bounded() -> None:
    assert reason_for(b"") is RejectionReason.MALFORMED
    assert reason_for(bytes(131_073)) is RejectionReason.TOO_LARGE
    assert reason_for(body_of(TRANSFER.SerializeToString()), bytes(31)) is (
        RejectionReason.BAD_ADDRESS
    )


@pytest.mark.parametrize(
    "operation",
    [
        b"",
        b"\x08\x01",  # a number where an operation belongs
        b"\x7a\x00",  # field 15, which no operation has
        TRANSFER.SerializeToString() * 2,  # protobuf would merge the two
        TRANSFER.SerializeToString() + make_operation(pb.Stake(amount=1)).SerializeToString(),
        b"\x0a\x05\x01",  # ends inside
        b"\x0b\x0c",  # a group
    ],
)
def test_an_operation_that_two_readers_could_read_differently_is_refused(operation: bytes) -> None:
    assert reason_for(body_of(operation)) is RejectionReason.MALFORMED


@given(st.binary(max_size=300))
def test_arbitrary_bytes_are_accepted_or_rejected_but_never_crash(body: bytes) -> None:
    try:
        decode_transaction(CHAIN, body, PUBLIC_KEY)
    except Rejection as rejection:
        assert rejection.detail


@given(st.integers(0, 200), st.integers(1, 255))
def test_a_damaged_body_is_rejected_or_is_another_transaction(
    position: int, difference: int
) -> None:
    body = bytearray(signed().body)
    body[position % len(body)] ^= difference
    try:
        other = decode_transaction(CHAIN, bytes(body), PUBLIC_KEY)
    except Rejection:
        return
    assert other.id != tagged_hash(b"tx", signed().body, PUBLIC_KEY)


@pytest.mark.parametrize("message", [pb.Transfer(), pb.Stake(amount=3), pb.SetVerifier()])
def test_an_operation_wraps_its_message_even_an_empty_one(message: pb.Transfer) -> None:
    operation = make_operation(message)
    name = operation.WhichOneof("kind")
    assert name is not None
    assert getattr(operation, name) == message


def test_what_is_no_operation_cannot_be_wrapped() -> None:
    with pytest.raises(TypeError, match="Sampling is no operation"):
        make_operation(inference.Sampling())


def test_the_result_is_cut_out_of_a_submission_as_signed() -> None:
    result = inference.InferenceResult(token_ids=[1, 2], logprobs=[-1, -2], text="ab")
    submission = pb.SubmitResult(job=bytes(32), result=result).SerializeToString()
    assert result_bytes(submission) == result.SerializeToString()
    with pytest.raises(Rejection, match="holds 2 results"):
        result_bytes(submission + submission)


def test_a_salt_that_does_not_fit_is_our_own_mistake() -> None:
    with pytest.raises(ValueError, match="64 bits"):
        sign_transaction(KEY, CHAIN, [TRANSFER], 10, 1, salt=1 << 64)


def test_a_body_that_names_an_account_is_the_accounts_and_signed_by_a_session_key() -> None:
    account = bytes(range(32))
    message = sign_transaction(KEY, CHAIN, [TRANSFER], 9, 1_000, 7, account=account)
    transaction = check_signed(CHAIN, message.body, message.public_key, message.signature)
    assert (transaction.sender, transaction.session_key) == (account, PUBLIC_KEY)
    short = sign_transaction(KEY, CHAIN, [TRANSFER], 9, 1_000, 7, account=account[1:])
    assert reason_for(short.body) is RejectionReason.BAD_ADDRESS
