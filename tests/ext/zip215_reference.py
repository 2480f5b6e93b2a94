"""ZIP-215 in plain integers, slow and independent of the C code: the oracle of the tests."""

import hashlib

FIELD_PRIME = 2**255 - 19
ORDER = 2**252 + 27742317777372353535851937790883648493
CURVE_D = -121665 * pow(121666, -1, FIELD_PRIME) % FIELD_PRIME
ROOT_OF_MINUS_ONE = pow(2, (FIELD_PRIME - 1) // 4, FIELD_PRIME)

Point = tuple[int, int, int]
"""Projective (X, Y, Z)."""

IDENTITY: Point = (0, 1, 1)


def decode(encoding: bytes) -> Point | None:
    """The point of an encoding, canonical or not; None when there is none."""
    number = int.from_bytes(encoding, "little")
    y, sign = (number & (2**255 - 1)) % FIELD_PRIME, number >> 255
    square = (y * y - 1) * pow(CURVE_D * y * y + 1, -1, FIELD_PRIME) % FIELD_PRIME
    x = pow(square, (FIELD_PRIME + 3) // 8, FIELD_PRIME)
    if (x * x - square) % FIELD_PRIME:
        x = x * ROOT_OF_MINUS_ONE % FIELD_PRIME
    if (x * x - square) % FIELD_PRIME:
        return None
    if x & 1 != sign:
        x = -x % FIELD_PRIME
    return (x, y, 1)


def encode(point: Point) -> bytes:
    """The canonical encoding."""
    inverse = pow(point[2], -1, FIELD_PRIME)
    x, y = point[0] * inverse % FIELD_PRIME, point[1] * inverse % FIELD_PRIME
    return (y | (x & 1) << 255).to_bytes(32, "little")


def add(first: Point, second: Point) -> Point:
    """The complete projective addition law of the curve."""
    x1, y1, z1 = first
    x2, y2, z2 = second
    z = z1 * z2
    xx, yy = x1 * x2, y1 * y2
    shear = CURVE_D * xx * yy
    low, high = z * z - shear, z * z + shear
    cross = (x1 + y1) * (x2 + y2) - xx - yy
    return (
        z * low * cross % FIELD_PRIME,
        z * high * (yy + xx) % FIELD_PRIME,
        low * high % FIELD_PRIME,
    )


def negate(point: Point) -> Point:
    """The opposite point."""
    return (-point[0] % FIELD_PRIME, point[1], point[2])


def multiply(scalar: int, point: Point) -> Point:
    """``scalar`` times the point."""
    result = IDENTITY
    for bit in bin(scalar)[2:]:
        result = add(result, result)
        if bit == "1":
            result = add(result, point)
    return result


def is_identity(point: Point) -> bool:
    """Whether the point is the neutral one."""
    return point[0] % FIELD_PRIME == 0 and (point[1] - point[2]) % FIELD_PRIME == 0


def decode_known(encoding: bytes) -> Point:
    """``decode`` of what is known to be a point."""
    point = decode(encoding)
    if point is None:
        raise ValueError(f"not a point: {encoding.hex()}")
    return point


BASE = decode_known((4 * pow(5, -1, FIELD_PRIME) % FIELD_PRIME).to_bytes(32, "little"))


def challenge(commitment: bytes, public_key: bytes, message: bytes) -> int:
    """SHA-512(R | A | message) modulo the group order."""
    digest = hashlib.sha512(commitment + public_key + message).digest()
    return int.from_bytes(digest, "little") % ORDER


def verify(public_key: bytes, message: bytes, signature: bytes) -> bool:
    """The cofactored rule, word for word."""
    key, commitment = decode(public_key), decode(signature[:32])
    response = int.from_bytes(signature[32:], "little")
    if key is None or commitment is None or response >= ORDER:
        return False
    product = multiply(challenge(signature[:32], public_key, message), key)
    difference = add(multiply(response, BASE), negate(add(commitment, product)))
    return is_identity(multiply(8, difference))


def sign_with(
    secret: int, nonce: int, message: bytes, key_offset: Point, nonce_offset: Point
) -> tuple[bytes, bytes]:
    """Public key and signature with a small-order point added to A and to R."""
    public_key = encode(add(multiply(secret, BASE), key_offset))
    commitment = encode(add(multiply(nonce, BASE), nonce_offset))
    response = (nonce + challenge(commitment, public_key, message) * secret) % ORDER
    return public_key, commitment + response.to_bytes(32, "little")
