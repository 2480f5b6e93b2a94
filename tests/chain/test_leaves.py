"""Packed leaves are the list they were made of."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chain.leaves import PackedLeaves
from ext import merkle


@given(st.lists(st.binary(max_size=40), max_size=20))
def test_packed_leaves_give_back_the_list_and_its_root(leaves: list[bytes]) -> None:
    packed = PackedLeaves.from_list(leaves)
    assert list(packed) == leaves
    assert len(packed) == len(leaves)
    assert packed[1:] == tuple(leaves[1:])
    for kind in (b"\0", b"T"):
        assert packed.starting_with(kind) == sum(leaf[:1] == kind for leaf in leaves)
    assert packed.root() == merkle.root([merkle.leaf_hash(leaf) for leaf in leaves])
    assert PackedLeaves(packed.data, packed.ends) == packed


def test_a_leaf_counted_from_the_end_and_beyond_it() -> None:
    packed = PackedLeaves.from_list([b"one", b"two"])
    assert packed[-1] == b"two"
    for index in (2, -3):
        with pytest.raises(IndexError, match="is not among 2"):
            packed[index]


@pytest.mark.parametrize(
    ("data", "ends", "message"),
    [
        (b"ab", b"\x02\0\0", "multiple of 4"),
        (b"ab", b"\x01\0\0\0", "ends at 1, the data at 2"),
        (b"ab", b"", "ends at 0, the data at 2"),
        (b"", b"\x01\0\0\0", "ends at 1, the data at 0"),
    ],
)
def test_ends_that_do_not_fit_the_data_are_refused(data: bytes, ends: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PackedLeaves(data, ends)


def test_ends_that_fall_are_refused_when_the_leaf_is_read() -> None:
    packed = PackedLeaves(b"abc", b"\x03\0\0\0\x01\0\0\0\x03\0\0\0")
    with pytest.raises(ValueError, match="starts at 3 and ends at 1"):
        packed[1]
