"""Batches of signatures of every kind: a batch says of each what it says of it alone.

An input is an engine's number and rows of: whether libsodium must agree, key, signature, message
length (one byte), message. libsodium's rule differs from ours only for keys and commitments that
no honest signer makes, so it must agree on honest signatures and on those with one flipped bit.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from random import Random

from nacl.bindings import crypto_sign_open
from nacl.exceptions import BadSignatureError
from nacl.signing import SigningKey

from ext import ed25519
from tests.ext import zip215_reference as reference
from tests.ext.test_ed25519 import SMALL_ORDER_ENCODINGS
from tests.fuzz.harness import Target

FULL_CASES = 100_000
SIGNERS = 24
MESSAGE_BYTES_MAX = 255
POOL_ROWS = 300
TORSION_ROWS = 12
# Most batches are just large enough for the common equation, which starts at seven.
SIZES = (*range(1, 7), *range(7, 14), *range(7, 14), 7, 8, 9, 20, 40)
LARGE_SIZES = (100, 300)
LARGE_ONE_IN = 500
VERDICTS_KEPT = 1 << 14
# So few places that keys push each other out all the time.
KEPT_KEYS = 4

_VERIFIERS = [ed25519.Verifier(KEPT_KEYS, engine) for engine in ed25519.engines()]


@dataclass(frozen=True, slots=True)
class Row:
    """One signature."""

    libsodium_agrees: bool
    public_key: bytes
    signature: bytes
    message: bytes

    def encode(self) -> bytes:
        """As it stands in an input."""
        head = bytes([self.libsodium_agrees]) + self.public_key + self.signature
        return head + bytes([len(self.message)]) + self.message


def _honest(source: Random, keys: list[SigningKey]) -> Row:
    key = source.choice(keys)
    message = source.randbytes(source.choice((0, 1, 32, 32, 47, 48, 64, source.randrange(256))))
    return Row(True, bytes(key.verify_key), key.sign(message).signature, message)


def _flipped(source: Random, keys: list[SigningKey]) -> Row:
    row = _honest(source, keys)
    parts = [bytearray(row.public_key), bytearray(row.signature), bytearray(row.message)]
    part = source.choice([part for part in parts if part])
    part[source.randrange(len(part))] ^= 1 << source.randrange(8)
    return Row(True, bytes(parts[0]), bytes(parts[1]), bytes(parts[2]))


def _shifted(source: Random, keys: list[SigningKey]) -> Row:
    """S changed by a small number, or by multiples of the order."""
    row = _honest(source, keys)
    response = int.from_bytes(row.signature[32:], "little")
    if source.randrange(2):
        response = (response + source.choice((1, -1, 8, 1 << 128))) % reference.ORDER
    else:
        response += source.randrange(1, 15) * reference.ORDER
    signature = row.signature[:32] + response.to_bytes(32, "little")
    return Row(False, row.public_key, signature, row.message)


def _small_order(source: Random, keys: list[SigningKey]) -> Row:
    row = _honest(source, keys)
    key = source.choice((row.public_key, source.choice(SMALL_ORDER_ENCODINGS)))
    commitment = source.choice((row.signature[:32], source.choice(SMALL_ORDER_ENCODINGS)))
    response = source.choice((bytes(32), row.signature[32:]))
    return Row(False, key, commitment + response, row.message)


def _unreduced(source: Random, keys: list[SigningKey]) -> Row:
    """A y coordinate of p or a little more, which may or may not be on the curve."""
    row = _honest(source, keys)
    y = reference.FIELD_PRIME + source.randrange(19) + (source.randrange(2) << 255)
    encoding = y.to_bytes(32, "little")
    if source.randrange(2):
        return Row(False, encoding, row.signature, row.message)
    return Row(False, row.public_key, encoding + row.signature[32:], row.message)


def _random(source: Random, keys: list[SigningKey]) -> Row:
    del keys
    signature = source.randbytes(63) + bytes([source.randrange(16)])
    return Row(False, source.randbytes(32), signature, source.randbytes(8))


KINDS: tuple[Callable[[Random, list[SigningKey]], Row], ...] = (
    *(_honest, _honest, _honest, _honest, _honest),
    *(_flipped, _flipped, _shifted, _small_order, _unreduced, _random),
)


def _with_torsion(source: Random) -> Row:
    """Honest but for small-order parts of key and commitment; slow to make, so few are made."""
    offsets = [reference.decode_known(encoding) for encoding in SMALL_ORDER_ENCODINGS[:8]]
    secret, nonce = (source.randrange(1, reference.ORDER) for _ in range(2))
    message = source.randbytes(32)
    public_key, signature = reference.sign_with(
        secret, nonce, message, source.choice(offsets), source.choice(offsets)
    )
    return Row(False, public_key, signature, message)


def inputs(source: Random) -> Iterator[bytes]:
    """Batches from a pool of rows that changes all the time; half of them all good."""
    keys = [SigningKey(source.randbytes(32)) for _ in range(SIGNERS)]
    pool = [source.choice(KINDS)(source, keys) for _ in range(POOL_ROWS)]
    torsion = [_with_torsion(source) for _ in range(TORSION_ROWS)]
    while True:
        place = source.randrange(POOL_ROWS)
        pool[place] = source.choice(KINDS)(source, keys)
        size = source.choice(LARGE_SIZES if source.randrange(LARGE_ONE_IN) == 0 else SIZES)
        rows = source.choices(pool, k=size)
        if source.randrange(2):
            rows = [row if _alone(row.encode()) else source.choice(torsion) for row in rows]
        elif source.randrange(4) == 0:
            rows[source.randrange(size)] = source.choice(torsion)
        yield bytes([source.randrange(len(_VERIFIERS))]) + b"".join(map(Row.encode, rows))


def _decode(data: bytes) -> list[Row]:
    rows, offset = [], 0
    while len(data) - offset >= 98:
        end = offset + 98 + data[offset + 97]
        agrees, row = data[offset] == 1, data[offset + 1 : end]
        rows.append(Row(agrees, row[:32], row[32:96], row[97:]))
        offset = end
    return rows


@lru_cache(maxsize=VERDICTS_KEPT)
def _alone(encoded: bytes) -> bool:
    """The verdict of one row, after libsodium was asked where it must agree."""
    (row,) = _decode(encoded)
    accepted = ed25519.verify(row.public_key, row.message, row.signature)
    if row.libsodium_agrees:
        assert accepted == _libsodium(row), f"libsodium does not say {accepted} of {encoded.hex()}"
    return accepted


def _libsodium(row: Row) -> bool:
    try:
        crypto_sign_open(row.signature + row.message, row.public_key)
    except BadSignatureError:
        return False
    return True


def check(data: bytes) -> None:
    """One batch, by the engine it names."""
    rows = _decode(data[1:])
    verifier = _VERIFIERS[data[0] % len(_VERIFIERS)] if data else _VERIFIERS[0]
    together = verifier.verify_each(
        [row.public_key for row in rows],
        [row.message for row in rows],
        [row.signature for row in rows],
    ).tolist()
    alone = [_alone(row.encode()) for row in rows]
    assert together == alone, f"together {together}, alone {alone}"


TARGET = Target("signatures", inputs, check, FULL_CASES)
