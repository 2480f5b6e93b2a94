"""Addresses: BIP-350's vectors, and errors that a person makes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chain.addresses import (
    AddressError,
    decode_address,
    decode_bech32m,
    encode_address,
    encode_bech32m,
    parse_account,
    parse_id,
)
from chain.rejections import Rejection, RejectionReason

# BIP-350, "Test vectors for Bech32m".
VALID = (
    "A1LQFN3A",
    "a1lqfn3a",
    "an83characterlonghumanreadablepartthatcontainsthetheexcludedcharactersbioandnumber11sg7hg6",
    "abcdef1l7aum6echk45nj3s0wdvt2fg8x9yrzpqzd3ryx",
    "11llllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllludsr8",
    "split1checkupstagehandshakeupstreamerranterredcaperredlc445v",
    "?1v759aa",
)
INVALID = (
    "\x201xj0phk",
    "\x7f1g6xzxy",
    "\x801vctc34",
    "an84characterslonghumanreadablepartthatcontainsthetheexcludedcharactersbioandnumber11d6pts4",
    "qyrz8wqd2c9m",
    "1qyrz8wqd2c9m",
    "y1b0jsk6g",
    "lt1igcx5c0",
    "in1muywd",
    "mm1crxm3i",
    "au1s5cgom",
    "M1VUXWEZ",
    "16plkw9",
    "1p2gdwpf",
)
KEY = bytes(range(32))


@pytest.mark.parametrize("text", VALID)
def test_a_valid_vector_round_trips(text: str) -> None:
    prefix, values = decode_bech32m(text)
    assert encode_bech32m(prefix, values) == text.lower()


@pytest.mark.parametrize("text", INVALID)
def test_an_invalid_vector_is_refused(text: str) -> None:
    with pytest.raises(AddressError):
        decode_bech32m(text)


@given(st.binary(min_size=32, max_size=32))
def test_every_key_round_trips(key: bytes) -> None:
    address = encode_address(key)
    assert address.startswith("assay1")
    assert decode_address(address) == key
    assert parse_account(address.upper()) == key
    assert parse_account(f" {key.hex()}\n") == key


@given(st.binary(min_size=32, max_size=32), st.data())
def test_one_wrong_character_is_noticed(key: bytes, data: st.DataObject) -> None:
    address = encode_address(key)
    place = data.draw(st.integers(len("assay1"), len(address) - 1))
    letter = data.draw(st.sampled_from("qpzry9x8gf2tvdw0s3jn54khce6mua7l"))
    changed = address[:place] + letter + address[place + 1 :]
    if changed != address:
        with pytest.raises(AddressError):
            decode_address(changed)


def bech32_of(values: list[int], prefix: str = "assay") -> str:
    return encode_bech32m(prefix, values)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "no prefix"),
        (encode_address(KEY)[:-1], "checksum is wrong"),
        (encode_address(KEY)[:-1] + encode_address(KEY)[-1].upper(), "mixed"),
        (bech32_of([0] * 52, "bssay"), "the prefix is 'bssay'"),
        (bech32_of([0] * 50), "31 bytes"),
        (bech32_of([0] * 51), "bits left over"),
        (bech32_of([0] * 51 + [1]), "bits left over"),
        (bech32_of([0] * 53), "33 bytes"),
        ("assay1é", "outside printable ASCII"),
        ("00" * 31, "no prefix"),
        ("x" * 10_000, "10000 characters"),
    ],
)
def test_a_wrong_account_is_rejected_with_what_to_do(text: str, problem: str) -> None:
    with pytest.raises(Rejection) as caught:
        parse_account(text)
    assert caught.value.reason is RejectionReason.BAD_ADDRESS
    assert problem in caught.value.detail
    assert "give assay1… or 64 hexadecimal digits" in caught.value.detail
    assert len(caught.value.detail) < 300


def test_a_key_of_another_size_has_no_address() -> None:
    with pytest.raises(ValueError, match="32 bytes, not 31"):
        encode_address(bytes(31))


@given(st.binary(min_size=32, max_size=32))
def test_an_id_reads_back_from_its_digits_in_either_case(identity: bytes) -> None:
    assert parse_id(identity.hex()) == identity
    assert parse_id(f" {identity.hex().upper()}\n") == identity


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ab" * 31,
        "ab" * 33,
        "g" * 64,
        "ab " * 32,
        "ab " * 21 + "a",
        "\u0661" * 64,
        "0x" + "a" * 62,
    ],
)
def test_what_is_not_64_hexadecimal_digits_is_no_id(text: str) -> None:
    with pytest.raises(Rejection) as caught:
        parse_id(text, "transaction id")
    assert caught.value.reason is RejectionReason.MALFORMED
    assert "is no transaction id: give 64 hexadecimal digits" in caught.value.detail
    assert len(caught.value.detail) < 200
