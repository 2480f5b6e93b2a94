"""The native code under the compiler's address and undefined-behaviour sanitizers."""

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.ext import compiling, vectors

FLAGS = [*compiling.SMALL_FUNCTIONS, *compiling.SANITIZERS, *compiling.EMULATED_IFMA]
SEEDS = range(1, 9 if os.environ.get("ASSAY_MORE_SEEDS") == "1" else 2)
"""The same bytes come of a seed each time: `make soak` tries more of them."""

Build = Callable[[str], Path]


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Build:
    """Links a program of this directory with all native code, which is compiled once."""
    directory = tmp_path_factory.mktemp("sanitized")
    sources = sorted(compiling.NATIVE.glob("*.c"))
    compiling.compile_with([*FLAGS, "-c", *map(str, sources)], directory)

    def linked(name: str) -> Path:
        program = directory / name
        if not program.exists():
            objects = [f"{source.stem}.o" for source in sources]
            main = str(compiling.HERE / f"{name}.c")
            compiling.compile_with([*FLAGS, main, *objects, "-o", str(program)], directory)
        return program

    return linked


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("program", ["hostile_input", "hostile_jobs", "hostile_tables"])
def test_damaged_input_is_read_inside_its_bounds(build: Build, program: str, seed: int) -> None:
    run = subprocess.run(
        [str(build(program)), str(seed)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert run.returncode == 0, run.stderr
    counts = re.fullmatch(r"(\d+) accepted, (\d+) refused\n", run.stdout)
    assert counts is not None
    # Both ways through the parser were taken many times.
    assert min(map(int, counts.groups())) > 1000


def test_the_signature_vectors_pass_under_the_sanitizers(build: Build) -> None:
    cases = [*vectors.RFC_8032, *vectors.speccheck(), *vectors.wycheproof()]
    lines = [
        f"{case.public_key.hex()} {case.message.hex() or '-'} {case.signature.hex()} "
        f"{int(case.accepted)}\n"
        for case in cases
        if len(case.signature) == 64
    ]
    run = subprocess.run(
        [str(build("ed25519_vectors"))],
        input="".join(lines),
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout == f"{len(lines)} right\n"


def test_four_lanes_are_exact_at_the_bounds_of_their_limbs(build: Build) -> None:
    program = str(build("quad_bounds"))
    run = subprocess.run([program], capture_output=True, text=True, check=False, timeout=120)
    assert (run.returncode, run.stdout) == (0, "right\n"), run.stderr
