"""The tree over numbered rows against the root over all leaves."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ext import merkle
from ext.rows import ROWS_MAX, RowTree

PREFIX = b"\4"
EMPTY = merkle.leaf_hash(b"")
steps = st.lists(
    st.one_of(
        st.tuples(st.just("set"), st.integers(0, 40), st.binary(max_size=70)),
        st.tuples(st.just("clear"), st.integers(0, 40), st.just(b"")),
        st.tuples(st.just("truncate"), st.integers(0, 40), st.just(b"")),
    ),
    max_size=40,
)


def apply(tree: RowTree, leaves: list[bytes], what: str, row: int, record: bytes) -> None:
    """One step on the tree, and on the list of its leaves."""
    size = len(leaves)
    if what == "truncate":
        tree.truncate(min(row, size))
        del leaves[min(row, size) :]
        return
    place = min(row, size)
    leaves += [EMPTY] * (place == size)
    if what == "clear":
        tree.clear(place)
        leaves[place] = EMPTY
        return
    leaf = merkle.leaf_hash(PREFIX + b"key" + record)
    changes = place == size or leaves[place] != leaf
    assert tree.set(place, b"key", record) is changes
    leaves[place] = leaf


@given(st.lists(steps, max_size=6))
def test_every_commit_has_the_root_over_all_rows(
    commits: list[list[tuple[str, int, bytes]]],
) -> None:
    tree, leaves = RowTree(PREFIX), list[bytes]()
    for changes in commits:
        for what, row, record in changes:
            apply(tree, leaves, what, row, record)
        before = tree.root
        assert len(tree) == len(leaves)
        tree.commit()
        assert tree.root == merkle.root(leaves), (before, changes)


def test_a_tree_grows_over_its_first_room() -> None:
    tree, leaves = RowTree(PREFIX), list[bytes]()
    for size in (1, 63, 64, 65, 300):
        for row in range(len(leaves), size):
            apply(tree, leaves, "set", row, row.to_bytes(2, "little"))
        tree.commit()
        assert tree.root == merkle.root(leaves)


def test_rows_follow_each_other() -> None:
    tree = RowTree(PREFIX)
    for row in (1, -1, ROWS_MAX):
        with pytest.raises(IndexError):
            tree.set(row, b"", b"")
        with pytest.raises(IndexError):
            tree.clear(row)
    with pytest.raises(ValueError, match="1 rows of 0 cannot be kept"):
        tree.truncate(1)
    assert tree.root == merkle.root([])
