"""Verification against the rule in plain integers, hostile points, and itself in batches."""

import random
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nacl.signing import SigningKey

from ext import ed25519
from tests.ext import vectors
from tests.ext import zip215_reference as reference

Signed = tuple[bytes, bytes, bytes]
"""Public key, message, signature."""

# Every encoding of the eight points of small order: eight canonical ones, then six others.
SMALL_ORDER_ENCODINGS = [
    bytes.fromhex(encoding)
    for encoding in (
        "0100000000000000000000000000000000000000000000000000000000000000",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0000000000000000000000000000000000000000000000000000000000000080",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
        "0100000000000000000000000000000000000000000000000000000000000080",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    )
]


def honest(seed: int, message: bytes = b"message") -> Signed:
    key = SigningKey(seed.to_bytes(32, "little"))
    return bytes(key.verify_key), message, key.sign(message).signature


VERIFIERS = {engine: ed25519.Verifier(256, engine) for engine in ed25519.engines()}


def columns(items: list[Signed]) -> tuple[list[bytes], list[bytes], list[bytes]]:
    return [item[0] for item in items], [item[1] for item in items], [item[2] for item in items]


def together(items: list[Signed]) -> list[bool]:
    """The answers of a batch, which every engine must give, keys kept from before or not."""
    answers = {
        name: [bool(answer) for answer in verifier.verify_each(*columns(items))]
        for name, verifier in VERIFIERS.items()
    }
    assert all(answer == answers["portable"] for answer in answers.values())
    return answers["portable"]


def with_response(item: Signed, change: int) -> Signed:
    """The signature with ``change`` added to S, modulo the group order."""
    response = (int.from_bytes(item[2][32:], "little") + change) % reference.ORDER
    return item[0], item[1], item[2][:32] + response.to_bytes(32, "little")


def test_the_small_order_encodings_are_all_there_are() -> None:
    points = [reference.decode_known(encoding) for encoding in SMALL_ORDER_ENCODINGS]
    assert all(reference.is_identity(reference.multiply(8, point)) for point in points)
    assert len({reference.encode(point) for point in points}) == 8
    assert len(set(SMALL_ORDER_ENCODINGS)) == 14


def test_small_order_keys_and_commitments_are_accepted_alone_and_together() -> None:
    items = [
        (key, b"Zcash", commitment + bytes(32))
        for key in SMALL_ORDER_ENCODINGS
        for commitment in SMALL_ORDER_ENCODINGS
    ]
    assert all(reference.verify(*item) for item in items)
    assert all(ed25519.verify(*item) for item in items)
    assert together(items) == [True] * 196


def test_small_order_parts_never_change_an_answer() -> None:
    source = random.Random(5)
    torsion = [reference.decode_known(encoding) for encoding in SMALL_ORDER_ENCODINGS[:8]]
    items = []
    for key_offset in torsion:
        for nonce_offset in torsion:
            secret, nonce = (source.randrange(1, reference.ORDER) for _ in range(2))
            public_key, signature = reference.sign_with(
                secret, nonce, b"mixed", key_offset, nonce_offset
            )
            items.append((public_key, b"mixed", signature))
    assert all(ed25519.verify(*item) for item in items)
    assert reference.verify(*items[-1])
    # A batch rule without the cofactor would fail for most draws of the coefficients.
    for _ in range(8):
        assert together(items) == [True] * len(items)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(SMALL_ORDER_ENCODINGS), st.binary(max_size=20), st.integers(0, 511))
def test_near_misses_get_the_reference_answer(
    commitment: bytes, message: bytes, position: int
) -> None:
    public_key, _, _ = honest(7)
    signature = bytearray(commitment + bytes(32))
    signature[position // 8] ^= 1 << position % 8
    for item in (
        (public_key, message, bytes(signature)),
        (commitment, message, bytes(signature)),
    ):
        assert ed25519.verify(*item) == reference.verify(*item)


@given(
    st.binary(min_size=32, max_size=32), st.binary(max_size=8), st.binary(min_size=64, max_size=64)
)
@settings(max_examples=40, deadline=None)
def test_arbitrary_bytes_get_the_reference_answer(
    public_key: bytes, message: bytes, signature: bytes
) -> None:
    reduced = signature[:63] + bytes([signature[63] & 0x0F])
    for candidate in (signature, reduced):
        item = (public_key, message, candidate)
        assert ed25519.verify(*item) == reference.verify(*item)


def test_messages_of_every_length_to_300_are_hashed_right() -> None:
    text = random.Random(6).randbytes(300)
    items = [honest(length, text[:length]) for length in range(301)]
    assert all(ed25519.verify(*item) for item in items)
    assert together(items) == [True] * 301


def test_every_flipped_bit_of_a_signature_and_a_key_is_noticed() -> None:
    public_key, message, signature = honest(8)
    items = []
    for position in range(96 * 8):
        damaged = bytearray(public_key + signature)
        damaged[position // 8] ^= 1 << position % 8
        items.append((bytes(damaged[:32]), message, bytes(damaged[32:])))
    assert not any(ed25519.verify(*item) for item in items)
    assert not any(together([*items, (public_key, message, signature)])[:-1])


@pytest.mark.parametrize("multiple", [1, 2, 7, 15])
def test_a_response_of_the_order_or_more_is_refused(multiple: int) -> None:
    public_key, message, signature = honest(9)
    response = int.from_bytes(signature[32:], "little") + multiple * reference.ORDER
    item = (public_key, message, signature[:32] + response.to_bytes(32, "little"))
    assert not ed25519.verify(*item)
    assert together([item, honest(9)]) == [False, True]


def test_the_response_bound_is_exact() -> None:
    identity = SMALL_ORDER_ENCODINGS[0]
    assert ed25519.verify(identity, b"", identity + bytes(32))
    order = reference.ORDER.to_bytes(32, "little")
    assert not ed25519.verify(identity, b"", identity + order)
    below = reference.ORDER - 1
    commitment = reference.encode(reference.multiply(below, reference.BASE))
    largest = (identity, b"", commitment + below.to_bytes(32, "little"))
    assert ed25519.verify(*largest)
    assert reference.verify(*largest)


@given(st.sets(st.integers(0, 149)), st.integers(0, 150))
@settings(max_examples=25, deadline=None)
def test_a_batch_finds_exactly_the_bad_ones(bad: set[int], size: int) -> None:
    items = [honest(number % 10) for number in range(size)]
    for index in bad & set(range(size)):
        items[index] = with_response(items[index], 1)
    assert together(items) == [index not in bad for index in range(size)]


def test_signatures_that_share_a_key_are_told_apart() -> None:
    source = random.Random(10)
    keys = [SigningKey(source.randbytes(32)) for _ in range(4)]
    no_point = (2).to_bytes(32, "little")
    assert reference.decode(no_point) is None
    items: list[Signed] = []
    for number in range(120):
        key, message = keys[source.randrange(4)], source.randbytes(number)
        items.append((bytes(key.verify_key), message, key.sign(message).signature))
    for index in (5, 6, 77):
        items[index] = with_response(items[index], 1 + index)
    for index in (0, 50, 119):
        items[index] = (no_point, items[index][1], items[index][2])
    items[33] = (items[33][0], items[33][1], items[34][2])
    bad = {0, 5, 6, 33, 50, 77, 119}
    assert together(items) == [index not in bad for index in range(120)]


def test_errors_of_one_key_that_cancel_each_other_are_found() -> None:
    key = SigningKey(bytes(32))
    items = [
        (bytes(key.verify_key), bytes([number]), key.sign(bytes([number])).signature)
        for number in range(40)
    ]
    items[3], items[4] = with_response(items[3], 5), with_response(items[4], -5)
    assert [index for index, good in enumerate(together(items)) if not good] == [3, 4]


def test_errors_that_cancel_each_other_do_not_hide_in_a_batch() -> None:
    items = [honest(number) for number in range(40)]
    items[3], items[30] = with_response(items[3], 5), with_response(items[30], -5)
    for _ in range(5):
        assert [index for index, good in enumerate(together(items)) if not good] == [3, 30]


def spent(verifier: ed25519.Verifier, items: list[Signed]) -> tuple[list[bool], ed25519.Costs]:
    """The answers and what they cost alone."""
    before = verifier.costs()
    answers = verifier.verify_each(*columns(items)).tolist()
    after = verifier.costs()
    return answers, ed25519.Costs(
        sums=after["sums"] - before["sums"],
        sum_members=after["sum_members"] - before["sum_members"],
        singles=after["singles"] - before["singles"],
        keys_decoded=after["keys_decoded"] - before["keys_decoded"],
        keys_known=after["keys_known"] - before["keys_known"],
    )


def test_a_good_batch_costs_one_equation() -> None:
    items = [honest(number) for number in range(100)]
    for verifier in VERIFIERS.values():
        answers, cost = spent(verifier, items)
        assert all(answers)
        assert (cost["sums"], cost["sum_members"], cost["singles"]) == (1, 100, 0)


@given(st.integers(0, 999))
@settings(max_examples=8, deadline=None)
def test_one_bad_signature_among_a_thousand_costs_two_equations_a_halving(place: int) -> None:
    pool = [honest(number) for number in range(16)]
    items = [pool[number % 16] for number in range(1000)]
    items[place] = with_response(items[place], 1)
    answers, cost = spent(ed25519.Verifier(), items)
    assert answers == [index != place for index in range(1000)]
    # 1000 is halved eight times until at most six are left; both last halves may be looked through.
    assert cost["sums"] <= 1 + 2 * 8
    assert cost["sum_members"] <= 3 * 1000
    assert cost["singles"] <= 2 * 6


@given(st.sampled_from([2, 5, 9, 16, 40, 150, 300]), st.randoms(use_true_random=False))
@settings(max_examples=10, deadline=None)
def test_however_many_are_bad_the_search_costs_a_bounded_number_of_passes(
    bad: int, source: random.Random
) -> None:
    pool = [honest(number) for number in range(16)]
    items = [pool[number % 16] for number in range(300)]
    spread = set(range(0, 300, -(-300 // bad))) if source.random() < 0.5 else set()
    places = spread or set(source.sample(range(300), bad))
    for place in places:
        items[place] = with_response(items[place], 1)
    answers, cost = spent(ed25519.Verifier(), items)
    assert answers == [index not in places for index in range(300)]
    # Failed equations: six passes and the one that went over. Good ones: each signature once.
    assert cost["sum_members"] <= (6 + 1 + 1) * 300
    assert cost["singles"] <= 300


def test_known_keys_are_not_decoded_again_and_the_answers_stay() -> None:
    items = [honest(number) for number in range(50)]
    items[7] = with_response(items[7], 1)
    for engine in ed25519.engines():
        verifier = ed25519.Verifier(1 << 14, engine)
        first, cost = spent(verifier, items)
        assert (cost["keys_decoded"], cost["keys_known"]) == (50, 0)
        again, cost = spent(verifier, items)
        assert first == again == [index != 7 for index in range(50)]
        # Two keys may have met in one of 16384 places.
        assert cost["keys_known"] >= 45


@pytest.mark.parametrize("kept_keys", [0, 1, 2, 1000])
def test_answers_do_not_depend_on_the_keys_that_are_kept(kept_keys: int) -> None:
    verifiers = [ed25519.Verifier(kept_keys, engine) for engine in ed25519.engines()]
    source = random.Random(12)
    pool = [honest(number) for number in range(30)]
    pool += [(key, b"Zcash", key + bytes(32)) for key in SMALL_ORDER_ENCODINGS]
    pool += [((2).to_bytes(32, "little"), b"no point", pool[0][2])]
    pool += [with_response(item, 1) for item in pool[:5]]
    expected = {item: ed25519.verify(*item) for item in pool}
    for _ in range(12):
        items = source.choices(pool, k=source.randrange(1, 40))
        for verifier in verifiers:
            answers = verifier.verify_each(*columns(items)).tolist()
            assert answers == [expected[item] for item in items]


def test_a_key_that_is_no_point_is_never_kept() -> None:
    no_point = ((2).to_bytes(32, "little"), b"", bytes(64))
    for engine in ed25519.engines():
        verifier = ed25519.Verifier(1000, engine)
        for _ in range(3):
            answers, cost = spent(verifier, [no_point] * 9)
            assert not any(answers)
            assert (cost["keys_decoded"], cost["keys_known"]) == (1, 0)


# Points whose y brings some limb to the edge of what it may hold. Four lanes, which once added such
# limbs as doubles, took them for no points.
EDGE_ENCODINGS = [
    bytes.fromhex(encoding)
    for encoding in (
        "fffffffffffffbffffffffff9ffffffffffffffeffffffffff07000000000020",
        "ffffffffffff070000000000c0ffffffffffff00000000000004000000000080",
        "000000000000faffffffffff1f000000000000ffffffffffff07000000000040",
        "020000000000f0ffffffffff3f00000000000000000000000004000000000020",
        "0000000000000a0000000000e0ffffffffffff000000000000000000000000a0",
        "ffffffffffff0700000000001000000000000000000000000000000000000000",
        "000000000000000000000000d0fffffffffffffeffffffffff07000000000080",
        "feffffffffff030000000000d0ffffffffffff000000000000f8ffffffffffbf",
    )
]
EDGES = [0, 1, 2, 19, *(2**50 + near for near in (-2, -1, 0, 1)), *(2**51 - n for n in (20, 19, 1))]


@pytest.mark.parametrize("engine", ed25519.engines())
def test_an_engine_takes_for_points_what_the_rule_takes_for_points(engine: str) -> None:
    source = random.Random(51)
    keys = list(EDGE_ENCODINGS)
    for _ in range(300):
        number = sum(source.choice(EDGES) << 51 * place for place in range(5))
        keys.append((number | source.getrandbits(1) << 255).to_bytes(32, "little"))
    for key in keys:
        # With one place to keep a key in, it is known when it comes again exactly if it is a point.
        verifier = ed25519.Verifier(1, engine)
        spent(verifier, [(key, b"", bytes(64))])
        _, cost = spent(verifier, [(key, b"", bytes(64))])
        assert bool(cost["keys_known"]) == (reference.decode(key) is not None), key.hex()


def test_one_encoding_of_a_key_does_not_stand_in_for_another() -> None:
    # Two encodings of one point give different challenges; each must be judged under its own.
    canonical, other = SMALL_ORDER_ENCODINGS[0], SMALL_ORDER_ENCODINGS[8]
    verifier = ed25519.Verifier(1000)
    for _ in range(2):
        _, cost = spent(verifier, [(canonical, b"", canonical + bytes(32))] * 8)
        _, other_cost = spent(verifier, [(other, b"", canonical + bytes(32))] * 8)
    assert cost["keys_known"] + other_cost["keys_known"] == 2


def test_threads_share_a_verifier() -> None:
    verifier = ed25519.Verifier(8)
    items = [honest(number) for number in range(64)]
    items[40] = with_response(items[40], 1)
    expected = [index != 40 for index in range(64)]
    with ThreadPoolExecutor(4) as pool:
        runs = [pool.submit(verifier.verify_each, *columns(items)) for _ in range(40)]
        assert all(run.result().tolist() == expected for run in runs)


def test_what_no_verifier_can_be_is_refused() -> None:
    with pytest.raises(ValueError, match="engine 'abacus' is none of"):
        ed25519.Verifier(engine="abacus")
    with pytest.raises(ValueError, match="kept_keys is -1, not from 0 to 1048576"):
        ed25519.Verifier(-1)


def test_a_batch_larger_than_one_pass_keeps_its_order() -> None:
    pool = [honest(number) for number in range(16)]
    items = [pool[number % 16] for number in range(8192 + 40)]
    for index in (0, 8191, 8192, 8231):
        items[index] = with_response(items[index], 1)
    answers = together(items)
    assert [index for index, good in enumerate(answers) if not good] == [0, 8191, 8192, 8231]


def test_arrays_and_lists_give_the_same_answers() -> None:
    items = [honest(number, number.to_bytes(32, "big")) for number in range(50)]
    items[20] = with_response(items[20], 3)
    keys, messages, signatures = (
        np.frombuffer(b"".join(column), dtype=np.uint8).reshape(50, -1)
        for column in zip(*items, strict=True)
    )
    verifier = ed25519.Verifier()
    answers = verifier.verify_batch(keys, messages, signatures)
    assert answers.dtype == np.bool_
    assert answers.tolist() == together(items) == [index != 20 for index in range(50)]
    assert verifier.verify_batch(keys[:0], messages[:0], signatures[:0]).shape == (0,)


def test_arrays_and_lists_of_other_shapes_are_refused() -> None:
    verifier = ed25519.Verifier()
    keys, messages = np.zeros((3, 32), np.uint8), np.zeros((3, 32), np.uint8)
    signatures = np.zeros((3, 64), np.uint8)
    with pytest.raises(ValueError, match="as many of each"):
        verifier.verify_batch(keys, messages[:2], signatures)
    with pytest.raises(ValueError, match="as many of each"):
        verifier.verify_batch(keys, messages, signatures[:2])
    with pytest.raises(ValueError, match="keys must be"):
        verifier.verify_batch(keys[:, :31].copy(), messages, signatures)
    with pytest.raises(ValueError, match="every public key must be 32 bytes"):
        verifier.verify_each([bytes(31), bytes(33)], [b"", b""], [bytes(64)] * 2)
    with pytest.raises(ValueError, match="every signature must be 64 bytes"):
        verifier.verify_each([bytes(32)], [b""], [bytes(63)])
    with pytest.raises(TypeError, match="message 0 is not bytes"):
        verifier.verify_each([bytes(32)], [None], [bytes(64)])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="as many of each"):
        verifier.verify_each([bytes(32)], [], [bytes(64)])


def test_the_speccheck_cases_get_the_answers_of_zip_215() -> None:
    cases = vectors.speccheck()
    items = [(case.public_key, case.message, case.signature) for case in cases]
    expected = [case.accepted for case in cases]
    assert [ed25519.verify(*item) for item in items] == expected
    assert [reference.verify(*item) for item in items] == expected
    assert together(items * 3) == expected * 3


def test_the_wycheproof_cases_get_their_answers_alone_and_together() -> None:
    cases = vectors.wycheproof()
    for case in cases:
        assert ed25519.verify(case.public_key, case.message, case.signature) == case.accepted, case
    sized = [case for case in cases if len(case.signature) == ed25519.SIGNATURE_BYTES]
    items = [(case.public_key, case.message, case.signature) for case in sized]
    assert together(items) == [case.accepted for case in sized]
