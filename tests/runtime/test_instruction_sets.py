"""The promise of the reference engine: the same bits from SSE2, AVX2 and AVX-512 code.

Kernels are compiled for this machine's processor, as everywhere, and for levels below its own: a
generic x86-64, and AVX2 where the processor has more. With ASSAY_EVERY_LEVEL=1, as `make soak`
does, for every level there is. Compiling for a level takes 40 s of a core the first time.
"""

import os
import platform
from typing import Any

import pytest
from llvmlite import binding

from tests.runtime.instruction_sets import (
    COMPILE_TIMEOUT_S,
    LEVELS,
    OWN,
    finish,
    start,
)

pytestmark = [
    pytest.mark.skipif(platform.machine() != "x86_64", reason="levels of x86-64"),
    pytest.mark.timeout(4 * COMPILE_TIMEOUT_S),
]
EVERY_LEVEL = os.environ.get("ASSAY_EVERY_LEVEL") == "1"
NEEDED = {"x86-64": "sse2", "x86-64-v2": "sse4.2", "x86-64-v3": "avx2", "x86-64-v4": "avx512vl"}
REGISTERS = {"x86-64": "xmm", "x86-64-v2": "xmm", "x86-64-v3": "ymm"}
CHOSEN = ("x86-64", "x86-64-v3")
"""SSE4.2 has the registers of SSE2."""


@pytest.fixture(scope="module")
def available() -> list[str]:
    features = binding.get_host_cpu_features()
    return [level for level in LEVELS if features.get(NEEDED[level])]


@pytest.fixture(scope="module")
def results(available: list[str]) -> dict[str, Any]:
    """By level, what the engine gave with one and with two threads. Two compile at a time."""
    below = [level for level in available[:-1] if level in CHOSEN]
    levels = [OWN, *(available if EVERY_LEVEL else below)]
    found: dict[str, Any] = {}
    for first in range(0, len(levels), 2):
        pair = levels[first : first + 2]
        processes = [start(level, ["1", "2"]) for level in pair]
        for level, process in zip(pair, processes, strict=True):
            found[level] = finish(process)
    return found


def test_logits_completions_and_scores_are_the_same_bits_on_every_level(
    results: dict[str, Any], available: list[str]
) -> None:
    assert available[:3] == list(LEVELS[:3]), "needs a CPU with AVX2"
    digests = [given for found in results.values() for given in found["digests"].values()]
    assert len(digests) == 2 * len(results) >= 4 and len(digests[0]) == 8
    assert all(given == digests[0] for given in digests)
    assert len(set(digests[0].values())) == 8


def test_the_levels_really_differ_in_code(results: dict[str, Any]) -> None:
    found = {level: result["register"] for level, result in results.items() if level != OWN}
    assert found == {level: REGISTERS.get(level, register) for level, register in found.items()}
    assert results[OWN]["register"] in {"ymm", "zmm"}
    assert results["x86-64"]["register"] == "xmm"


def test_avx512_was_among_them(available: list[str]) -> None:
    """This machine's own code is then AVX-512."""
    if "x86-64-v4" not in available:
        pytest.skip("this CPU has no AVX-512")
