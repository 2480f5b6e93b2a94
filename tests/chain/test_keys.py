"""Keys grow from words in one documented way."""

import hashlib
import unicodedata

import pytest

from chain.keys import KeyPair, MnemonicError, Role, ValidatorKeys, derive_key, new_mnemonic
from ext.hashing import tagged_hash
from ext.signatures import verify

WORDS = " ".join(["abandon"] * 23 + ["art"])
"""BIP-39's words for 32 zero bytes."""


def test_a_signature_verifies_under_its_public_key() -> None:
    pair = KeyPair.generate()
    signature = pair.sign(b"message")
    assert verify(pair.public_key, b"message", signature)
    assert not verify(pair.public_key, b"massage", signature)


def test_rfc_8032_test_1() -> None:
    pair = KeyPair(
        bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
    )
    assert pair.public_key.hex() == (
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
    )
    assert pair.sign(b"").hex() == (
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155"
        "5fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b"
    )


def test_randomness_can_be_given() -> None:
    assert KeyPair.generate(bytes) == KeyPair(bytes(32))
    assert new_mnemonic(bytes) == WORDS


def test_a_secret_is_not_shown() -> None:
    assert "seed" not in repr(KeyPair(bytes(32)))
    assert "signing_key" not in repr(KeyPair(bytes(32)))


@pytest.mark.parametrize("size", [0, 31, 33, 64])
def test_a_seed_has_32_bytes(size: int) -> None:
    with pytest.raises(ValueError, match=f"32 bytes, not {size}"):
        KeyPair(bytes(size))


def test_the_derivation_is_as_documented() -> None:
    normal = unicodedata.normalize("NFKD", WORDS).encode()
    seed = hashlib.pbkdf2_hmac("sha512", normal, b"mnemonic", 2048)
    expected = tagged_hash(b"key", seed, b"vrf", (7).to_bytes(4, "little"))
    assert derive_key(WORDS, Role.VRF, 7).seed == expected


def test_roles_and_indices_have_different_keys() -> None:
    keys = ValidatorKeys.from_mnemonic(WORDS)
    pairs = {keys.account, keys.signing, keys.vrf, derive_key(WORDS, Role.ACCOUNT, 1)}
    assert len({pair.public_key for pair in pairs}) == 4
    assert keys.account == derive_key(WORDS, Role.ACCOUNT)


def test_white_space_between_words_means_nothing() -> None:
    assert derive_key(f" {WORDS.replace(' ', '  ')}\n", Role.ACCOUNT) == derive_key(
        WORDS, Role.ACCOUNT
    )


def test_new_words_are_24_and_differ() -> None:
    words = new_mnemonic()
    assert len(words.split()) == 24
    assert words != new_mnemonic()
    derive_key(words, Role.SIGNING)


@pytest.mark.parametrize(
    "words",
    ["", "abandon", " ".join(["abandon"] * 24), WORDS.replace("art", "arx"), WORDS + " art"],
)
def test_wrong_words_are_refused(words: str) -> None:
    with pytest.raises(MnemonicError, match="check their spelling and order"):
        derive_key(words, Role.ACCOUNT)


@pytest.mark.parametrize("index", [-1, 1 << 32])
def test_an_index_fits_four_bytes(index: int) -> None:
    with pytest.raises(ValueError, match=f"key index {index}"):
        derive_key(WORDS, Role.ACCOUNT, index)
