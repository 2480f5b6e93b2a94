"""Checking signatures: RFC 8032's examples, damage of every kind, one answer one or many."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nacl.signing import SigningKey

from ext import signatures
from ext.signatures import verify, verify_many

# RFC 8032, section 7.1, tests 1 to 3 and SHA(abc): public key, message, signature.
RFC_8032_EXAMPLES = [
    (
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155"
        "5fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
    ),
    (
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
        "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
    ),
    (
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac"
        "18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
    ),
    (
        "ec172b93ad5e563bf4932c70e1245034c35467ef2efd4d64ebf819683467e2bf",
        "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a"
        "2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f",
        "dc2a4459e7369633a52b1bf277839a00201009a3efbf3ecb69bea2186c26b589"
        "09351fc9ac90b3ecfdfbc7c66431e0303dca179c138ac17ad9bef1177331a704",
    ),
]


def example(number: int) -> tuple[bytes, bytes, bytes]:
    public_key, message, signature = map(bytes.fromhex, RFC_8032_EXAMPLES[number])
    return public_key, message, signature


@pytest.mark.parametrize("number", range(len(RFC_8032_EXAMPLES)))
def test_the_rfc_8032_examples_are_accepted(number: int) -> None:
    assert verify(*example(number))


@given(st.binary(min_size=32, max_size=32), st.binary(max_size=200), st.data())
def test_an_honest_signature_is_accepted_and_a_flipped_bit_is_not(
    seed: bytes, message: bytes, data: st.DataObject
) -> None:
    key = SigningKey(seed)
    public_key, signature = bytes(key.verify_key), key.sign(message).signature
    assert verify(public_key, message, signature)
    parts = [public_key, message, signature]
    damaged = bytearray(b"".join(parts))
    position = data.draw(st.integers(0, len(damaged) * 8 - 1))
    damaged[position // 8] ^= 1 << position % 8
    end = 32 + len(message)
    assert not verify(bytes(damaged[:32]), bytes(damaged[32:end]), bytes(damaged[end:]))


@pytest.mark.parametrize(("key_bytes", "signature_bytes"), [(0, 64), (31, 64), (33, 64), (32, 63)])
def test_keys_and_signatures_of_another_size_are_refused(
    key_bytes: int, signature_bytes: int
) -> None:
    public_key, message, signature = example(0)
    padded_key, padded_signature = public_key + bytes(8), signature + bytes(8)
    assert not verify(padded_key[:key_bytes], message, padded_signature[:signature_bytes])


def test_many_give_the_answers_of_one_by_one_in_order() -> None:
    items = [example(number % len(RFC_8032_EXAMPLES)) for number in range(20)]
    for wrong in (3, 4, 17):
        public_key, message, signature = items[wrong]
        items[wrong] = (public_key, message + b"!", signature)
    items[9] = (items[9][0], items[9][1], b"")
    answers = verify_many(items)
    assert answers == [verify(*item) for item in items]
    assert [index for index, answer in enumerate(answers) if not answer] == [3, 4, 9, 17]
    assert verify_many([]) == []


def test_a_verifier_that_says_yes_to_everything_does_not_pass_the_self_test(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    signatures.self_test()
    monkeypatch.setattr(signatures, "verify", lambda *_: True)
    with pytest.raises(RuntimeError, match="the Ed25519 self-test failed"):
        signatures.self_test()


def test_a_batch_that_finds_nothing_does_not_pass_the_self_test(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(signatures, "verify_many", lambda items: [True] * len(items))
    with pytest.raises(RuntimeError, match="the Ed25519 self-test failed"):
        signatures.self_test()
