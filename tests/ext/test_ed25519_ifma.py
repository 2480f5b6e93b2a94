"""Eight lanes of AVX-512: emulated everywhere, and the processor's own where it has them."""

import platform
import random
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ext import ed25519
from tests.ext import compiling, vectors
from tests.ext import zip215_reference as reference
from tests.ext.emulated_ed25519 import Library
from tests.ext.test_ed25519 import (
    EDGE_ENCODINGS,
    EDGES,
    SMALL_ORDER_ENCODINGS,
    Signed,
    columns,
    honest,
    with_response,
)

Verify = Callable[[list[Signed]], list[bool]]
NO_POINT = (2).to_bytes(32, "little")


@pytest.fixture(scope="module")
def emulated(tmp_path_factory: pytest.TempPathFactory) -> Library:
    return Library(tmp_path_factory.mktemp("emulated"))


@pytest.fixture(scope="module", params=["emulated", "processor"])
def verify(request: pytest.FixtureRequest) -> Verify:
    """Answers of one batch by eight lanes."""
    if request.param == "emulated":
        library: Library = request.getfixturevalue("emulated")
        return lambda items: library.verify(items, b"coefficients")
    if "ifma" not in ed25519.engines():
        pytest.skip("this processor has no AVX-512 IFMA")
    verifier = ed25519.Verifier(256, "ifma")
    return lambda items: [bool(answer) for answer in verifier.verify_each(*columns(items))]


def singles(items: list[Signed]) -> list[bool]:
    return [ed25519.verify(*item) for item in items]


def test_published_vectors_get_their_answers(verify: Verify) -> None:
    cases = [*vectors.RFC_8032, *vectors.speccheck(), *vectors.wycheproof()]
    sized = [case for case in cases if len(case.signature) == ed25519.SIGNATURE_BYTES]
    items = [(case.public_key, case.message, case.signature) for case in sized]
    assert verify(items) == [case.accepted for case in sized]


def test_small_order_keys_and_commitments_are_accepted(verify: Verify) -> None:
    items = [
        (key, b"Zcash", commitment + bytes(32))
        for key in SMALL_ORDER_ENCODINGS
        for commitment in SMALL_ORDER_ENCODINGS
    ]
    assert verify(items) == [True] * 196


def test_small_order_parts_never_change_an_answer(verify: Verify) -> None:
    source = random.Random(5)
    torsion = [reference.decode_known(encoding) for encoding in SMALL_ORDER_ENCODINGS[:8]]
    items = []
    for key_offset in torsion:
        for nonce_offset in torsion[::3]:
            secret, nonce = (source.randrange(1, reference.ORDER) for _ in range(2))
            public_key, signature = reference.sign_with(
                secret, nonce, b"mixed", key_offset, nonce_offset
            )
            items.append((public_key, b"mixed", signature))
    assert verify(items) == [True] * len(items)


# Few enough for tables of odd multiples (to 47), then windows of other widths and odd in number.
@pytest.mark.parametrize("size", [7, 8, 20, 47, 48, 57, 130, 300])
def test_the_bad_ones_of_a_batch_are_found(verify: Verify, size: int) -> None:
    items = [honest(number) for number in range(size)]
    assert verify(items) == [True] * size
    for index in (2, size - 1):
        items[index] = with_response(items[index], 1 + index)
    assert verify(items) == [index not in (2, size - 1) for index in range(size)]


def test_a_flipped_bit_is_noticed(verify: Verify) -> None:
    public_key, message, signature = honest(8)
    items = []
    for position in range(0, 96 * 8, 5):
        damaged = bytearray(public_key + signature)
        damaged[position // 8] ^= 1 << position % 8
        items.append((bytes(damaged[:32]), message, bytes(damaged[32:])))
    assert not any(verify(items))


POOL = [
    *(honest(number) for number in range(6)),
    *((key, b"Zcash", key + bytes(32)) for key in SMALL_ORDER_ENCODINGS[:6]),
    *((key, b"edge", bytes(64)) for key in EDGE_ENCODINGS),
    (NO_POINT, b"no point", bytes(64)),
    (honest(1)[0], b"no point", NO_POINT + bytes(32)),
    with_response(honest(2), 1),
    (honest(3)[0], b"another message", honest(3)[2]),
]


@given(items=st.lists(st.sampled_from(POOL), min_size=1, max_size=40))
@settings(max_examples=40, deadline=None)
def test_a_batch_answers_as_one_by_one(emulated: Library, items: list[Signed]) -> None:
    assert emulated.verify(items, b"mixed") == singles(items)


@given(st.lists(st.tuples(st.sampled_from(EDGES), st.sampled_from(EDGES)), min_size=5, max_size=5))
@settings(max_examples=60, deadline=None)
def test_what_the_rule_takes_for_a_point_is_one(
    emulated: Library, limbs: list[tuple[int, int]]
) -> None:
    for choice in (0, 1):
        number = sum(limb[choice] << 51 * place for place, limb in enumerate(limbs))
        key = (number | choice << 255).to_bytes(32, "little")
        # With one place to keep a key in, it is known when it comes again exactly if it is a point.
        known = emulated.keys_known([[(key, b"", bytes(64))]] * 2, b"edge")
        assert bool(known) == (reference.decode(key) is not None)


@pytest.mark.parametrize("flags", [compiling.EMULATED_IFMA, ["-DASSAY_CHECK_LIMBS"]])
def test_eight_lanes_are_exact_at_the_bounds_of_their_limbs(
    tmp_path: Path, flags: list[str]
) -> None:
    if flags != compiling.EMULATED_IFMA and "ifma" not in ed25519.engines():
        pytest.skip("this processor has no AVX-512 IFMA")
    sources = [str(compiling.HERE / "ifma_bounds.c")]
    sources += [
        str(compiling.NATIVE / f"{name}.c")
        for name in ("field25519", "edwards25519", "scalar25519")
    ]
    compiling.compile_with(
        [*compiling.SMALL_FUNCTIONS, *compiling.SANITIZERS, *flags, *sources, "-o", "bounds"],
        tmp_path,
    )
    run = subprocess.run(
        [str(tmp_path / "bounds")], capture_output=True, text=True, check=False, timeout=300
    )
    assert (run.returncode, run.stdout) == (0, "right\n"), run.stderr


KERNEL = """
#include "field25519_ifma.h"
LANES_TARGET void kernel(lanes *out, const lanes *a, const lanes *b) { OPERATION; }
"""


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the instructions are those of x86-64")
@pytest.mark.parametrize(
    ("operation", "multiply_adds"),
    # 25 products of two halves, or 15 where the factors are the same; one for the carry times 19.
    [("lanes_multiply(out, a, b)", 25 + 25 + 1), ("(void)b, lanes_square(out, a)", 15 + 15 + 1)],
)
def test_a_product_is_multiply_adds_of_the_processor_and_no_calls(
    tmp_path: Path, operation: str, multiply_adds: int
) -> None:
    (tmp_path / "kernel.c").write_text(KERNEL.replace("OPERATION", operation))
    compiling.compile_with(["-O3", "-std=gnu11", "-S", "kernel.c"], tmp_path)
    text = (tmp_path / "kernel.s").read_text()
    assert len(re.findall(r"\tvpmadd52[lh]uq\t", text)) == multiply_adds
    assert not re.findall(r"\tcall", text)
