"""SHA-256 of both paths against hashlib, trees against RFC 6962's recursive definition."""

import hashlib
import struct
from collections.abc import Iterator
from random import Random

from ext import hashing, merkle
from tests.ext.test_merkle import proof_by_definition, root_by_definition
from tests.fuzz.harness import Target

BYTES_MAX = 2000
LONG_BYTES_MAX = 1 << 16
LONG_ONE_IN = 50
LEAVES_MAX = 70


def inputs(source: Random) -> Iterator[bytes]:
    """Mostly short, with lengths round the block size, some long."""
    while True:
        length = source.choice((55, 56, 63, 64, 65, 119, 120, 128, source.randrange(BYTES_MAX)))
        if source.randrange(LONG_ONE_IN) == 0:
            length = source.randrange(LONG_BYTES_MAX)
        yield source.randbytes(length)


def check(data: bytes) -> None:
    """The bytes as a message, as fields of a tagged hash, and cut into leaves."""
    digest = hashlib.sha256(data).digest()
    assert hashing.sha256(data) == digest
    assert hashing.sha256_portable(data) == digest
    if "native" in hashing.implementations():
        assert hashing.sha256_native(data) == digest
    source = Random(digest)
    pieces = _cut(source, data)
    _check_tagged(data[: source.randrange(hashing.TAG_BYTES_MAX + 1)], pieces)
    _check_tree(pieces, source)


def _cut(source: Random, data: bytes) -> list[bytes]:
    ends = sorted(source.randrange(len(data) + 1) for _ in range(source.randrange(LEAVES_MAX)))
    starts = [0, *ends]
    return [data[start:end] for start, end in zip(starts, ends, strict=False)]


def _check_tagged(tag: bytes, fields: list[bytes]) -> None:
    encoded = bytes([len(tag)]) + tag
    encoded += b"".join(struct.pack("<I", len(field)) + field for field in fields)
    assert hashing.tagged_hash(tag, *fields) == hashlib.sha256(encoded).digest()


def _check_tree(entries: list[bytes], source: Random) -> None:
    leaves = [merkle.leaf_hash(entry) for entry in entries]
    assert leaves == [hashlib.sha256(b"\x00" + entry).digest() for entry in entries]
    root = root_by_definition(leaves)
    assert merkle.root(leaves) == root
    if not leaves:
        return
    index = source.randrange(len(leaves))
    path = proof_by_definition(leaves, index)
    assert merkle.proof(leaves, index) == path
    assert merkle.verify_proof(leaves[index], index, len(leaves), path, root)
    damaged = bytearray(root)
    damaged[source.randrange(32)] ^= 1 << source.randrange(8)
    assert not merkle.verify_proof(leaves[index], index, len(leaves), path, bytes(damaged))


TARGET = Target("hashing", inputs, check)
