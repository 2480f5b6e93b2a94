"""SHA-256 by every path, and the chain's domain-separated hash."""

import hashlib
import random
import struct
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ext import hashing

PATHS: dict[str, Callable[[bytes | memoryview], bytes]] = {
    "chosen": hashing.sha256,
    "portable": hashing.sha256_portable,
    "native": hashing.sha256_native,
}
RUNNABLE = ["chosen", *hashing.implementations()]


def tagged_hash_by_definition(tag: bytes, *fields: bytes) -> bytes:
    encoded = bytes([len(tag)]) + tag
    for field in fields:
        encoded += struct.pack("<I", len(field)) + field
    return hashlib.sha256(encoded).digest()


@pytest.mark.parametrize("path", RUNNABLE)
def test_every_length_to_4096_equals_hashlib(path: str) -> None:
    data = random.Random(1).randbytes(4096)
    for length in range(len(data) + 1):
        assert PATHS[path](data[:length]) == hashlib.sha256(data[:length]).digest(), length


@pytest.mark.parametrize("path", RUNNABLE)
def test_large_inputs_equal_hashlib_at_any_alignment(path: str) -> None:
    source = random.Random(2)
    data = source.randbytes(1 << 20)
    for _ in range(40):
        start, end = sorted(source.randrange(len(data) + 1) for _ in range(2))
        view = memoryview(data)[start:end]
        assert PATHS[path](view) == hashlib.sha256(view).digest()


@pytest.mark.parametrize("path", RUNNABLE)
def test_the_fips_180_examples_have_their_published_digests(path: str) -> None:
    two_blocks = b"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"
    assert PATHS[path](b"abc").hex() == (
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )
    assert PATHS[path](two_blocks).hex() == (
        "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"
    )
    assert PATHS[path](b"a" * 1_000_000).hex() == (
        "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"
    )


def test_a_missing_instruction_set_is_an_error_and_never_a_wrong_digest() -> None:
    if "native" in hashing.implementations():
        assert hashing.sha256_native(b"") == hashlib.sha256(b"").digest()
    else:
        with pytest.raises(NotImplementedError, match="no SHA-256 instructions"):
            hashing.sha256_native(b"")


@given(st.binary(max_size=255), st.lists(st.binary(max_size=200), max_size=6))
def test_tagged_hash_is_its_definition(tag: bytes, fields: list[bytes]) -> None:
    assert hashing.tagged_hash(tag, *fields) == tagged_hash_by_definition(tag, *fields)


def test_tagged_hash_takes_any_contiguous_buffer_of_any_size() -> None:
    large = random.Random(3).randbytes(300_000)
    expected = tagged_hash_by_definition(b"t", large, large[1:], b"")
    assert hashing.tagged_hash(b"t", bytearray(large), memoryview(large)[1:], b"") == expected


def test_moving_a_byte_between_fields_changes_the_hash() -> None:
    digests = {
        hashing.tagged_hash(b"tag", b"ab", b"c"),
        hashing.tagged_hash(b"tag", b"a", b"bc"),
        hashing.tagged_hash(b"tag", b"abc"),
        hashing.tagged_hash(b"tag", b"abc", b""),
        hashing.tagged_hash(b"taga", b"b", b"c"),
    }
    assert len(digests) == 5


def test_a_tag_longer_than_its_prefix_can_say_is_refused() -> None:
    with pytest.raises(ValueError, match="tag has 256 bytes; at most 255 are allowed"):
        hashing.tagged_hash(bytes(256))


@pytest.mark.parametrize("field", ["text", 3, None, memoryview(bytes(8))[::2]])
def test_a_field_that_is_no_contiguous_buffer_is_refused(field: object) -> None:
    with pytest.raises((TypeError, BufferError)):
        hashing.tagged_hash(b"tag", field)  # type: ignore[arg-type]
