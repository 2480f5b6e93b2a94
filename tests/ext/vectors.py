"""Published Ed25519 vectors, each with the verdict of ZIP-215."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

DIRECTORY = Path(__file__).resolve().parents[3] / "shared" / "vectors"

# What ZIP-215 says to the twelve cases of "Taming the many EdDSAs" (Chalkias and others, 2020).
SPECCHECK_ACCEPTED = [True] * 6 + [False] * 3 + [True] * 3
# Wycheproof follows RFC 8032; ZIP-215 differs where x = 0 carries a sign bit.
WYCHEPROOF_ACCEPTED_ANYWAY = "sign bit of x set. The only point with y = 1 has x = 0"
WYCHEPROOF_CASES = 151


@dataclass(frozen=True, slots=True)
class Case:
    """One signature and whether it is accepted."""

    public_key: bytes
    message: bytes
    signature: bytes
    accepted: bool


def _honest(public_key: str, message: str, signature: str) -> Case:
    return Case(
        bytes.fromhex(public_key), bytes.fromhex(message), bytes.fromhex(signature), accepted=True
    )


# RFC 8032, section 7.1, tests 1 to 3 and SHA(abc).
RFC_8032 = (
    _honest(
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155"
        "5fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
    ),
    _honest(
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
        "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
    ),
    _honest(
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac"
        "18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
    ),
    _honest(
        "ec172b93ad5e563bf4932c70e1245034c35467ef2efd4d64ebf819683467e2bf",
        "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a"
        "2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f",
        "dc2a4459e7369633a52b1bf277839a00201009a3efbf3ecb69bea2186c26b589"
        "09351fc9ac90b3ecfdfbc7c66431e0303dca179c138ac17ad9bef1177331a704",
    ),
)


def _load(name: str) -> Any:
    if not DIRECTORY.is_dir():
        pytest.skip("the shared vectors are not beside this tree")
    return json.loads((DIRECTORY / name).read_text())


def speccheck() -> list[Case]:
    """The twelve cases of "Taming the many EdDSAs"."""
    return [
        Case(
            bytes.fromhex(case["pub_key"]),
            bytes.fromhex(case["message"]),
            bytes.fromhex(case["signature"]),
            accepted,
        )
        for case, accepted in zip(_load("ed25519_speccheck.json"), SPECCHECK_ACCEPTED, strict=True)
    ]


def wycheproof() -> list[Case]:
    """Project Wycheproof's cases; some signatures have a length of their own."""
    cases = [
        Case(
            bytes.fromhex(group["publicKey"]["pk"]),
            bytes.fromhex(case["msg"]),
            bytes.fromhex(case["sig"]),
            case["result"] == "valid" or WYCHEPROOF_ACCEPTED_ANYWAY in case["comment"],
        )
        for group in _load("ed25519_wycheproof.json")["testGroups"]
        for case in group["tests"]
    ]
    if len(cases) != WYCHEPROOF_CASES:
        raise ValueError(f"{len(cases)} cases, not {WYCHEPROOF_CASES}: the file is another one")
    return cases
