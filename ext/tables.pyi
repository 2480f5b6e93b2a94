"""Records of one kind by key, with undo, and the numbered rows that a table's root is over.

A commit lays out, numbers and hashes what was written since the last one, and nothing else. It
first frees the numbers of the rows that it deletes, then gives the new ones, in order of key, the
lowest free numbers; a table ends with its last row in use (docs/decisions/0016). A stored value is
the row's number (u32-LE), then the encoded record.
"""

from collections.abc import Iterator
from typing import Final, Generic, TypeVar

from ext.packing import Layout

Record = TypeVar("Record")

ROWS_MAX: Final = 1 << 24
ROW_NUMBER_BYTES: Final = 4

class UndoLog:
    """What tables held before each of the writes that can still be undone. Not thread-safe."""

    def __len__(self) -> int:
        """Number of writes."""
    def rollback(self, kept: int) -> None:
        """Undo all but the first writes, newest first. Raises ValueError for a negative number."""
    def clear(self) -> None:
        """What was written stays."""

class RecordTable(Generic[Record]):
    """One table. Not thread-safe."""

    changed: list[tuple[bytes, Record]]
    """Those that the last commit wrote, in order of key: new, or another than before."""

    def __init__(
        self,
        number: int,
        layout: Layout,
        key_bytes: int,
        undo: UndoLog,
        group_bytes: int = 0,
        with_suffixes: bool = False,
    ) -> None:
        """Keys that share their first `group_bytes` can be had together, and with suffixes those
        that share what follows, too."""
    def __len__(self) -> int:
        """Number of records."""
    @property
    def number(self) -> int:
        """It enters the hash of every row, as one byte."""
    @property
    def key_bytes(self) -> int:
        """Length of a key."""
    def get(self, key: bytes) -> Record | None:
        """The record, or None."""
    def scan(self, group: bytes = b"") -> Iterator[tuple[bytes, Record]]:
        """(key, record) of the group with this prefix, or of all rows, in order of key. Do not
        write meanwhile.

        Sorts all rows to give them all, so that is nothing for every transaction.
        """
    def ending(self, suffix: bytes) -> Iterator[tuple[bytes, Record]]:
        """(key, record) of the rows of all groups with this key inside of their group, in order.
        Raises TypeError for a table without suffixes."""
    def put(self, key: bytes, record: Record | None) -> None:
        """Set the record, or delete it with None, so that it can be undone."""
    def load(self, values: dict[bytes, bytes]) -> None:
        """Fill the empty table from stored values. Raises ValueError for any that no commit
        wrote."""
    def commit(self) -> list[tuple[int, bytes, bytes | None]]:
        """Number and hash what changed since the last commit: (number of the table, key, stored
        value or None) in order of key. Raises OverflowError for more than ROWS_MAX rows."""
    def rows(self) -> Iterator[tuple[int, bytes, bytes]]:
        """(number of the table, key, stored value) of what is committed, in order of key."""
    @property
    def root(self) -> bytes:
        """Root as of the last commit."""

def put(table: RecordTable[Record], key: bytes, record: Record | None) -> None:
    """`table.put(key, record)`."""
