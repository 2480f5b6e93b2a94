"""The two tables that every transaction touches: accounts, and the ids that may not come twice.

Both live outside of Python: open addressing over keys, hashed under a seed from the operating
system, because strangers choose the keys. The seed decides where a key is found and nothing else:
numbers, roots and packed rows are the same in every process. Each table has a lock of its own, so
two threads may call it; what they see of each other's writes is for the caller to order.
"""

from typing import Final

KEY_BYTES: Final = 32
ACCOUNT_ROW_BYTES: Final = 68
"""A packed row: u32-LE number, key, balance, stake, unbonding, unbonding_until_ms (u64-LE each)."""
ROWS_MAX: Final = 1 << 31

class TableFullError(Exception):
    """A row more than the table may hold."""

class AccountTable:
    """Account rows in order of first appearance, their undo log, and their Merkle tree.

    A row that was made stays: its number is its place in the tree. An account without balance,
    stake and unbonding is a row of zeros, whatever time was given with it; putting such an account
    under a new key makes no row. Leaf data of a row: table number, key, the four u64-LE.
    """

    def __init__(self, table_number: int, rows_max: int = ROWS_MAX) -> None:
        """Raises ValueError for a table number above 255 or rows_max outside 1..ROWS_MAX."""
    def __len__(self) -> int:
        """Number of rows, those not yet committed included."""
    def get(self, key: bytes) -> tuple[int, int, int, int] | None:
        """(balance, stake, unbonding, unbonding_until_ms), or None without a row."""
    def put(
        self, key: bytes, balance: int, stake: int, unbonding: int, unbonding_until_ms: int
    ) -> None:
        """Set an account. Raises ValueError (key), OverflowError (u64), TableFullError."""
    def number(self, key: bytes) -> int | None:
        """The key's row number, or None without a row."""
    def row(self, number: int) -> tuple[bytes, int, int, int, int]:
        """(key, balance, stake, unbonding, unbonding_until_ms). Raises IndexError."""
    def unbonding_keys(self) -> list[bytes]:
        """Keys whose unbonding is not 0, in order of number. Walks all rows."""
    def savepoint(self) -> int:
        """A point to roll back to, good until the next commit."""
    def rollback(self, savepoint: int) -> None:
        """Undo every change since the savepoint; rows made since are gone.

        Raises ValueError for a savepoint that lies ahead.
        """
    def commit(self) -> bytes:
        """Make all changes part of the tree; they can no longer be undone.

        Returns the rows that are new or differ from the last commit, packed, in order of number.
        """
    @property
    def root(self) -> bytes:
        """Root of the RFC 6962 tree over the rows, as of the last commit."""
    def proof(self, number: int) -> list[bytes]:
        """Audit path of a committed row, lowest sibling first. Raises IndexError."""
    def pack(self, start: int, count: int) -> bytes:
        """Up to `count` packed rows from number `start` on; empty behind the last row."""
    def load(self, packed: bytes) -> None:
        """Append packed rows, which must continue the numbers, as committed: root is up to date.

        All or nothing. Raises ValueError for a bad length, a gap, a known key, an account without
        money that is not zeros, or when uncommitted changes stand; TableFullError.
        """
    def apply(self, packed: bytes) -> None:
        """Set and append the changed rows of one commit, as committed, for replay.

        As `load`, but numbers only need to rise, and known ones must carry their own key.
        """

class IdWindow:
    """Ids of the transactions included in the last blocks, and where their receipts stand."""

    def __init__(self, blocks: int) -> None:
        """`blocks` is how far back it is kept: no height more than that above the oldest may be
        added. Raises ValueError outside 1..65536."""
    @property
    def blocks(self) -> int: ...
    def __len__(self) -> int:
        """Number of ids."""
    def __contains__(self, id: bytes) -> bool: ...
    def add(self, id: bytes, height: int, leaf: int) -> None:
        """Remember an id and its receipt's place among the receipt leaves of its block.

        Raises ValueError for an id of another size or one that is there already, a height below
        the newest, or one too far above the oldest.
        """
    def locate(self, id: bytes) -> tuple[int, int] | None:
        """(height, leaf index), or None for an id that is not in the window."""
    def heights(self) -> list[int]:
        """Heights that hold at least one id, rising."""
    def ids_at(self, height: int) -> bytes:
        """The ids of one height, joined, in order of inclusion; empty if there are none."""
    def leaves_at(self, height: int) -> bytes:
        """The leaf indices of the same ids, u32-LE each."""
    def drop_through(self, height: int) -> None:
        """Forget every height up to and including this one; a negative height forgets nothing."""
    def load(self, height: int, ids: bytes, leaves: bytes | None = None) -> None:
        """Add joined ids with their joined u32-LE leaf indices (None: 0, 1, 2, ...).

        All or nothing. Raises ValueError as `add`, or for lengths that do not match.
        """
