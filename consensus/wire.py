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
import struct
import types
import typing
from collections.abc import Callable, Hashable
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from typing import Annotated, Any, TypeVar, Union

from ext import packing

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


def _integer(width: int, signed: bool) -> _Read:
    def read(reader: _Reader) -> int:
        return int.from_bytes(reader.take(width), "little", signed=signed)

    return read


def _exactly(size: int) -> _Read:
    def read(reader: _Reader) -> bytes:
        return reader.take(size)

    return read


def _sized(limit: int, text: bool) -> _Read:
    def read(reader: _Reader) -> bytes | str:
        data = reader.take(reader.count(limit))
        if not text:
            return data
        try:
            return data.decode()
        except UnicodeDecodeError as error:
            raise DecodeError(f"text is not UTF-8: {error.reason}") from error

    return read


def _sequence(element: Any, limit: int) -> _Read:
    if _is_number(element):
        return _numbers_in_sequence(element, limit)
    read_one = _reader(element)

    def read(reader: _Reader) -> tuple[Any, ...]:
        return tuple(read_one(reader) for _ in range(reader.count(limit)))

    return read


def _numbers_in_sequence(element: Any, limit: int) -> _Read:
    """The same for a tuple of numbers, which are unpacked in one step."""
    number_format, width = _number_format(element), typing.get_args(element)[1].width

    def read(reader: _Reader) -> tuple[int, ...]:
        count = reader.count(limit)
        return struct.unpack(f"<{count}{number_format}", reader.take(count * width))

    return read


def _optional(inner: Any) -> _Read:
    read_one = _reader(inner)

    def read(reader: _Reader) -> Any:
        return read_one(reader) if _flag(reader) else None

    return read


def _flag(reader: _Reader) -> bool:
    byte = reader.take(1)[0]
    if byte > 1:
        raise DecodeError(f"flag at offset {reader.offset - 1} is {byte}, not 0 or 1")
    return byte == 1


def _enumeration(kind: type[enum.IntEnum]) -> _Read:
    def read(reader: _Reader) -> enum.IntEnum:
        byte = reader.take(1)[0]
        try:
            return kind(byte)
        except ValueError as error:
            raise DecodeError(f"{byte} is no {kind.__name__}") from error

    return read


def _record(kind: type[Any]) -> _Read:
    hints = _field_hints(kind).values()
    readers = _read_steps(list(hints), [_reader(hint) for hint in hints])

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

    return read


def _field_hints(kind: type[Any]) -> dict[str, Any]:
    """The fields in order, and how each is annotated."""
    hints = typing.get_type_hints(kind, include_extras=True)
    names = kind._fields if _is_named_tuple(kind) else [field.name for field in fields(kind)]
    return {name: hints[name] for name in names}


def _is_named_tuple(kind: type[Any]) -> bool:
    return issubclass(kind, tuple) and hasattr(kind, "_fields")


def _is_number(hint: Any) -> bool:
    rule = typing.get_args(hint)[1] if typing.get_origin(hint) is Annotated else None
    return isinstance(rule, Unsigned | Signed)


def _number_format(hint: Any) -> str:
    """How `struct` calls a number of fixed width."""
    rule = typing.get_args(hint)[1]
    letter = _STRUCT_FORMATS[rule.width]
    return letter if isinstance(rule, Unsigned) else letter.lower()


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


@cache
def _reader(hint: Any) -> _Read:
    rule, inner = _rule(hint)
    match rule:
        case Unsigned(width):
            return _integer(width, signed=False)
        case Signed(width):
            return _integer(width, signed=True)
        case Exactly(size):
            return _exactly(size)
        case Size(limit):
            return _sized(limit, text=inner is str)
        case Count(limit):
            return _sequence(inner, limit)
        case _Kind.OPTIONAL:
            return _optional(inner)
        case _Kind.FLAG:
            return _flag
        case _Kind.ENUMERATION:
            return _enumeration(inner)
    return _record(inner)


@cache
def _layout(hint: Any) -> packing.Layout:
    rule, inner = _rule(hint)
    match rule:
        case Unsigned(width):
            return packing.unsigned(width)
        case Signed(width):
            return packing.signed(width)
        case Exactly(size):
            return packing.exactly(size)
        case Size(limit):
            return packing.text(limit) if inner is str else packing.sized(limit)
        case Count(limit):
            return packing.sequence(_layout(inner), limit)
        case _Kind.OPTIONAL:
            return packing.optional(_layout(inner))
        case _Kind.FLAG:
            return packing.flag()
        case _Kind.ENUMERATION:
            return packing.unsigned(1)
    hints = _field_hints(inner)
    return packing.record(hints, map(_layout, hints.values()))


class _Kind(enum.Enum):
    """What an annotation without a rule of its own says."""

    OPTIONAL = enum.auto()
    FLAG = enum.auto()
    ENUMERATION = enum.auto()
    RECORD = enum.auto()


_Rule = Unsigned | Signed | Exactly | Size | Count | _Kind


def _rule(hint: Any) -> tuple[_Rule, Any]:
    """The rule that an annotation says, and the type it says it of: of an element, of what may be
    None, or the type itself. Raises TypeError."""
    origin = typing.get_origin(hint)
    if origin is Annotated:
        base, rule = typing.get_args(hint)[:2]
        if isinstance(rule, Count):
            return rule, typing.get_args(base)[0]
        if isinstance(rule, Unsigned | Signed | Exactly | Size):
            return rule, base
    if origin in (Union, types.UnionType):
        inner = [part for part in typing.get_args(hint) if part is not type(None)]
        if len(inner) == 1:
            return _Kind.OPTIONAL, inner[0]
    if hint is bool:
        return _Kind.FLAG, hint
    if isinstance(hint, type) and issubclass(hint, enum.IntEnum):
        return _Kind.ENUMERATION, hint
    if is_dataclass(hint) or (isinstance(hint, type) and _is_named_tuple(hint)):
        return _Kind.RECORD, hint
    raise TypeError(f"{hint!r} has no layout")


def encode(value: Any) -> bytes:
    """Bytes of a dataclass or NamedTuple value.

    Raises ValueError if a field is out of its bounds: that is a bug of ours, never a peer's.
    """
    return _layout(typing.cast(Hashable, type(value))).pack(value)


def decode(kind: type[T], data: bytes) -> T:
    """The value of type `kind` whose one encoding is `data`. Raises DecodeError for anything
    else."""
    reader = _Reader(data)
    value = _reader(typing.cast(Hashable, kind))(reader)
    if reader.offset != reader.end:
        raise DecodeError(f"{reader.end - reader.offset} bytes left over after {kind.__name__}")
    return typing.cast(T, value)
