"""ECVRF-EDWARDS25519-SHA512-TAI, against the vectors of RFC 9381 appendix B.3."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consensus import vrf
from consensus.beacon import genesis_beacon, next_beacon
from ext.hashing import tagged_hash

VECTORS = [
    (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "8657106690b5526245a92b003bb079ccd1a92130477671f6fc01ad16f26f723f"
        "26f8a57ccaed74ee1b190bed1f479d9727d2d0f9b005a6e456a35d4fb0daab12"
        "68a1b0db10836d9826a528ca76567805",
        "90cf1df3b703cce59e2a35b925d411164068269d7b2d29f3301c03dd757876ff"
        "66b71dda49d2de59d03450451af026798e8f81cd2e333de5cdf4f3e140fdd8ae",
    ),
    (
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "f3141cd382dc42909d19ec5110469e4feae18300e94f304590abdced48aed593"
        "3bf0864a62558b3ed7f2fea45c92a465301b3bbf5e3e54ddf2d935be3b67926d"
        "a3ef39226bbc355bdc9850112c8f4b02",
        "eb4440665d3891d668e7e0fcaf587f1b4bd7fbfe99d0eb2211ccec90496310eb"
        "5e33821bc613efb94db5e5b54c70a848a0bef4553a41befc57663b56373a5031",
    ),
    (
        "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "9bc0f79119cc5604bf02d23b4caede71393cedfbb191434dd016d30177ccbf80"
        "96bb474e53895c362d8628ee9f9ea3c0e52c7a5c691b6c18c9979866568add7a"
        "2d41b00b05081ed0f58ee5e31b3a970e",
        "645427e5d00c62a23fb703732fa5d892940935942101e456ecca7bb217c61c45"
        "2118fec1219202a0edcf038bb6373241578be7217ba85a2687f7a0310b2df19f",
    ),
]

KEY = vrf.VrfKey.from_secret(bytes(range(32)))
PROOF = vrf.prove(KEY, b"alpha")


@pytest.mark.parametrize(("secret", "public", "alpha", "proof", "output"), VECTORS)
def test_the_vectors_of_the_rfc_hold(
    secret: str, public: str, alpha: str, proof: str, output: str
) -> None:
    key = vrf.VrfKey.from_secret(bytes.fromhex(secret))
    assert key.public_key.hex() == public
    assert vrf.prove(key, bytes.fromhex(alpha)).hex() == proof
    proven = vrf.verify(key.public_key, bytes.fromhex(alpha), bytes.fromhex(proof))
    assert proven is not None
    assert proven.hex() == output
    assert vrf.output_of(bytes.fromhex(proof)) == proven


@settings(max_examples=30, deadline=None)
@given(st.binary(min_size=32, max_size=32), st.binary(max_size=64))
def test_a_proof_holds_for_its_own_key_and_input_only(secret: bytes, alpha: bytes) -> None:
    key = vrf.VrfKey.from_secret(secret)
    proof = vrf.prove(key, alpha)
    assert vrf.verify(key.public_key, alpha, proof) == vrf.output_of(proof)
    assert vrf.verify(key.public_key, alpha + b"x", proof) is None
    assert vrf.verify(KEY.public_key, alpha, proof) is None


def test_no_flipped_bit_of_a_proof_is_accepted() -> None:
    for position in range(8 * vrf.PROOF_BYTES):
        changed = bytearray(PROOF)
        changed[position // 8] ^= 1 << position % 8
        assert vrf.verify(KEY.public_key, b"alpha", bytes(changed)) is None


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=100), st.binary(max_size=100))
def test_verification_is_total(public_key: bytes, proof: bytes) -> None:
    assert vrf.verify(public_key, b"alpha", proof) is None
    assert vrf.verify(KEY.public_key, b"alpha", proof) is None


@pytest.mark.parametrize("point", [1, 0, 2**255 - 20, 2**255 - 19, 2**255 - 1])
def test_small_order_and_unreduced_points_are_refused(point: int) -> None:
    encoded = point.to_bytes(32, "little")
    assert vrf.verify(encoded, b"alpha", PROOF) is None
    assert vrf.verify(KEY.public_key, b"alpha", encoded + PROOF[32:]) is None


def test_a_response_is_refused_unless_reduced() -> None:
    order = 2**252 + 27742317777372353535851937790883648493
    response = int.from_bytes(PROOF[48:], "little") + order
    unreduced = PROOF[:48] + response.to_bytes(32, "little")
    assert vrf.verify(KEY.public_key, b"alpha", unreduced) is None


def test_a_secret_key_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="secret key of 31 bytes, must be 32"):
        vrf.VrfKey.from_secret(bytes(31))


def test_the_beacon_is_a_hash_chain_over_outputs() -> None:
    first = genesis_beacon(b"g" * 32)
    assert first == tagged_hash(b"beacon-genesis", b"g" * 32)
    assert next_beacon(first, b"o" * 64) == tagged_hash(b"beacon", first, b"o" * 64)
