"""SHA-256 (FIPS 180-4) and the chain's one domain-separated hash.

Two paths, the processor's SHA instructions and portable C, chosen when a module is loaded; both
give hashlib's bytes. ASSAY_SHA256=portable in the environment chooses the second for all of
``ext``, to compare them. Large inputs are hashed without the interpreter lock.
"""

from typing import Final, TypeAlias

Buffer: TypeAlias = bytes | bytearray | memoryview

DIGEST_BYTES: Final = 32
TAG_BYTES_MAX: Final = 255
FIELD_BYTES_MAX: Final = 0xFFFFFFFF

def sha256(data: Buffer) -> bytes:
    """32-byte SHA-256 digest of a contiguous buffer, by the fastest path."""

def sha256_portable(data: Buffer) -> bytes:
    """The same digest by portable C."""

def sha256_native(data: Buffer) -> bytes:
    """The same digest by the processor's instructions.

    Raises NotImplementedError where ``implementations()`` does not name ``native``.
    """

def implementations() -> tuple[str, ...]:
    """Names of the paths that run on this processor, fastest first."""

def tagged_hash(tag: bytes, *fields: Buffer) -> bytes:
    """SHA-256( u8 len(tag) | tag | for each field: u32-LE length | field ), 32 bytes.

    Length prefixes make the encoding injective: no two (tag, fields) share an input. Raises
    ValueError when the tag is longer than TAG_BYTES_MAX or a field longer than FIELD_BYTES_MAX.
    """
