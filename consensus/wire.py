"""One way to turn a value into bytes: a frozen dataclass whose annotations are its layout.

A NamedTuple serves as well, for values that are copied with changes all the time.

Rules: integers are little-endian and of fixed width; variable things carry a count and a bound
that is checked before anything is allocated; a value has exactly one encoding, and bytes left over
are an error. So `encode(decode(T, data)) == data` for every accepted input, and a digest of the
bytes is a digest of the value. Consensus messages, ledger records and receipts use it; the public
API uses protobuf.

    @dataclass(frozen=True, slots=True)
    class Vote:
        view: U64
        digest: Hash
        signers: Annotated[tuple[U16, ...], Count(128)]
        note: Annotated[bytes, Size(64)]
        parent: Hash | None
"""

import enum
import itertools
import operator
import struct
import types
import typing
from collections.abc import Callable, Hashable
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from typing import Annotated, Any, TypeVar, Union

T = TypeVar("T")


class DecodeError(ValueError):
    """The bytes are not the one valid encoding of the expected value."""


@dataclass(frozen=True, slots=True)
class Unsigned:
    """An unsigned integer of `width` bytes."""

    width: int


@dataclass(frozen=True, slots=True)
class Signed:
    """A two's complement integer of `width` bytes."""

    width: int


@dataclass(frozen=True, slots=True)
class Exactly:
    """A byte string of exactly `size` bytes, without a length."""

    size: int


@dataclass(frozen=True, slots=True)
class Size:
    """A byte string or text of at most `limit` bytes, behind a four-byte length."""

    limit: int


@dataclass(frozen=True, slots=True)
class Count:
    """A tuple of at most `limit` elements, behind a four-byte count."""

    limit: int


U8 = Annotated[int, Unsigned(1)]
U16 = Annotated[int, Unsigned(2)]
U32 = Annotated[int, Unsigned(4)]
U64 = Annotated[int, Unsigned(8)]
I32 = Annotated[int, Signed(4)]
I64 = Annotated[int, Signed(8)]
Hash = Annotated[bytes, Exactly(32)]
PublicKey = Annotated[bytes, Exactly(32)]
Signature = Annotated[bytes, Exactly(64)]

_STRUCT_FORMATS = {1: "B", 2: "H", 4: "I", 8: "Q"}

_Write = Callable[[bytearray, Any], None]
_Read = Callable[["_Reader"], Any]


class _Reader:
    __slots__ = ("data", "end", "offset")

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.offset = 0
        self.end = len(data)

    def take(self, size: int) -> bytes:
        start = self.offset
        if size > self.end - start:
            raise DecodeError(f"needs {size} bytes at offset {start}, has {self.end - start}")
        self.offset = start + size
        return self.data[start : self.offset]

    def count(self, limit: int) -> int:
        value = int.from_bytes(self.take(4), "little")
        if value > limit:
            raise DecodeError(f"count {value} at offset {self.offset - 4} exceeds {limit}")
        return value


def _integer(width: int, signed: bool) -> tuple[_Write, _Read]:
    def write(out: bytearray, value: Any) -> None:
        try:
            out += value.to_bytes(width, "little", signed=signed)
        except OverflowError as error:
            raise ValueError(f"{value} does not fit {width} bytes") from error

    def read(reader: _Reader) -> int:
        return int.from_bytes(reader.take(width), "little", signed=signed)

    return write, read


def _exactly(size: int) -> tuple[_Write, _Read]:
    def write(out: bytearray, value: Any) -> None:
        if len(value) != size:
            raise ValueError(f"expected {size} bytes, got {len(value)}")
        out += value

    def read(reader: _Reader) -> bytes:
        return reader.take(size)

    return write, read


def _sized(limit: int, text: bool) -> tuple[_Write, _Read]:
    def write(out: bytearray, value: Any) -> None:
        data = value.encode() if text else value
        if len(data) > limit:
            raise ValueError(f"{len(data)} bytes exceed {limit}")
        out += len(data).to_bytes(4, "little")
        out += data

    def read(reader: _Reader) -> bytes | str:
        data = reader.take(reader.count(limit))
        if not text:
            return data
        try:
            return data.decode()
        except UnicodeDecodeError as error:
            raise DecodeError(f"text is not UTF-8: {error.reason}") from error

    return write, read


def _sequence(element: Any, limit: int) -> tuple[_Write, _Read]:
    if _is_number(element):
        return _numbers_in_sequence(element, limit)
    write_one, read_one = _codec(element)

    def write(out: bytearray, value: Any) -> None:
        if len(value) > limit:
            raise ValueError(f"{len(value)} elements exceed {limit}")
        out += len(value).to_bytes(4, "little")
        for item in value:
            write_one(out, item)

    def read(reader: _Reader) -> tuple[Any, ...]:
        return tuple(read_one(reader) for _ in range(reader.count(limit)))

    return write, read


def _numbers_in_sequence(element: Any, limit: int) -> tuple[_Write, _Read]:
    """The same layout for a tuple of numbers, which are packed in one step."""
    number_format, width = _number_format(element), typing.get_args(element)[1].width
    write_one, _ = _codec(element)

    def write(out: bytearray, value: Any) -> None:
        if len(value) > limit:
            raise ValueError(f"{len(value)} elements exceed {limit}")
        out += len(value).to_bytes(4, "little")
        try:
            out += struct.pack(f"<{len(value)}{number_format}", *value)
        except struct.error:  # one by one they say which is out of its bounds
            for item in value:
                write_one(out, item)

    def read(reader: _Reader) -> tuple[int, ...]:
        count = reader.count(limit)
        return struct.unpack(f"<{count}{number_format}", reader.take(count * width))

    return write, read


def _optional(inner: Any) -> tuple[_Write, _Read]:
    write_one, read_one = _codec(inner)

    def write(out: bytearray, value: Any) -> None:
        out.append(0 if value is None else 1)
        if value is not None:
            write_one(out, value)

    def read(reader: _Reader) -> Any:
        return read_one(reader) if _flag(reader) else None

    return write, read


def _flag(reader: _Reader) -> bool:
    byte = reader.take(1)[0]
    if byte > 1:
        raise DecodeError(f"flag at offset {reader.offset - 1} is {byte}, not 0 or 1")
    return byte == 1


def _boolean() -> tuple[_Write, _Read]:
    def write(out: bytearray, value: Any) -> None:
        out.append(1 if value else 0)

    return write, _flag


def _enumeration(kind: type[enum.IntEnum]) -> tuple[_Write, _Read]:
    def write(out: bytearray, value: Any) -> None:
        out.append(value)

    def read(reader: _Reader) -> enum.IntEnum:
        byte = reader.take(1)[0]
        try:
            return kind(byte)
        except ValueError as error:
            raise DecodeError(f"{byte} is no {kind.__name__}") from error

    return write, read


def _record(kind: type[Any]) -> tuple[_Write, _Read]:
    hints = typing.get_type_hints(kind, include_extras=True)
    names = kind._fields if _is_named_tuple(kind) else [field.name for field in fields(kind)]
    parts = [_codec(hints[name]) for name in names]
    read_fields = operator.attrgetter(*names) if names else lambda _: ()
    steps = _steps([_number_format(hints[name]) for name in names], [part[0] for part in parts])

    def write(out: bytearray, value: Any) -> None:
        values = read_fields(value) if len(names) != 1 else (read_fields(value),)
        for start, stop, write_some in steps:
            write_some(out, values[start] if stop == start + 1 else values[start:stop])

    readers = _read_steps([hints[name] for name in names], [part[1] for part in parts])

    def read(reader: _Reader) -> Any:
        values: list[Any] = []
        for size, read_some in readers:
            if size:
                values += read_some(reader.take(size))
            else:
                values.append(read_some(reader))
        try:
            return kind(*values)
        except DecodeError:
            raise
        except ValueError as error:
            raise DecodeError(f"{kind.__name__}: {error}") from error

    return write, read


def _is_named_tuple(kind: type[Any]) -> bool:
    return issubclass(kind, tuple) and hasattr(kind, "_fields")


def _is_number(hint: Any) -> bool:
    rule = typing.get_args(hint)[1] if typing.get_origin(hint) is Annotated else None
    return isinstance(rule, Unsigned | Signed)


def _number_format(hint: Any) -> str:
    """How `struct` calls a number of fixed width; empty for what is none."""
    if typing.get_origin(hint) is Annotated:
        rule = typing.get_args(hint)[1]
        if isinstance(rule, Unsigned):
            return _STRUCT_FORMATS[rule.width]
        if isinstance(rule, Signed):
            return _STRUCT_FORMATS[rule.width].lower()
    if hint is bool:
        return "?"
    return "B" if isinstance(hint, type) and issubclass(hint, enum.IntEnum) else ""


def _steps(formats: list[str], writes: list[_Write]) -> list[tuple[int, int, _Write]]:
    """(first field, end, how to write them): numbers that stand together go in one step."""
    steps: list[tuple[int, int, _Write]] = []
    start = 0
    while start < len(writes):
        stop = start + 1
        while stop < len(writes) and formats[start] and formats[stop]:
            stop += 1
        if stop > start + 1:
            steps.append((start, stop, _numbers("".join(formats[start:stop]), writes[start:stop])))
        else:
            steps.append((start, stop, writes[start]))
        start = stop
    return steps


def _read_steps(hints: list[Any], reads: list[_Read]) -> list[tuple[int, Callable[[Any], Any]]]:
    """(bytes of numbers that stand together, how to unpack them), or (0, how to read one field)."""
    steps: list[tuple[int, Callable[[Any], Any]]] = []
    for is_number, fields_of in itertools.groupby(
        zip(hints, reads, strict=True), key=lambda field: _is_number(field[0])
    ):
        together = list(fields_of)
        if is_number:
            numbers = struct.Struct("<" + "".join(_number_format(hint) for hint, _ in together))
            steps.append((numbers.size, numbers.unpack))
        else:
            steps += [(0, read_one) for _, read_one in together]
    return steps


def _numbers(formats: str, writes: list[_Write]) -> _Write:
    pack = struct.Struct("<" + formats).pack

    def write(out: bytearray, values: Any) -> None:
        try:
            out += pack(*values)
        except struct.error:  # one by one they say which is out of its bounds
            for write_one, value in zip(writes, values, strict=True):
                write_one(out, value)

    return write


@cache
def _codec(hint: Any) -> tuple[_Write, _Read]:
    origin = typing.get_origin(hint)
    if origin is Annotated:
        base, rule = typing.get_args(hint)[:2]
        if isinstance(rule, Unsigned):
            return _integer(rule.width, signed=False)
        if isinstance(rule, Signed):
            return _integer(rule.width, signed=True)
        if isinstance(rule, Exactly):
            return _exactly(rule.size)
        if isinstance(rule, Size):
            return _sized(rule.limit, text=base is str)
        if isinstance(rule, Count):
            return _sequence(typing.get_args(base)[0], rule.limit)
    if origin in (Union, types.UnionType):
        inner = [part for part in typing.get_args(hint) if part is not type(None)]
        if len(inner) == 1:
            return _optional(inner[0])
    if hint is bool:
        return _boolean()
    if isinstance(hint, type) and issubclass(hint, enum.IntEnum):
        return _enumeration(hint)
    if is_dataclass(hint) or (isinstance(hint, type) and _is_named_tuple(hint)):
        return _record(typing.cast(type[Any], hint))
    raise TypeError(f"{hint!r} has no layout")


def encode(value: Any) -> bytes:
    """Bytes of a dataclass or NamedTuple value.

    Raises ValueError if a field is out of its bounds: that is a bug of ours, never a peer's.
    """
    out = bytearray()
    write, _ = _codec(typing.cast(Hashable, type(value)))
    write(out, value)
    return bytes(out)


def decode(kind: type[T], data: bytes) -> T:
    """The value of type `kind` whose one encoding is `data`. Raises DecodeError for anything
    else."""
    reader = _Reader(data)
    _, read = _codec(typing.cast(Hashable, kind))
    value = read(reader)
    if reader.offset != reader.end:
        raise DecodeError(f"{reader.end - reader.offset} bytes left over after {kind.__name__}")
    return typing.cast(T, value)
