"""The batch parser against the protobuf library: accepted is what the library writes, no more.

Either the parser refuses with an offset inside the bytes, or the library reads the same fields and
writes the same bytes; and whatever the library reads and writes unchanged, within our bounds of
sizes, the parser accepts.
"""

from collections.abc import Iterator
from random import Random
from typing import TypeVar

from google.protobuf.message import DecodeError

from assay.v1.transactions_pb2 import BatchPayload, SignedTx
from ext import transactions
from ext.transactions import ParseError, parse_batch, parse_signed_tx
from tests.ext.test_transactions import assert_agrees_with_protobuf
from tests.fuzz.harness import Target, mutated

M = TypeVar("M", BatchPayload, SignedTx)

BODY_BYTES_MAX = 300
FRAGMENTS = (
    *(bytes([value]) for value in b"\x0a\x12\x1a\x22\x08\x00\x01\x20\x40\x80\xff\x69"),
    *(
        b"\x80\x00",
        b"\xff\xff\xff\x7f",
        b"\xff" * 10,
        bytes(32),
        bytes(64),
        b"\x0a\x00",
        b"\x12\x00",
    ),
)


def _valid(source: Random) -> bytes:
    return BatchPayload(
        transactions=[
            SignedTx(
                body=source.randbytes(source.randrange(1, BODY_BYTES_MAX)),
                public_key=source.randbytes(32),
                signature=source.randbytes(64),
            )
            for _ in range(source.randrange(4))
        ],
        attestations=[
            source.randbytes(source.randrange(1, BODY_BYTES_MAX))
            for _ in range(source.randrange(3))
        ],
    ).SerializeToString()


def inputs(source: Random) -> Iterator[bytes]:
    """Payloads with a few edits, and strings of what a parser might trip over."""
    while True:
        if source.randrange(4) == 0:
            yield b"".join(source.choices(FRAGMENTS, k=source.randrange(24)))
        else:
            yield mutated(source, _valid(source), FRAGMENTS)


def check(data: bytes) -> None:
    """As a payload and as one transaction."""
    _check_payload(data)
    _check_single(data)


def _check_payload(data: bytes) -> None:
    try:
        parse_batch(data)
    except ParseError as error:
        assert 0 <= error.offset <= len(data)
        assert not _library_takes_payload(data), f"refused although canonical: {error}"
    else:
        assert_agrees_with_protobuf(data)


def _check_single(data: bytes) -> None:
    message = _read(SignedTx(), data)
    try:
        parsed = parse_signed_tx(data)
    except ParseError as error:
        assert 0 <= error.offset <= len(data)
        assert message is None or not _in_bounds(message), f"refused although canonical: {error}"
    else:
        assert message is not None
        assert parsed.body == message.body
        assert parsed.public_key == message.public_key
        assert parsed.signature == message.signature


def _read(message: M, data: bytes) -> M | None:
    """The message, if the library writes it back as it was and knows every field."""
    try:
        message.ParseFromString(data)
    except DecodeError:
        return None
    message.DiscardUnknownFields()
    return message if message.SerializeToString(deterministic=True) == data else None


def _in_bounds(message: SignedTx) -> bool:
    return (
        1 <= len(message.body) <= transactions.BODY_BYTES_MAX
        and len(message.public_key) == transactions.PUBLIC_KEY_BYTES
        and len(message.signature) == transactions.SIGNATURE_BYTES
    )


def _library_takes_payload(data: bytes) -> bool:
    message = _read(BatchPayload(), data)
    return message is not None and (
        all(map(_in_bounds, message.transactions))
        and all(
            1 <= len(attestation) <= transactions.ATTESTATION_BYTES_MAX
            for attestation in message.attestations
        )
    )


TARGET = Target("payloads", inputs, check)
