"""Values laid out as bytes: bounds, kinds, and the bytes by hand."""

import enum
from dataclasses import dataclass
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ext.packing import (
    DecodeError,
    Layout,
    enumeration,
    exactly,
    flag,
    optional,
    record,
    sequence,
    signed,
    sized,
    text,
    unsigned,
)


class Pair(NamedTuple):
    left: int
    right: int


@dataclass(frozen=True)
class Named:
    left: int
    right: int


@dataclass(frozen=True, slots=True)
class Slotted:
    left: int
    right: int


@dataclass(frozen=True, slots=True)
class Span:
    left: int
    right: int

    def __post_init__(self) -> None:
        if self.left >= self.right:
            raise ValueError("does not rise")


@given(st.sampled_from([1, 2, 4, 8]), st.integers(-(1 << 65), 1 << 65))
def test_a_number_has_pythons_bytes_or_is_refused(width: int, value: int) -> None:
    for layout, is_signed in ((unsigned(width), False), (signed(width), True)):
        try:
            expected = value.to_bytes(width, "little", signed=is_signed)
        except OverflowError:
            with pytest.raises(ValueError, match=f"{value} does not fit {width} bytes"):
                layout.pack(value)
        else:
            assert layout.pack(value) == expected


@pytest.mark.parametrize(
    ("layout", "value", "expected"),
    [
        (flag(), True, b"\1"),
        (flag(), 0, b"\0"),
        (exactly(2), b"ab", b"ab"),
        (exactly(2), bytearray(b"ab"), b"ab"),
        (exactly(0), b"", b""),
        (sized(3), b"abc", b"\3\0\0\0abc"),
        (text(3), "ü", b"\2\0\0\0\xc3\xbc"),
        (optional(unsigned(1)), None, b"\0"),
        (optional(unsigned(1)), 7, b"\1\7"),
        (sequence(unsigned(2), 2), (1, 2), b"\2\0\0\0\1\0\2\0"),
        (record(Pair, ("left", "right"), (unsigned(1), unsigned(2))), Pair(1, 2), b"\1\2\0"),
        (record(Named, ("left", "right"), (unsigned(1), unsigned(2))), Named(1, 2), b"\1\2\0"),
        (record(tuple, (), ()), (), b""),
        (sized(5_000), b"x" * 5_000, b"\x88\x13\0\0" + b"x" * 5_000),
    ],
)
def test_each_kind_has_one_layout(layout: Layout, value: object, expected: bytes) -> None:
    assert layout.pack(value) == expected
    read = layout.unpack(expected)
    assert layout.pack(read) == expected
    for size in range(len(expected)):
        with pytest.raises(DecodeError, match=r"^needs \d+ bytes at offset \d+, has \d+$"):
            layout.unpack(expected[:size])
    with pytest.raises(DecodeError, match="1 bytes left over after"):
        layout.unpack(expected + b"\0")


@pytest.mark.parametrize(
    ("layout", "value", "message"),
    [
        (exactly(2), b"abc", "expected 2 bytes, got 3"),
        (sized(2), b"abc", "3 bytes exceed 2"),
        (text(2), "€", "3 bytes exceed 2"),
        (text(9), "\ud800", "surrogates not allowed"),
        (sequence(unsigned(1), 1), (1, 2), "2 elements exceed 1"),
        (record(Pair, ("left",), (unsigned(1),)), (1, 2), "1 fields are needed, got 2"),
    ],
)
def test_what_is_out_of_its_bounds_is_refused(layout: Layout, value: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        layout.pack(value)


@pytest.mark.parametrize(
    ("layout", "value"),
    [(unsigned(1), "1"), (unsigned(1), 1.0), (exactly(1), "a"), (text(1), b"a"), (sized(1), None)],
)
def test_a_value_of_another_kind_is_refused(layout: Layout, value: object) -> None:
    with pytest.raises(TypeError):
        layout.pack(value)


class Colour(enum.IntEnum):
    RED = 1
    BLUE = 7


class Rising(NamedTuple):
    values: tuple[int, ...]
    colour: Colour
    note: str | None


@dataclass(frozen=True)
class Checked:
    size: int

    def __post_init__(self) -> None:
        if self.size > 9:
            raise ValueError(f"{self.size} is too large")


RISING = record(
    Rising,
    ("values", "colour", "note"),
    (sequence(signed(4), 1 << 20), enumeration(Colour), optional(text(20))),
)


@given(
    st.lists(st.integers(-(1 << 31), (1 << 31) - 1), max_size=5),
    st.sampled_from(Colour),
    st.none() | st.text(max_size=5),
)
def test_what_was_written_is_read_again(
    values: list[int], colour: Colour, note: str | None
) -> None:
    value = Rising(tuple(values), colour, note)
    read = RISING.unpack(RISING.pack(value))
    assert read == value
    assert type(read) is Rising
    assert type(read.colour) is Colour


@given(st.binary(max_size=40))
def test_any_bytes_are_a_values_one_encoding_or_refused(data: bytes) -> None:
    try:
        value = RISING.unpack(data)
    except DecodeError:
        return
    assert RISING.pack(value) == data


def test_more_elements_than_there_are_bytes_are_refused_before_room_is_made() -> None:
    with pytest.raises(DecodeError, match="needs 4194304 bytes at offset 4, has 0"):
        RISING.unpack((1 << 20).to_bytes(4, "little"))


def test_what_a_records_own_type_refuses_is_no_encoding_of_it() -> None:
    layout = record(Checked, ("size",), (unsigned(1),))
    assert layout.unpack(b"\x09") == Checked(9)
    with pytest.raises(DecodeError, match="Checked: 10 is too large"):
        layout.unpack(b"\x0a")
    with pytest.raises(DecodeError, match="3 is no Colour"):
        enumeration(Colour).unpack(b"\x03")


def test_only_layouts_that_can_be_are_made() -> None:
    with pytest.raises(ValueError, match="1, 2, 4 or 8 bytes, not 3"):
        unsigned(3)
    with pytest.raises(ValueError, match="2 names for 1 layouts"):
        record(Pair, ("a", "b"), (flag(),))
    with pytest.raises(ValueError, match="a size is -1"):
        exactly(-1)
    with pytest.raises(TypeError):
        optional(None)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="made by the functions"):
        Layout()


@pytest.mark.parametrize("kind", [Pair, Named, Slotted, Span])
def test_a_record_comes_back_as_its_class_would_make_it(kind: type) -> None:
    layout = record(kind, ("left", "right"), (unsigned(1), unsigned(2)))
    value = layout.unpack(b"\1\2\0")
    assert value == kind(1, 2)
    assert repr(value) == repr(kind(1, 2))
    with pytest.raises(DecodeError, match="needs 2 bytes at offset 1"):
        layout.unpack(b"\1\2")


def test_what_a_record_refuses_is_no_encoding() -> None:
    layout = record(Span, ("left", "right"), (unsigned(1), unsigned(2)))
    with pytest.raises(DecodeError, match="Span: does not rise"):
        layout.unpack(b"\2\2\0")


def test_bounds_far_above_a_number_of_bits_are_bounds() -> None:
    for layout in (sized(1 << 28), text(0xFFFFFFFF), sequence(unsigned(1), 1 << 31)):
        assert layout.unpack(layout.pack(layout.unpack(bytes(4)))) == layout.unpack(bytes(4))
    assert sized(1 << 28).unpack(b"\1\0\0\0x") == b"x"
