"""Run the reference engine in a process of its own, compiled for a given x86-64 level.

    python -m tests.runtime.instruction_sets THREADS...

prints one JSON object: digests of what the engine computes with each number of threads, and the
widest vector register its products use. The level is set by numba's own environment variables.
"""

import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
LEVELS = ("x86-64", "x86-64-v2", "x86-64-v3", "x86-64-v4")
"""SSE2, SSE4.2, AVX2 with FMA, AVX-512: LLVM's names of the levels of the x86-64 psABI."""
OWN = "own"
"""All that this machine's processor has, as numba compiles when it is told nothing."""
COMPILE_TIMEOUT_S = 900


def start(level: str, arguments: Sequence[str]) -> "subprocess.Popen[str]":
    """A process whose kernels are compiled for `level`; they are kept between runs."""
    numba = {
        "NUMBA_CPU_NAME": level,
        "NUMBA_CPU_FEATURES": "",
        "NUMBA_CACHE_DIR": str(REPOSITORY / ".cache" / f"numba-{level}"),
    }
    return subprocess.Popen(
        [sys.executable, "-m", "tests.runtime.instruction_sets", *arguments],
        cwd=REPOSITORY,
        env=os.environ | (numba if level != OWN else {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: "subprocess.Popen[str]") -> dict[str, Any]:
    """What the process printed."""
    output, errors = process.communicate(timeout=COMPILE_TIMEOUT_S)
    if process.returncode:
        raise RuntimeError(f"exit status {process.returncode}: {errors[-2000:]}")
    found: dict[str, Any] = json.loads(output)
    return found


def _widest_register() -> str:
    from numba import njit, types

    from tests.runtime.test_forward import multiply_block

    dispatcher = njit(nogil=True, error_model="numpy")(multiply_block)
    dispatcher.compile((types.float32[::1],) * 3)
    (code,) = dispatcher.inspect_asm().values()
    if re.search(r"\bvfn?m(add|sub)", code):
        raise RuntimeError("a multiplication is fused with an addition")
    return next(name for name in ("zmm", "ymm", "xmm") if name in code)


def _digests(threads: int, folder: Path) -> dict[str, str]:

    from runtime.engine import SamplingRule
    from runtime.reference.engine import ReferenceEngine
    from tests.runtime.test_reference_engine import run
    from tests.runtime.tiny_model import TinyModel, tiny_package

    found = {}
    shapes = {
        "plain": TinyModel(),
        "qwen2": TinyModel(bias=True, tied=True),
        "qwen3": TinyModel(qk_norm=True),
        "packed": TinyModel(width=64, heads=4, feed_width=96, stored_as_q8=True),
    }
    for name, shape in shapes.items():
        place = folder / f"{name}-{threads}"
        place.mkdir()
        engine = ReferenceEngine.load(tiny_package(place, shape), threads)
        prompt = [(37 * index) % 261 for index in range(60)]
        logits = engine._model.extend(engine._model.sequence(60), prompt, 0)
        found[f"{name} logits"] = hashlib.sha256(logits.tobytes()).hexdigest()
        claims = []
        for milli in (0, 800, 1200):
            rule = SamplingRule(milli, 0, 950 if milli else 0, 24)
            claim = run(engine.generate(prompt, rule, bytes(range(32))))
            found_back = run(engine.verify(prompt, rule, bytes(range(32)), claim, (0, 1)))
            claims.append((claim, found_back))
        found[f"{name} claims"] = hashlib.sha256(repr(claims).encode()).hexdigest()
        engine.close()
    return found


def _main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        digests = {threads: _digests(int(threads), Path(folder)) for threads in sys.argv[1:]}
    print(json.dumps({"register": _widest_register(), "digests": digests}))


if __name__ == "__main__":
    _main()
