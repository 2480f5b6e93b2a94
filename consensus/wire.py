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
import types
import typing
from collections.abc import Hashable
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from typing import Annotated, Any, TypeVar, Union

from ext import packing

T = TypeVar("T")

DecodeError = packing.DecodeError
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


@cache
def layout_of(hint: Any) -> packing.Layout:
    """How values of this type are laid out. Raises TypeError for one without a layout."""
    origin = typing.get_origin(hint)
    if origin is Annotated:
        base, rule = typing.get_args(hint)[:2]
        match rule:
            case Unsigned(width):
                return packing.unsigned(width)
            case Signed(width):
                return packing.signed(width)
            case Exactly(size):
                return packing.exactly(size)
            case Size(limit):
                return packing.text(limit) if base is str else packing.sized(limit)
            case Count(limit):
                return packing.sequence(layout_of(typing.get_args(base)[0]), limit)
    if origin in (Union, types.UnionType):
        inner = [part for part in typing.get_args(hint) if part is not type(None)]
        if len(inner) == 1:
            return packing.optional(layout_of(inner[0]))
    if hint is bool:
        return packing.flag()
    if isinstance(hint, type) and issubclass(hint, enum.IntEnum):
        return packing.enumeration(hint)
    if is_dataclass(hint) or (isinstance(hint, type) and _is_named_tuple(hint)):
        return _record(typing.cast(type[Any], hint))
    raise TypeError(f"{hint!r} has no layout")


def _record(kind: type[Any]) -> packing.Layout:
    hints = typing.get_type_hints(kind, include_extras=True)
    names = kind._fields if _is_named_tuple(kind) else [field.name for field in fields(kind)]
    return packing.record(kind, names, [layout_of(hints[name]) for name in names])


def _is_named_tuple(kind: type[Any]) -> bool:
    return issubclass(kind, tuple) and hasattr(kind, "_fields")


def encode(value: Any) -> bytes:
    """Bytes of a dataclass or NamedTuple value.

    Raises ValueError if a field is out of its bounds: that is a bug of ours, never a peer's.
    """
    return layout_of(typing.cast(Hashable, type(value))).pack(value)


def decode(kind: type[T], data: bytes) -> T:
    """The value of type `kind` whose one encoding is `data`. Raises DecodeError for anything
    else."""
    return typing.cast(T, layout_of(typing.cast(Hashable, kind)).unpack(data))
