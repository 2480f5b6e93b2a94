"""The parser of plain bodies against the protobuf library: same fields, same bytes, total."""

from typing import Any

import pytest
from google.protobuf.message import DecodeError
from hypothesis import example, given, settings
from hypothesis import strategies as st

from assay.v1 import transactions_pb2 as pb
from ext import bodies, transactions
from ext.bodies import OTHER, PLAIN, Bodies, parse_bodies

CHAIN = "assay-test"
RECEIVER_BYTES = 32
u64 = st.one_of(
    st.integers(0, 3), st.integers(0, 300), st.integers(0, (1 << 64) - 1), st.just((1 << 64) - 1)
)
receivers = st.one_of(
    st.binary(min_size=32, max_size=32), st.binary(min_size=32, max_size=32), st.binary(max_size=40)
)
transfers = st.builds(pb.Op, transfer=st.builds(pb.Transfer, to=receivers, amount=u64))
operations = st.one_of(
    *[transfers] * 6,
    st.builds(pb.Op, stake=st.builds(pb.Stake, amount=u64)),
    st.builds(pb.Op, request_inference=st.builds(pb.RequestInference, max_price=u64)),
    st.just(pb.Op()),
)
chains = st.sampled_from([CHAIN] * 6 + ["", "assay-tesT", "assay-test2", "assay"])
messages = st.builds(
    pb.TxBody,
    chain_id=chains,
    valid_until_height=u64,
    salt=u64,
    max_fee=u64,
    ops=st.lists(operations, max_size=4),
    account=st.sampled_from([b""] * 6 + [bytes(32)]),
)


def parse(*encoded: bytes, chain_id: bytes = CHAIN.encode()) -> Bodies:
    payload = pb.BatchPayload(
        transactions=[
            pb.SignedTx(body=body, public_key=bytes(32), signature=bytes(64)) for body in encoded
        ]
    )
    return parse_bodies(transactions.parse_batch(payload.SerializeToString()), chain_id)


def is_plain(body: bytes, chain_id: str = CHAIN) -> bool:
    """The definition, by the protobuf library."""
    try:
        message = pb.TxBody.FromString(body)
    except DecodeError:
        return False
    known = pb.TxBody.FromString(body)
    known.DiscardUnknownFields()
    return (
        known.SerializeToString(deterministic=True) == body
        and message.chain_id == chain_id
        and not message.account
        and 1 <= len(message.ops) <= bodies.OPERATIONS_MAX
        and all(
            operation.WhichOneof("kind") == "transfer"
            and len(operation.transfer.to) == RECEIVER_BYTES
            for operation in message.ops
        )
    )


def assert_agrees(*encoded: bytes) -> list[int]:
    """Every body has the class and the fields that the protobuf library gives it."""
    parsed = parse(*encoded)
    payload, place = parsed.batch.payload, 0
    assert parsed.classes.tolist() == [int(is_plain(body)) for body in encoded]
    assert parsed.body_bytes.tolist() == [len(body) for body in encoded]
    for index, body in enumerate(encoded):
        fields = (
            int(parsed.valid_until_heights[index]),
            int(parsed.max_fees[index]),
            int(parsed.operation_counts[index]),
            int(parsed.first_operations[index]),
        )
        if parsed.classes[index] == OTHER:
            assert fields == (0, 0, 0, 0)
            continue
        message = pb.TxBody.FromString(body)
        count = len(message.ops)
        assert fields == (message.valid_until_height, message.max_fee, count, place)
        for operation in message.ops:
            start = int(parsed.receivers[place])
            assert payload[start : start + 32] == operation.transfer.to
            assert int(parsed.amounts[place]) == operation.transfer.amount
            place += 1
    assert len(parsed.receivers) == len(parsed.amounts) == place
    return [int(value) for value in parsed.classes]


def plain(count: int = 1, amount: int = 1, **fields: Any) -> pb.TxBody:
    transfer = pb.Transfer(to=bytes(range(32)), amount=amount)
    return pb.TxBody(
        chain_id=CHAIN,
        **{"valid_until_height": 9, "salt": 7, "max_fee": 5} | fields,
        ops=[pb.Op(transfer=transfer)] * count,
    )


@given(st.lists(messages, min_size=1, max_size=5))
@example([plain(), plain(2), plain(256), plain(257)])
@example([plain(amount=0), plain(amount=(1 << 64) - 1), plain(valid_until_height=0, salt=0)])
def test_what_protobuf_writes_has_its_class_and_its_fields(written: list[pb.TxBody]) -> None:
    encoded = [message.SerializeToString(deterministic=True) for message in written]
    assert_agrees(*(body for body in encoded if body))


@settings(max_examples=400)
@given(messages, st.data())
def test_a_damaged_body_is_plain_only_if_protobuf_writes_it_so(
    message: pb.TxBody, data: st.DataObject
) -> None:
    encoded = bytearray(message.SerializeToString(deterministic=True))
    for _ in range(data.draw(st.integers(1, 2))):
        start = data.draw(st.integers(0, len(encoded)))
        end = data.draw(st.integers(start, min(len(encoded), start + 3)))
        encoded[start:end] = data.draw(
            st.one_of(st.binary(max_size=3), st.sampled_from([b"\x10\x00", b"\x80\x00", b"\x32\0"]))
        )
    if encoded:
        assert_agrees(bytes(encoded))


@given(st.lists(st.binary(min_size=1, max_size=120), min_size=1, max_size=4))
def test_any_bytes_have_a_class(encoded: list[bytes]) -> None:
    assert_agrees(*encoded)


def test_every_cut_and_every_flipped_bit_of_a_plain_body_is_judged_as_protobuf_does() -> None:
    body = plain(2, amount=300).SerializeToString(deterministic=True)
    cut = [body[:length] for length in range(1, len(body))]
    flipped = [
        bytes(value ^ (1 << bit if place == at else 0) for at, value in enumerate(body))
        for place in range(len(body))
        for bit in range(8)
    ]
    assert PLAIN in assert_agrees(*cut, *flipped, body)


def field(number: int, kind: int, content: bytes) -> bytes:
    return bytes([number << 3 | kind]) + content


TRANSFER = field(1, 2, b"\x20" + bytes(32))
TAIL = field(5, 2, b"\x24" + field(1, 2, b"\x22" + TRANSFER))
HEAD = field(1, 2, bytes([len(CHAIN)]) + CHAIN.encode())


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (HEAD + TAIL, PLAIN),
        (TAIL, OTHER),
        (HEAD + TAIL + HEAD, OTHER),
        (HEAD + field(2, 0, b"\x00") + TAIL, OTHER),
        (HEAD + field(2, 0, b"\x81\x00") + TAIL, OTHER),
        (HEAD + field(2, 0, b"\xff" * 9 + b"\x01") + TAIL, PLAIN),
        (HEAD + field(2, 0, b"\xff" * 9 + b"\x02") + TAIL, OTHER),
        (HEAD + field(2, 0, b"\xff" * 10 + b"\x01") + TAIL, OTHER),
        (HEAD + field(3, 1, bytes(8)) + TAIL, OTHER),
        (HEAD + field(3, 1, bytes(7) + b"\x01") + TAIL, PLAIN),
        (HEAD + field(4, 0, b"\x05") + field(2, 0, b"\x05") + TAIL, OTHER),
        (HEAD + TAIL + field(6, 0, b"\x01"), OTHER),
        (HEAD + field(6, 0, b"\x01") + TAIL, OTHER),
        (HEAD + TAIL.replace(b"\x2a\x24", b"\x2a\xa4\x00"), OTHER),
        (field(1, 2, bytes([0x80 | len(CHAIN), 0]) + CHAIN.encode()) + TAIL, OTHER),
        (HEAD, OTHER),
    ],
)
def test_only_the_canonical_way_of_writing_is_plain(body: bytes, expected: int) -> None:
    assert assert_agrees(body) == [expected]


def test_a_batch_of_many_kinds_keeps_each_at_its_place() -> None:
    stake = pb.TxBody(chain_id=CHAIN, ops=[pb.Op(stake=pb.Stake(amount=1))])
    parsed = parse(
        *(
            message.SerializeToString(deterministic=True)
            for message in (plain(3), stake, plain(2, amount=8), plain(300), plain())
        )
    )
    assert parsed.classes.tolist() == [PLAIN, OTHER, PLAIN, OTHER, PLAIN]
    assert parsed.operation_counts.tolist() == [3, 0, 2, 0, 1]
    assert parsed.first_operations.tolist() == [0, 0, 3, 0, 5]
    assert parsed.amounts.tolist() == [1, 1, 1, 8, 8, 1]
    assert [parsed.next_other(start) for start in (0, 1, 2, 3, 4, 5, 9)] == [1, 1, 3, 3, 5, 5, 5]
    with pytest.raises(IndexError):
        parsed.next_other(-1)
    with pytest.raises(ValueError, match="read-only"):
        parsed.amounts[0] = 2


def test_an_empty_batch_has_no_bodies() -> None:
    parsed = parse()
    assert (len(parsed), parsed.next_other(0), len(parsed.amounts)) == (0, 0, 0)


def test_a_chain_without_a_name_leaves_the_field_out() -> None:
    assert parse(TAIL, HEAD + TAIL, chain_id=b"").classes.tolist() == [PLAIN, OTHER]
    assert parse(b"\x0a\x00" + TAIL, chain_id=b"").classes.tolist() == [OTHER]


def test_only_a_parsed_batch_and_a_utf8_name_are_taken() -> None:
    batch = transactions.parse_batch(b"")
    with pytest.raises(TypeError, match="a ParsedBatch is needed"):
        parse_bodies(b"", b"chain")  # type: ignore[arg-type]
    with pytest.raises(UnicodeDecodeError):
        parse_bodies(batch, b"\xff")
    with pytest.raises(TypeError, match="made by parse_bodies"):
        Bodies()
