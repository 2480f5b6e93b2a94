"""The strict parser against the protobuf library: same fields, same bytes, total on anything."""

import hashlib
import struct

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from nacl.signing import SigningKey

from assay.v1.transactions_pb2 import BatchPayload, SignedTx
from ext import signatures, transactions
from ext.transactions import ParseError, ParseReason, parse_batch, parse_signed_tx

signed_transactions = st.builds(
    SignedTx,
    body=st.binary(min_size=1, max_size=200),
    public_key=st.binary(min_size=32, max_size=32),
    signature=st.binary(min_size=64, max_size=64),
)
payloads = st.builds(
    BatchPayload,
    transactions=st.lists(signed_transactions, max_size=5),
    attestations=st.lists(st.binary(min_size=1, max_size=150), max_size=4),
)
# Bytes a parser might trip over: tags of both messages, sizes of keys and signatures, long lengths.
wire_fragments = st.lists(
    st.sampled_from(
        [
            *(bytes([value]) for value in b"\x0a\x12\x1a\x22\x08\x00\x01\x20\x40\x80\xff\x69"),
            *(b"\x80\x00", b"\xff\xff\xff\x7f", bytes(32), bytes(64)),
        ]
    ),
    max_size=24,
).map(b"".join)


def tagged(tag: bytes, *fields: bytes) -> bytes:
    encoded = bytes([len(tag)]) + tag
    for field in fields:
        encoded += struct.pack("<I", len(field)) + field
    return hashlib.sha256(encoded).digest()


def signed(body: bytes = b"body", key_bytes: int = 32, signature_bytes: int = 64) -> bytes:
    public_key, signature = bytes(key_bytes), bytes(signature_bytes)
    return SignedTx(body=body, public_key=public_key, signature=signature).SerializeToString()


def payload_of(*encoded: bytes, attestations: tuple[bytes, ...] = ()) -> bytes:
    return b"".join(
        tag + varint(len(item)) + item
        for tag, items in ((b"\x0a", encoded), (b"\x12", attestations))
        for item in items
    )


def varint(value: int) -> bytes:
    groups = []
    while value > 127:
        groups.append(value & 127 | 128)
        value >>= 7
    return bytes([*groups, value])


def refusal(data: bytes) -> tuple[ParseReason, int]:
    with pytest.raises(ParseError) as caught:
        parse_batch(data)
    return caught.value.reason, caught.value.offset


def assert_agrees_with_protobuf(data: bytes) -> None:
    """Accepted bytes mean the same to the protobuf library, which writes them back unchanged."""
    batch = parse_batch(data)
    message = BatchPayload.FromString(data)
    assert message.SerializeToString(deterministic=True) == data
    assert len(batch) == len(message.transactions)
    for index, expected in enumerate(message.transactions):
        transaction = batch.transaction(index)
        assert transaction.body == expected.body
        assert transaction.public_key == expected.public_key
        assert transaction.signature == expected.signature
        assert transaction.id == tagged(b"tx", expected.body, expected.public_key)
        assert transaction.id == parse_signed_tx(expected.SerializeToString()).id
    assert [batch.attestation(index) for index in range(len(batch.attestations))] == list(
        message.attestations
    )


@given(payloads)
def test_what_protobuf_writes_is_accepted_with_the_same_fields(payload: BatchPayload) -> None:
    assert_agrees_with_protobuf(payload.SerializeToString())


@given(st.one_of(st.binary(max_size=300), wire_fragments))
def test_any_bytes_are_either_canonical_or_refused_inside_their_bounds(data: bytes) -> None:
    for parse in (parse_batch, parse_signed_tx):
        try:
            parse(data)
        except ParseError as error:
            assert 0 <= error.offset <= len(data)
        else:
            if parse is parse_batch:
                assert_agrees_with_protobuf(data)


@given(payloads.filter(lambda payload: payload.ByteSize() > 0), st.data())
def test_a_damaged_payload_is_refused_or_says_something_else(
    payload: BatchPayload, data: st.DataObject
) -> None:
    encoded = bytearray(payload.SerializeToString())
    start = data.draw(st.integers(0, len(encoded)))
    end = data.draw(st.integers(start, min(len(encoded), start + 3)))
    encoded[start:end] = data.draw(st.binary(max_size=3))
    try:
        parse_batch(bytes(encoded))
    except ParseError as error:
        assert 0 <= error.offset <= len(encoded)
    else:
        assert_agrees_with_protobuf(bytes(encoded))


@given(payloads)
def test_a_payload_cut_short_is_refused_unless_cut_between_fields(payload: BatchPayload) -> None:
    encoded = payload.SerializeToString()
    boundaries = {0}
    for item in [*(each.SerializeToString() for each in payload.transactions)]:
        boundaries.add(max(boundaries) + 1 + len(varint(len(item))) + len(item))
    for attestation in payload.attestations:
        boundaries.add(max(boundaries) + 1 + len(varint(len(attestation))) + len(attestation))
    for length in range(len(encoded)):
        if length in boundaries:
            assert_agrees_with_protobuf(encoded[:length])
        else:
            with pytest.raises(ParseError):
                parse_batch(encoded[:length])


def test_an_empty_payload_is_an_empty_batch() -> None:
    batch = parse_batch(b"")
    assert len(batch) == 0
    assert batch.attestations.shape == (0, 2)
    assert batch.signing_digests(b"chain").shape == (0, 32)


def test_arrays_hold_every_transaction_and_cannot_be_written() -> None:
    bodies = [b"a", b"bb" * 100, b"c" * 3000]
    batch = parse_batch(payload_of(*map(signed, bodies), attestations=(b"seen",)))
    assert [
        batch.payload[offset : offset + length] for offset, length in batch.bodies.tolist()
    ] == bodies
    assert batch.public_keys.shape == (3, 32)
    assert batch.signatures.shape == (3, 64)
    assert batch.ids.tobytes() == b"".join(tagged(b"tx", body, bytes(32)) for body in bodies)
    digests = b"".join(tagged(b"tx-sign", b"chain", body) for body in bodies)
    assert batch.signing_digests(b"chain").tobytes() == digests
    with pytest.raises(ValueError, match="read-only"):
        batch.ids[0, 0] = 1
    for index in (-1, 3):
        with pytest.raises(IndexError):
            batch.transaction(index)
    with pytest.raises(IndexError):
        batch.attestation(1)


def test_a_parsed_batch_goes_straight_to_the_signature_check() -> None:
    encoded = []
    for number in range(20):
        key, body = SigningKey(bytes([number]) * 32), b"body of %d" % number
        signature = key.sign(transactions.signing_digest(b"chain", body)).signature
        message = SignedTx(body=body, public_key=bytes(key.verify_key), signature=signature)
        encoded.append(message.SerializeToString())
    batch = parse_batch(payload_of(*encoded))
    for chain_id, accepted in ((b"chain", True), (b"other", False)):
        digests = batch.signing_digests(chain_id)
        answers = signatures.verify_batch(batch.public_keys, digests, batch.signatures)
        assert answers.tolist() == [accepted] * 20
    empty = parse_batch(b"")
    digests = empty.signing_digests(b"chain")
    assert signatures.verify_batch(empty.public_keys, digests, empty.signatures).tolist() == []


@pytest.mark.parametrize(
    ("payload", "reason", "offset"),
    [
        (payload_of(signed(b"")), ParseReason.UNEXPECTED_FIELD, 2),
        (payload_of(b"\x0a\x00" + signed()[6:]), ParseReason.BODY_SIZE, 4),
        (payload_of(signed(bytes(131_073))), ParseReason.BODY_SIZE, 8),
        (payload_of(signed(key_bytes=31)), ParseReason.PUBLIC_KEY_SIZE, 10),
        (payload_of(signed(key_bytes=33)), ParseReason.PUBLIC_KEY_SIZE, 10),
        (payload_of(signed(signature_bytes=63)), ParseReason.SIGNATURE_SIZE, 44),
        (payload_of(signed(signature_bytes=65)), ParseReason.SIGNATURE_SIZE, 44),
        (payload_of(signed() + b"\x1a\x40" + bytes(64)), ParseReason.TRAILING_BYTES, 109),
        (payload_of(signed() + b"\x20\x01"), ParseReason.TRAILING_BYTES, 108),
        (payload_of(b""), ParseReason.TRUNCATED, 2),
        (payload_of(attestations=(b"",)), ParseReason.ATTESTATION_SIZE, 2),
        (payload_of(attestations=(bytes(131_073),)), ParseReason.ATTESTATION_SIZE, 4),
        (b"\x12\x01a" + payload_of(signed()), ParseReason.UNEXPECTED_FIELD, 3),
        (b"\x1a\x01a", ParseReason.UNEXPECTED_FIELD, 0),
        (b"\x8a\x00\x01a", ParseReason.UNEXPECTED_FIELD, 0),
        (b"\x12\x81\x00a", ParseReason.LENGTH_NOT_MINIMAL, 2),
        (b"\x12\xff\xff\xff\xff\x7f", ParseReason.LENGTH_TOO_LARGE, 5),
        (b"\x12\xff\xff\xff\x7f" + bytes(100), ParseReason.TRUNCATED, 105),
        (b"\x12\x05abc", ParseReason.TRUNCATED, 5),
        (b"\x12", ParseReason.TRUNCATED, 1),
    ],
)
def test_each_deviation_has_its_reason_and_place(
    payload: bytes, reason: ParseReason, offset: int
) -> None:
    assert refusal(payload) == (reason, offset)


def test_a_refusal_says_what_was_seen_where_and_what_is_allowed() -> None:
    with pytest.raises(ParseError) as caught:
        parse_signed_tx(signed(key_bytes=31))
    assert str(caught.value) == "public key size at byte 8: a public key has 32 bytes"


def test_fields_out_of_order_or_repeated_are_refused() -> None:
    fields = [b"\x0a\x04body", b"\x12\x20" + bytes(32), b"\x1a\x40" + bytes(64)]
    body, public_key, signature = fields
    assert parse_signed_tx(b"".join(fields)).body == b"body"
    for wrong in (
        [public_key, body, signature],
        [body, signature, public_key],
        [body, body, public_key, signature],
        [body, public_key, public_key, signature],
        [body, public_key],
        [public_key, signature],
        [],
    ):
        with pytest.raises(ParseError):
            parse_signed_tx(b"".join(wrong))


def test_the_largest_transaction_is_accepted() -> None:
    transaction = parse_signed_tx(signed(bytes(131_072)))
    assert len(transaction.body) == transactions.BODY_BYTES_MAX
    digest = tagged(b"tx-sign", b"chain", bytes(131_072))
    assert transaction.signing_digest(b"chain") == digest


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        (payload_of(signed(b"b")), ParseReason.TOO_MANY_TRANSACTIONS),
        (payload_of(attestations=(b"a",)), ParseReason.TOO_MANY_ATTESTATIONS),
    ],
)
def test_a_batch_holds_65536_of_each_kind_and_not_one_more(
    item: bytes, reason: ParseReason
) -> None:
    batch = parse_batch(item * 65_536)
    assert max(len(batch), len(batch.attestations)) == 65_536
    assert refusal(item * 65_537) == (reason, len(item) * 65_536)


@given(st.binary(max_size=300), st.binary(min_size=32, max_size=32), st.binary(max_size=40))
@example(b"", bytes(32), b"")
def test_ids_and_signing_digests_are_their_definitions(
    body: bytes, public_key: bytes, chain_id: bytes
) -> None:
    assert transactions.transaction_id(body, public_key) == tagged(b"tx", body, public_key)
    assert transactions.signing_digest(chain_id, body) == tagged(b"tx-sign", chain_id, body)


def test_an_id_of_a_key_of_another_size_is_an_error() -> None:
    with pytest.raises(ValueError, match="public key has 31 bytes; 32 are needed"):
        transactions.transaction_id(b"body", bytes(31))
