"""Checking signatures: RFC 8032's examples, damage of every kind, one answer one or many."""

import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nacl.signing import SigningKey

from ext import signatures
from ext.signatures import verify, verify_many
from tests.ext.vectors import RFC_8032


def example(number: int) -> tuple[bytes, bytes, bytes]:
    case = RFC_8032[number]
    return case.public_key, case.message, case.signature


@pytest.mark.parametrize("number", range(len(RFC_8032)))
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
    items = [example(number % len(RFC_8032)) for number in range(20)]
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


@pytest.mark.parametrize(("engine", "said"), [("portable", "fine"), ("abacus", "'abacus' is none")])
def test_the_environment_chooses_the_arithmetic_of_batches(engine: str, said: str) -> None:
    program = "import ext.signatures; print('fine')"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "ASSAY_ED25519": engine},
        capture_output=True,
        text=True,
        check=False,
    )
    assert said in done.stdout + done.stderr
