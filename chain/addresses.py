"""How accounts and ids are written.

An account is bech32m (BIP-350) with the prefix `assay`, so `assay1…`. The checksum catches every
error of up to four characters, which matters where a typo sends money away. Only the one lower- or
upper-case spelling is accepted. `parse_account` also takes 64 hexadecimal digits, which is how keys
stand in files written by machines. Jobs, transactions and blocks are named by 64 hexadecimal digits
(`parse_id`).
"""

from typing import Final

from chain.rejections import Rejection, RejectionReason

PREFIX: Final = "assay"
PUBLIC_KEY_BYTES: Final = 32
ID_BYTES: Final = 32
TEXT_CHARACTERS_MAX: Final = 90
"""BIP-350's bound: beyond it the checksum no longer promises anything."""

_ALPHABET: Final = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
_VALUES: Final = {character: value for value, character in enumerate(_ALPHABET)}
_GENERATORS: Final = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)
_BECH32M_CONSTANT: Final = 0x2BC830A3
_CHECKSUM_CHARACTERS: Final = 6


class AddressError(ValueError):
    """The text is no bech32m string."""


def _polymod(values: list[int]) -> int:
    """Remainder of the BCH code over GF(32), as BIP-173 defines it."""
    checksum = 1
    for value in values:
        top = checksum >> 25
        checksum = (checksum & 0x1FFFFFF) << 5 ^ value
        for bit, generator in enumerate(_GENERATORS):
            if top >> bit & 1:
                checksum ^= generator
    return checksum


def _expand(prefix: str) -> list[int]:
    return (
        [ord(character) >> 5 for character in prefix]
        + [0]
        + [ord(character) & 31 for character in prefix]
    )


def encode_bech32m(prefix: str, values: list[int]) -> str:
    """The string for a lower-case prefix and five-bit values."""
    remainder = _polymod(_expand(prefix) + values + [0] * _CHECKSUM_CHARACTERS) ^ _BECH32M_CONSTANT
    checksum = [remainder >> 5 * (5 - index) & 31 for index in range(_CHECKSUM_CHARACTERS)]
    return f"{prefix}1{''.join(_ALPHABET[value] for value in values + checksum)}"


def decode_bech32m(text: str) -> tuple[str, list[int]]:
    """Prefix (in lower case) and five-bit values of a bech32m string. Raises AddressError."""
    if len(text) > TEXT_CHARACTERS_MAX:
        raise AddressError(f"{len(text)} characters, allowed are {TEXT_CHARACTERS_MAX}")
    if any(not 33 <= ord(character) <= 126 for character in text):
        raise AddressError("a character outside printable ASCII")
    if text != text.lower() and text != text.upper():
        raise AddressError("upper and lower case are mixed")
    prefix, separator, data = text.lower().rpartition("1")
    if not separator or not prefix:
        raise AddressError("no prefix before the separator '1'")
    if len(data) < _CHECKSUM_CHARACTERS:
        raise AddressError("shorter than a checksum")
    unknown = next((character for character in data if character not in _VALUES), None)
    if unknown is not None:
        raise AddressError(f"{unknown!r} is not in the alphabet")
    values = [_VALUES[character] for character in data]
    if _polymod(_expand(prefix) + values) != _BECH32M_CONSTANT:
        raise AddressError("the checksum is wrong: a character was mistyped")
    return prefix, values[:-_CHECKSUM_CHARACTERS]


def _regroup(values: list[int] | bytes, width_in: int, width_out: int, pad: bool) -> list[int]:
    """The same bits in groups of another width.

    Raises AddressError for padding that is not zero.
    """
    bits = accumulator = 0
    out: list[int] = []
    for value in values:
        accumulator = accumulator << width_in | value
        bits += width_in
        while bits >= width_out:
            bits -= width_out
            out.append(accumulator >> bits & (1 << width_out) - 1)
    rest = accumulator & (1 << bits) - 1
    if pad and bits:
        out.append(rest << width_out - bits)
    elif not pad and (bits >= width_in or rest):
        raise AddressError("bits left over after the last byte")
    return out


def encode_address(public_key: bytes) -> str:
    """`assay1…` for a 32-byte public key. Raises ValueError for another size: a bug of ours."""
    if len(public_key) != PUBLIC_KEY_BYTES:
        raise ValueError(f"a public key has {PUBLIC_KEY_BYTES} bytes, not {len(public_key)}")
    return encode_bech32m(PREFIX, _regroup(public_key, 8, 5, pad=True))


def decode_address(text: str) -> bytes:
    """The public key (32 bytes) behind `assay1…`. Raises AddressError."""
    prefix, values = decode_bech32m(text)
    if prefix != PREFIX:
        raise AddressError(f"the prefix is {prefix!r}, not {PREFIX!r}")
    public_key = bytes(_regroup(values, 5, 8, pad=False))
    if len(public_key) != PUBLIC_KEY_BYTES:
        raise AddressError(f"{len(public_key)} bytes, an account has {PUBLIC_KEY_BYTES}")
    return public_key


def parse_account(text: str) -> bytes:
    """The public key (32 bytes) that a person wrote as `assay1…` or as 64 hexadecimal digits.

    Raises Rejection(BAD_ADDRESS).
    """
    text = text.strip()
    if _is_hexadecimal(text, PUBLIC_KEY_BYTES):
        return bytes.fromhex(text)
    try:
        return decode_address(text)
    except AddressError as error:
        raise Rejection(
            RejectionReason.BAD_ADDRESS,
            f"{_shown(text)!r} is no account: {error}; give {PREFIX}1… or 64 hexadecimal digits",
        ) from error


def parse_id(text: str, what: str = "job id") -> bytes:
    """The 32 bytes of an id that a person or a machine wrote as 64 hexadecimal digits.

    Raises Rejection(MALFORMED), which calls it `what`.
    """
    text = text.strip()
    if not _is_hexadecimal(text, ID_BYTES):
        raise Rejection(
            RejectionReason.MALFORMED,
            f"{_shown(text)!r} is no {what}: give {2 * ID_BYTES} hexadecimal digits",
        )
    return bytes.fromhex(text)


def _is_hexadecimal(text: str, size: int) -> bool:
    """Not `bytes.fromhex`'s rule, which passes over spaces within."""
    return len(text) == 2 * size and all(digit in "0123456789abcdefABCDEF" for digit in text)


def _shown(text: str) -> str:
    return text if len(text) <= TEXT_CHARACTERS_MAX else f"{text[:TEXT_CHARACTERS_MAX]}…"
