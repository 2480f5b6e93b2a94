"""Values laid out as bytes: the writing half of consensus/wire.py, natively.

Numbers are little-endian and of fixed width; what varies stands behind its length or count in four
bytes; an optional value stands behind a byte that is 0 or 1. `pack` raises ValueError for a value
that is out of its bounds, TypeError or AttributeError for one of another kind.
"""

from collections.abc import Iterable

class Layout:
    """How values of one kind are laid out. Made by the functions below."""

    def pack(self, value: object) -> bytes: ...

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

def record(names: Iterable[str], layouts: Iterable[Layout]) -> Layout:
    """Fields in order: of a tuple by place, of anything else by name."""
