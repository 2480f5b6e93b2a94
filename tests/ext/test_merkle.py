"""Merkle trees against RFC 6962's recursive definition and known roots."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ext import merkle

# The eight entries and roots that Certificate Transparency implementations test with.
KNOWN_ENTRIES = [
    bytes.fromhex(entry)
    for entry in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
KNOWN_ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]

hashes = st.binary(min_size=32, max_size=32)
trees = st.lists(hashes, min_size=1, max_size=70)


def root_by_definition(leaves: list[bytes]) -> bytes:
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    split = 1 << ((len(leaves) - 1).bit_length() - 1)
    left, right = root_by_definition(leaves[:split]), root_by_definition(leaves[split:])
    return hashlib.sha256(b"\x01" + left + right).digest()


def proof_by_definition(leaves: list[bytes], index: int) -> list[bytes]:
    if len(leaves) == 1:
        return []
    split = 1 << ((len(leaves) - 1).bit_length() - 1)
    if index < split:
        return [*proof_by_definition(leaves[:split], index), root_by_definition(leaves[split:])]
    rest = proof_by_definition(leaves[split:], index - split)
    return [*rest, root_by_definition(leaves[:split])]


@pytest.mark.parametrize("size", range(9))
def test_known_entries_have_their_published_roots(size: int) -> None:
    leaves = [merkle.leaf_hash(entry) for entry in KNOWN_ENTRIES[:size]]
    assert merkle.root(leaves).hex() == KNOWN_ROOTS[size]


@given(st.binary(max_size=300))
def test_a_leaf_hash_is_prefixed_with_zero(data: bytes) -> None:
    assert merkle.leaf_hash(data) == hashlib.sha256(b"\x00" + data).digest()


@given(trees)
def test_roots_and_proofs_are_those_of_the_recursive_definition(leaves: list[bytes]) -> None:
    root = merkle.root(leaves)
    assert root == root_by_definition(leaves)
    for index, leaf in enumerate(leaves):
        path = merkle.proof(leaves, index)
        assert path == proof_by_definition(leaves, index)
        assert merkle.verify_proof(leaf, index, len(leaves), path, root)


@given(trees, st.data())
def test_a_proof_with_one_flipped_bit_is_refused(leaves: list[bytes], data: st.DataObject) -> None:
    index = data.draw(st.integers(0, len(leaves) - 1))
    path = merkle.proof(leaves, index)
    parts = [leaves[index], merkle.root(leaves), *path]
    position = data.draw(st.integers(0, len(parts) * 256 - 1))
    damaged = bytearray(parts[position // 256])
    damaged[position % 256 // 8] ^= 1 << position % 8
    parts[position // 256] = bytes(damaged)
    assert not merkle.verify_proof(parts[0], index, len(leaves), parts[2:], parts[1])


@given(st.lists(hashes, min_size=2, max_size=40, unique=True), st.data())
def test_a_proof_does_not_hold_at_another_position(
    leaves: list[bytes], data: st.DataObject
) -> None:
    index, other = data.draw(st.lists(st.integers(0, len(leaves) - 1), min_size=2, max_size=2))
    path, root = merkle.proof(leaves, index), merkle.root(leaves)
    holds = merkle.verify_proof(leaves[index], other, len(leaves), path, root)
    assert holds == (other == index)


@given(trees, st.data())
def test_a_shorter_or_longer_path_is_refused(leaves: list[bytes], data: st.DataObject) -> None:
    index = data.draw(st.integers(0, len(leaves) - 1))
    path, root = merkle.proof(leaves, index), merkle.root(leaves)
    extra = data.draw(hashes)
    assert not merkle.verify_proof(leaves[index], index, len(leaves), [*path, extra], root)
    assert not merkle.verify_proof(leaves[index], index, len(leaves), [extra, *path], root)
    if path:
        assert not merkle.verify_proof(leaves[index], index, len(leaves), path[:-1], root)
        assert not merkle.verify_proof(leaves[index], index, len(leaves), path[1:], root)


def test_an_inner_node_cannot_pass_for_a_leaf() -> None:
    leaves = [merkle.leaf_hash(bytes([number])) for number in range(4)]
    inner = hashlib.sha256(b"\x01" + leaves[0] + leaves[1]).digest()
    sibling = hashlib.sha256(b"\x01" + leaves[2] + leaves[3]).digest()
    root = merkle.root(leaves)
    # As a tree of two leaves the hashes do add up: the size must come from a signed place.
    assert merkle.verify_proof(inner, 0, 2, [sibling], root)
    assert not merkle.verify_proof(inner, 0, 4, [sibling], root)
    assert merkle.leaf_hash(leaves[0] + leaves[1]) != inner


@pytest.mark.parametrize(
    ("index", "size"),
    [(0, 0), (1, 1), (-1, 1), (0, -1), (1 << 63, 1 << 63), (0, 1 << 64), (1 << 70, 1 << 71)],
)
def test_an_index_outside_the_tree_proves_nothing(index: int, size: int) -> None:
    leaf = merkle.leaf_hash(b"entry")
    assert not merkle.verify_proof(leaf, index, size, [], leaf)


def test_the_path_of_the_largest_tree_is_walked_to_its_end() -> None:
    leaf = merkle.leaf_hash(b"entry")
    path = [bytes([step]) * 32 for step in range(63)]
    expected = leaf
    for sibling in path:
        expected = hashlib.sha256(b"\x01" + expected + sibling).digest()
    assert merkle.verify_proof(leaf, 0, 1 << 63, path, expected)
    assert not merkle.verify_proof(leaf, 0, (1 << 63) - 1, path[:-1], expected)


@pytest.mark.parametrize("wrong", [b"", bytes(31), bytes(33)])
def test_hashes_of_another_size_prove_nothing(wrong: bytes) -> None:
    leaves = [merkle.leaf_hash(b"a"), merkle.leaf_hash(b"b")]
    root, path = merkle.root(leaves), merkle.proof(leaves, 0)
    assert not merkle.verify_proof(wrong, 0, 2, path, root)
    assert not merkle.verify_proof(leaves[0], 0, 2, [wrong], root)
    assert not merkle.verify_proof(leaves[0], 0, 2, path, wrong)
    with pytest.raises(ValueError, match="leaf hash 1 is not 32 bytes"):
        merkle.root([leaves[0], wrong])


def test_a_proof_of_a_leaf_that_is_not_there_is_an_error() -> None:
    with pytest.raises(IndexError, match="leaf 2 is not in a tree of 2 leaves"):
        merkle.proof([bytes(32)] * 2, 2)
    with pytest.raises(IndexError, match="leaf 0 is not in a tree of 0 leaves"):
        merkle.proof([], 0)
