"""The canonical encoding: one value, one string of bytes."""

import enum
from dataclasses import dataclass
from typing import Annotated, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consensus.wire import (
    I32,
    U8,
    U16,
    U64,
    Count,
    DecodeError,
    Exactly,
    Hash,
    Size,
    decode,
    encode,
)


class Colour(enum.IntEnum):
    RED = 1
    BLUE = 2


@dataclass(frozen=True, slots=True)
class Inner:
    number: U16
    name: Annotated[str, Size(8)]


@dataclass(frozen=True, slots=True)
class Everything:
    small: U8
    wide: U64
    signed: I32
    digest: Hash
    pair: Annotated[bytes, Exactly(2)]
    note: Annotated[bytes, Size(5)]
    colour: Colour
    flag: bool
    maybe: Hash | None
    inner: Annotated[tuple[Inner, ...], Count(3)]


def names(limit: int) -> st.SearchStrategy[str]:
    return st.text(max_size=limit).filter(lambda text: len(text.encode()) <= limit)


class Pair(NamedTuple):
    left: U16
    right: U64


@dataclass(frozen=True, slots=True)
class Nothing:
    pass


VALUES = st.builds(
    Everything,
    small=st.integers(0, 2**8 - 1),
    wide=st.integers(0, 2**64 - 1),
    signed=st.integers(-(2**31), 2**31 - 1),
    digest=st.binary(min_size=32, max_size=32),
    pair=st.binary(min_size=2, max_size=2),
    note=st.binary(max_size=5),
    colour=st.sampled_from(Colour),
    flag=st.booleans(),
    maybe=st.none() | st.binary(min_size=32, max_size=32),
    inner=st.lists(
        st.builds(Inner, number=st.integers(0, 2**16 - 1), name=names(8)), max_size=3
    ).map(tuple),
)


def sample() -> Everything:
    return Everything(
        small=1,
        wide=2,
        signed=-3,
        digest=b"\x04" * 32,
        pair=b"ab",
        note=b"xyz",
        colour=Colour.BLUE,
        flag=True,
        maybe=None,
        inner=(Inner(5, "é"),),
    )


def test_the_layout_is_little_endian_fixed_width_and_counted() -> None:
    assert encode(sample()) == (
        b"\x01"
        + (2).to_bytes(8, "little")
        + b"\xfd\xff\xff\xff"
        + b"\x04" * 32
        + b"ab"
        + b"\x03\x00\x00\x00xyz"
        + b"\x02\x01\x00"
        + b"\x01\x00\x00\x00\x05\x00\x02\x00\x00\x00\xc3\xa9"
    )


@given(VALUES)
def test_a_value_comes_back_from_its_bytes(value: Everything) -> None:
    assert decode(Everything, encode(value)) == value


@given(VALUES, st.data())
def test_whatever_decodes_has_no_other_encoding(value: Everything, data: st.DataObject) -> None:
    encoded = bytearray(encode(value))
    encoded[data.draw(st.integers(0, len(encoded) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        changed = decode(Everything, bytes(encoded))
    except DecodeError:
        return
    assert encode(changed) == bytes(encoded)
    assert changed != value


@given(st.binary(max_size=200))
def test_decoding_is_total(data: bytes) -> None:
    try:
        value = decode(Everything, data)
    except DecodeError:
        return
    assert encode(value) == data


def test_every_truncation_and_every_extension_is_refused() -> None:
    encoded = encode(sample())
    for size in range(len(encoded)):
        with pytest.raises(DecodeError):
            decode(Everything, encoded[:size])
    with pytest.raises(DecodeError, match="1 bytes left over after Everything"):
        decode(Everything, encoded + b"\x00")


def test_a_count_over_its_bound_is_refused_before_anything_is_read() -> None:
    @dataclass(frozen=True, slots=True)
    class Many:
        items: Annotated[tuple[U8, ...], Count(2)]

    with pytest.raises(DecodeError, match="count 4294967295 at offset 0 exceeds 2"):
        decode(Many, b"\xff\xff\xff\xff")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"small": 256}, "256 does not fit 1 bytes"),
        ({"small": -1}, "-1 does not fit 1 bytes"),
        ({"pair": b"abc"}, "expected 2 bytes, got 3"),
        ({"note": b"123456"}, "6 bytes exceed 5"),
        ({"inner": (Inner(1, ""),) * 4}, "4 elements exceed 3"),
    ],
)
def test_encoding_refuses_what_is_out_of_bounds(changes: dict[str, object], message: str) -> None:
    fields = {name: getattr(sample(), name) for name in Everything.__slots__}
    with pytest.raises(ValueError, match=message):
        encode(Everything(**{**fields, **changes}))


def test_flags_and_enumerations_have_no_spare_values() -> None:
    @dataclass(frozen=True, slots=True)
    class Flag:
        flag: bool

    @dataclass(frozen=True, slots=True)
    class Paint:
        colour: Colour

    with pytest.raises(DecodeError, match="flag at offset 0 is 2"):
        decode(Flag, b"\x02")
    with pytest.raises(DecodeError, match="3 is no Colour"):
        decode(Paint, b"\x03")


def test_text_that_is_not_utf8_is_refused() -> None:
    with pytest.raises(DecodeError, match="text is not UTF-8"):
        decode(Inner, b"\x01\x00\x01\x00\x00\x00\xff")


def test_a_named_tuple_is_laid_out_as_a_dataclass_is() -> None:
    assert encode(Pair(1, 2)) == b"\x01\0\x02" + bytes(7)
    assert decode(Pair, encode(Pair(1, 2))) == Pair(1, 2)


def test_a_value_without_fields_is_no_bytes() -> None:
    assert encode(Nothing()) == b""
    assert decode(Nothing, b"") == Nothing()


def test_of_several_numbers_the_one_out_of_bounds_is_named() -> None:
    with pytest.raises(ValueError, match="65536 does not fit 2 bytes"):
        encode(Pair(65_536, 1))


@dataclass(frozen=True, slots=True)
class Numbers:
    values: Annotated[tuple[I32, ...], Count(4)]


@given(st.lists(st.integers(-(2**31), 2**31 - 1), max_size=4).map(tuple))
def test_a_tuple_of_numbers_is_laid_out_one_by_one(values: tuple[int, ...]) -> None:
    one_by_one = b"".join(value.to_bytes(4, "little", signed=True) for value in values)
    encoded = len(values).to_bytes(4, "little") + one_by_one
    assert encode(Numbers(values)) == encoded
    assert decode(Numbers, encoded) == Numbers(values)


def test_numbers_out_of_bounds_cut_or_too_many_are_refused() -> None:
    with pytest.raises(ValueError, match="2147483648 does not fit 4 bytes"):
        encode(Numbers((1, 2**31)))
    with pytest.raises(ValueError, match="5 elements exceed 4"):
        encode(Numbers((0,) * 5))
    with pytest.raises(DecodeError, match="needs 8 bytes at offset 4, has 7"):
        decode(Numbers, b"\x02\0\0\0" + bytes(7))
    with pytest.raises(DecodeError, match="exceeds 4"):
        decode(Numbers, b"\x05\0\0\0" + bytes(20))
