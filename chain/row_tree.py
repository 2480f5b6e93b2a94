"""The Merkle tree over the numbered rows of one table, of which only what changed is hashed again.

Its shape is RFC 6962's over the rows in order of number. All levels are kept, so a change costs
the nodes above it and no others. `ext.ledger` does the same for accounts.
"""

from collections.abc import Mapping

from ext import merkle

EMPTY_LEAF = merkle.leaf_hash(b"")
"""Stands at the place of a row that is gone; no row hashes to it, for a row is never empty."""


class RowTree:
    """Leaf hashes by row number, and the root over them."""

    def __init__(self) -> None:
        self._levels: list[list[bytes]] = [[]]
        self._root = merkle.root([])

    def __len__(self) -> int:
        return len(self._levels[0])

    @property
    def root(self) -> bytes:
        """RFC 6962 root over all rows; that of the empty tree if there are none."""
        return self._root

    def leaf(self, row: int) -> bytes | None:
        """The leaf hash of a row, or None beyond the last."""
        return self._levels[0][row] if row < len(self) else None

    def update(self, leaves: Mapping[int, bytes], size: int) -> None:
        """Set leaf hashes, and the number of rows; every row that is new must be among them."""
        rows = self._levels[0]
        resized = len(rows) != size
        del rows[size:]
        rows += [EMPTY_LEAF] * (size - len(rows))
        for row, leaf in leaves.items():
            rows[row] = leaf
        dirty = set(leaves)
        if resized and size:
            dirty.add(size - 1)  # whose way to the root is another one now
        self._rehash(dirty)

    def _rehash(self, dirty: set[int]) -> None:
        height = 0
        while len(self._levels[height]) > 1:
            below = self._levels[height]
            height += 1
            if height == len(self._levels):
                self._levels.append([])
            above, count = self._levels[height], len(below)
            parents = (count + 1) // 2
            del above[parents:]
            above += [EMPTY_LEAF] * (parents - len(above))
            dirty = {node >> 1 for node in dirty}
            for node in dirty:
                left = 2 * node
                pair = below[left : left + 2]
                above[node] = merkle.root(pair)  # of one hash: itself
        del self._levels[height + 1 :]
        top = self._levels[height]
        self._root = top[0] if top else merkle.root([])
