"""Transactions as the ledger sees them: signed body bytes in, a checked value out.

Bodies are protobuf, but nothing is ever re-encoded: the id, the signature and the digests of
requests and results cover the bytes that were signed. Protobuf merges a message field that occurs
twice, so two readers could take different bytes for the same operation; an `Op` must therefore
hold exactly one field, and a `SubmitResult` exactly one result.
"""

from collections.abc import Sequence
from typing import NamedTuple

from google.protobuf.message import DecodeError, Message
from nacl.signing import SigningKey

from assay.v1 import transactions_pb2 as pb
from chain.rejections import Rejection, RejectionReason
from ext import signatures
from ext.hashing import tagged_hash
from ext.transactions import BODY_BYTES_MAX, signing_digest, transaction_id

OPERATIONS_MAX = 256
WINDOW_BLOCKS = 256
"""A transaction names a last height at most this far ahead; ids are remembered as long."""
SUBMIT_MANY_MAX = 4_096
SUBMIT_BYTES_MAX = 1024 * 1024
"""What one request to a node may hold."""
PUBLIC_KEY_BYTES = 32
SALT_MAX = (1 << 64) - 1

_CHAIN_TAG = pb.TxBody.CHAIN_ID_FIELD_NUMBER << 3 | 2
_OPS_FIELD = pb.TxBody.OPS_FIELD_NUMBER
_RESULT_FIELD = pb.SubmitResult.RESULT_FIELD_NUMBER
_OPERATION_FIELDS = {field.number: field.name for field in pb.Op.DESCRIPTOR.fields}
_OPERATION_NAMES = {
    field.message_type.full_name: field.name
    for field in pb.Op.DESCRIPTOR.fields
    if field.message_type is not None
}
_VARINT, _FIXED64, _DELIMITED, _FIXED32 = 0, 1, 2, 5
_VARINT_BYTES_MAX = 10


class Transaction(NamedTuple):
    """A decoded transaction whose signature has been, or will be, checked by the caller."""

    id: bytes
    sender: bytes
    """The account that acts and pays."""
    session_key: bytes | None
    """That signed in the account's place; None if the account did."""
    body: pb.TxBody
    body_bytes: int
    """Length of the signed body, which the fee counts."""
    op_bytes: tuple[bytes, ...]
    """Each operation's own message (e.g. RequestInference), exactly as signed."""


def decode_transaction(chain_id: str, body: bytes, public_key: bytes) -> Transaction:
    """Check limits, chain and shape; the signature is not looked at. Raises Rejection."""
    _check_sizes(body, public_key)
    op_bytes = _operations(body)
    try:
        decoded = pb.TxBody.FromString(body)
    except DecodeError as error:
        raise _malformed("the body is not a serialised TxBody") from error
    if decoded.chain_id != chain_id:
        raise _wrong_chain(decoded.chain_id, chain_id)
    account = decoded.account
    if len(account) not in (0, PUBLIC_KEY_BYTES):
        raise Rejection(
            RejectionReason.BAD_ADDRESS,
            f"account has {len(account)} bytes, must be {PUBLIC_KEY_BYTES}, or 0 for the signer's",
        )
    return Transaction(
        id=transaction_id(body, public_key),
        sender=account or public_key,
        session_key=public_key if account else None,
        body=decoded,
        body_bytes=len(body),
        op_bytes=op_bytes,
    )


def check_signed(chain_id: str, body: bytes, public_key: bytes, signature: bytes) -> Transaction:
    """The signature, then `decode_transaction`: a body costs more to read than to hash, and who
    did not sign it has no claim to that. Raises Rejection."""
    _check_sizes(body, public_key)
    if not signatures.verify(public_key, signing_digest(chain_id.encode(), body), signature):
        raise unsigned(chain_id, body)
    return decode_transaction(chain_id, body, public_key)


def unsigned(chain_id: str, body: bytes) -> Rejection:
    """The refusal of what its sender did not sign for this chain: WRONG_CHAIN if the body begins
    with another chain's name, as every serialiser writes it."""
    if len(body) >= 2 and body[0] == _CHAIN_TAG and body[1] < 0x80:
        name = body[2 : 2 + body[1]]
        if name != chain_id.encode():
            return _wrong_chain(name.decode(errors="replace"), chain_id)
    return Rejection(
        RejectionReason.BAD_SIGNATURE,
        'the signature does not cover H("tx-sign", chain_id, body) under public_key',
    )


def _wrong_chain(named: str, chain_id: str) -> Rejection:
    return Rejection(
        RejectionReason.WRONG_CHAIN, f"signed for chain {named!r}, this is {chain_id!r}"
    )


def _check_sizes(body: bytes, public_key: bytes) -> None:
    if len(public_key) != PUBLIC_KEY_BYTES:
        raise Rejection(
            RejectionReason.BAD_ADDRESS,
            f"public_key has {len(public_key)} bytes, must be {PUBLIC_KEY_BYTES}",
        )
    if len(body) > BODY_BYTES_MAX:
        raise Rejection(
            RejectionReason.TOO_LARGE, f"body has {len(body)} bytes, at most {BODY_BYTES_MAX}"
        )
    if not body:
        raise _malformed("the body is empty")


def sign_transaction(
    key: SigningKey,
    chain_id: str,
    operations: Sequence[pb.Op],
    valid_until_height: int,
    max_fee: int,
    salt: int,
    account: bytes = b"",
) -> pb.SignedTx:
    """A signed transaction; `salt` is random, so that equal operations may be sent twice. With an
    `account`, the key is a session key of it."""
    if not 0 <= salt <= SALT_MAX:
        raise ValueError(f"salt is {salt}, must fit 64 bits")
    body = pb.TxBody(
        chain_id=chain_id,
        valid_until_height=valid_until_height,
        salt=salt,
        max_fee=max_fee,
        ops=operations,
        account=account,
    ).SerializeToString(deterministic=True)
    signature = key.sign(signing_digest(chain_id.encode(), body)).signature
    return pb.SignedTx(body=body, public_key=bytes(key.verify_key), signature=signature)


def make_operation(message: Message) -> pb.Op:
    """Wrap a Transfer, Stake, … into an Op. Raises TypeError for any other message."""
    name = _OPERATION_NAMES.get(message.DESCRIPTOR.full_name)
    if name is None:
        raise TypeError(f"{message.DESCRIPTOR.full_name} is no operation")
    operation = pb.Op()
    getattr(operation, name).CopyFrom(message)
    # CopyFrom of an empty message leaves the choice unset.
    getattr(operation, name).SetInParent()
    return operation


def job_id(transaction: bytes, operation: int) -> bytes:
    """The id of the job that a RequestInference at this place in a transaction opens."""
    return tagged_hash(b"job", transaction, operation.to_bytes(4, "little"))


def result_bytes(submit_result: bytes) -> bytes:
    """The InferenceResult inside a signed SubmitResult, as signed. Raises Rejection."""
    results = [
        submit_result[start:end]
        for number, kind, start, end in _fields(submit_result)
        if number == _RESULT_FIELD and kind == _DELIMITED
    ]
    if len(results) != 1:
        raise _malformed(f"SubmitResult holds {len(results)} results, must be one")
    return results[0]


def _operations(body: bytes) -> tuple[bytes, ...]:
    spans = [
        (kind, start, end) for number, kind, start, end in _fields(body) if number == _OPS_FIELD
    ]
    if not spans:
        raise Rejection(RejectionReason.NO_OPERATIONS, "the body holds no operation, needs one")
    if len(spans) > OPERATIONS_MAX:
        raise Rejection(
            RejectionReason.TOO_MANY_OPERATIONS,
            f"the body holds {len(spans)} operations, at most {OPERATIONS_MAX}",
        )
    operations = []
    for index, (kind, start, end) in enumerate(spans):
        if kind != _DELIMITED:
            raise _malformed(f"operation {index} is not a message")
        inner = _fields(body[start:end])
        if len(inner) != 1 or inner[0][0] not in _OPERATION_FIELDS or inner[0][1] != _DELIMITED:
            raise _malformed(f"operation {index} must hold exactly one known operation")
        _, _, inner_start, inner_end = inner[0]
        operations.append(body[start + inner_start : start + inner_end])
    return tuple(operations)


def _fields(data: bytes) -> list[tuple[int, int, int, int]]:
    """(field number, wire type, start, end of value) of each field on the wire."""
    fields = []
    offset, length = 0, len(data)
    while offset < length:
        tag = data[offset]
        if tag < 0x80:  # most numbers on the wire have one byte
            start = offset + 1
        else:
            tag, start = _varint(data, offset)
        number, kind = tag >> 3, tag & 7
        if kind == _DELIMITED:
            if start < length and data[start] < 0x80:
                size, start = data[start], start + 1
            else:
                size, start = _varint(data, start)
            offset = start + size
        elif kind == _VARINT:
            _, offset = _varint(data, start)
        elif kind == _FIXED64:
            offset = start + 8
        elif kind == _FIXED32:
            offset = start + 4
        else:
            raise _malformed(f"wire type {kind} at byte {start}")
        if number == 0 or offset > length:
            raise _malformed(f"field {number} at byte {start} does not end inside the message")
        fields.append((number, kind, start, offset))
    return fields


def _varint(data: bytes, offset: int) -> tuple[int, int]:
    if offset < len(data) and data[offset] < 0x80:
        return data[offset], offset + 1
    value = 0
    for index in range(_VARINT_BYTES_MAX):
        if offset + index >= len(data):
            raise _malformed("the message ends inside a number")
        byte = data[offset + index]
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value, offset + index + 1
    raise _malformed(f"number at byte {offset} is longer than {_VARINT_BYTES_MAX} bytes")


def _malformed(detail: str) -> Rejection:
    return Rejection(RejectionReason.MALFORMED, detail)
