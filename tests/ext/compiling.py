"""How the tests compile native code of their own, or the product's in another way."""

import shutil
import subprocess
from pathlib import Path

import pytest

NATIVE = Path(__file__).resolve().parents[2] / "ext" / "native"
HERE = Path(__file__).resolve().parent
# Small functions instead of inlined ones: a checked build of these takes minutes otherwise.
SMALL_FUNCTIONS = [
    *("-std=gnu11", "-O1", "-DASSAY_SMALL_FUNCTIONS"),
    "-DFIELD_INLINE=static __attribute__((noinline, unused))",
]
SANITIZERS = ["-g1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
# The eight lanes of AVX-512, on any processor, checking the bounds they rely on.
EMULATED_IFMA = ["-DASSAY_IFMA_EMULATED", "-DASSAY_CHECK_LIMBS"]

COMPILER = shutil.which("cc")


def compile_with(arguments: list[str], directory: Path) -> None:
    """Run the C compiler in ``directory``; skips the test where there is none, or no sanitizers."""
    if COMPILER is None:
        pytest.skip("no C compiler here")
    command = [COMPILER, f"-I{NATIVE}", f"-I{HERE}", *arguments]
    built = subprocess.run(command, capture_output=True, text=True, check=False, cwd=directory)
    if "cannot find" in built.stderr and "san" in built.stderr:
        pytest.skip("this compiler comes without the sanitizers' libraries")
    assert built.returncode == 0, built.stderr
