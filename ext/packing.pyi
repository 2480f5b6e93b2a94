"""Values laid out as bytes, and read back: what consensus/wire.py makes of annotations.

Numbers are little-endian and of fixed width; what varies stands behind its length or count in four
bytes; an optional value stands behind a byte that is 0 or 1. A value has exactly one encoding, and
nothing is allocated for more elements than the bytes left could hold.
"""

import enum
from collections.abc import Iterable

class DecodeError(ValueError):
    """The bytes are not the one valid encoding of the expected value."""

class Layout:
    """How values of one kind are laid out. Made by the functions below."""

    def pack(self, value: object) -> bytes:
        """Raises ValueError for a value that is out of its bounds, TypeError or AttributeError for
        one of another kind."""
    def unpack(self, data: bytes) -> object:
        """The value whose encoding `data` is. Raises DecodeError for anything else, a ValueError of
        a record's own type included."""

def unsigned(width: int) -> Layout:
    """A number of 1, 2, 4 or 8 bytes."""

def signed(width: int) -> Layout:
    """The same in two's complement."""

def exactly(size: int) -> Layout:
    """A byte string of one size."""

def sized(limit: int) -> Layout:
    """A byte string behind its length."""

def text(limit: int) -> Layout:
    """UTF-8 behind its length in bytes."""

def flag() -> Layout:
    """A byte: 1 for what is true, else 0."""

def optional(inner: Layout) -> Layout:
    """A value, or None."""

def sequence(element: Layout, limit: int) -> Layout:
    """Values behind their count."""

def enumeration(kind: type[enum.IntEnum]) -> Layout:
    """A member of the enumeration, as one byte."""

def record(kind: type, names: Iterable[str], layouts: Iterable[Layout]) -> Layout:
    """Fields in order, and the type they are given to; a tuple's by place, of anything else by
    name."""
