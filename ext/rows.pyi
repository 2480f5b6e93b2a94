"""Leaf hashes of a table's numbered rows, and their RFC 6962 tree, natively.

All levels are kept, so a commit costs the nodes above what changed and no others; `ext.ledger`
does the same for accounts. A row's leaf data is the table's prefix, the row's key and its record,
joined; a number without a row has the hash of nothing.
"""

from typing import Final

ROWS_MAX: Final = 1 << 24

class RowTree:
    """One table's rows by number. Not thread-safe."""

    def __init__(self, prefix: bytes) -> None: ...
    def __len__(self) -> int:
        """Number of rows, those without a record included."""
    def set(self, row: int, key: bytes, record: bytes) -> bool:
        """Set a row, or add the next one; whether its leaf is another than before. Raises
        IndexError for a number beyond the next, or above ROWS_MAX."""
    def clear(self, row: int) -> None:
        """The number has no row from here on. Raises IndexError as `set` does."""
    def truncate(self, rows: int) -> None:
        """Forget all but the first rows. Raises ValueError for more than there are."""
    def commit(self) -> None:
        """Make all changes part of the root."""
    @property
    def root(self) -> bytes:
        """Root as of the last commit; of no rows, the hash of nothing."""
