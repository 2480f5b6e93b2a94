"""The native code under the compiler's address and undefined-behaviour sanitizers."""

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.ext import vectors

NATIVE = Path(__file__).resolve().parents[2] / "ext" / "native"
FLAGS = [
    *("-std=gnu11", "-O1", "-g1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"),
    # Small functions instead of inlined ones: a checked build of these takes minutes otherwise.
    "-DFIELD_INLINE=static __attribute__((noinline, unused))",
    '-DQUAD_INLINE=static __attribute__((noinline, unused, target("avx2,fma")))',
]
SEEDS = (1, 2)

COMPILER = shutil.which("cc")

Build = Callable[[str], Path]


def compile_with(arguments: list[str], directory: Path) -> None:
    if COMPILER is None:
        pytest.skip("no C compiler here")
    command = [COMPILER, *FLAGS, f"-I{NATIVE}", *arguments]
    built = subprocess.run(command, capture_output=True, text=True, check=False, cwd=directory)
    if "cannot find" in built.stderr and "san" in built.stderr:
        pytest.skip("this compiler comes without the sanitizers' libraries")
    assert built.returncode == 0, built.stderr


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Build:
    """Links a program of this directory with all native code, which is compiled once."""
    directory = tmp_path_factory.mktemp("sanitized")
    sources = sorted(NATIVE.glob("*.c"))
    compile_with(["-c", *map(str, sources)], directory)

    def linked(name: str) -> Path:
        program = directory / name
        if not program.exists():
            objects = [f"{source.stem}.o" for source in sources]
            main = str(Path(__file__).with_name(f"{name}.c"))
            compile_with([main, *objects, "-o", str(program)], directory)
        return program

    return linked


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("program", ["hostile_input", "hostile_tables"])
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
