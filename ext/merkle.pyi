"""Merkle trees in the shape of RFC 6962, section 2.1, over SHA-256.

leaf = SHA-256(0x00 | data), node = SHA-256(0x01 | left | right), empty root = SHA-256(""). Leaves
and nodes differ in their first byte, so neither can pass for the other. Hashing runs without the
interpreter lock.
"""

from typing import Final

HASH_BYTES: Final = 32
PATH_STEPS_MAX: Final = 64

def leaf_hash(data: bytes | bytearray | memoryview) -> bytes:
    """32-byte leaf hash of one entry."""

def root(leaf_hashes: list[bytes]) -> bytes:
    """32-byte root over leaf hashes in order. Raises ValueError for a leaf that is not 32 bytes."""

def proof(leaf_hashes: list[bytes], index: int) -> list[bytes]:
    """Audit path of leaf ``index``: sibling hashes, lowest first.

    Raises IndexError when there is no such leaf, ValueError for a leaf that is not 32 bytes.
    """

def packed_root(data: bytes, ends: bytes) -> bytes:
    """Root over leaf data that stands joined, with the end offset of each leaf as u32-LE.

    Raises ValueError when the ends do not rise, or the last is not the data's length.
    """

def packed_proof(data: bytes, ends: bytes, index: int) -> list[bytes]:
    """Audit path of leaf ``index`` of the same tree. Raises as ``packed_root``, and IndexError."""

def verify_proof(leaf_hash: bytes, index: int, size: int, path: list[bytes], root: bytes) -> bool:
    """Whether ``path`` leads from leaf ``index`` of a tree of ``size`` leaves to ``root``.

    Total: a path, hash, index or size of the wrong shape is False, not an error. The size is part
    of what is proven only if the caller takes it from a signed place. Algorithm: RFC 9162, 2.1.3.2.
    """
