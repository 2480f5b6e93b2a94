"""The native code under the compiler's address and undefined-behaviour sanitizers."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

HARNESS = Path(__file__).with_name("hostile_input.c")
NATIVE = Path(__file__).resolve().parents[2] / "ext" / "native"
FLAGS = [
    *("-std=gnu11", "-O1", "-g1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"),
    "-DFIELD_INLINE=static __attribute__((noinline, unused))",
]
SEEDS = (1, 2)

COMPILER = shutil.which("cc")


@pytest.fixture(scope="module")
def harness(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if COMPILER is None:
        pytest.skip("no C compiler here")
    program = tmp_path_factory.mktemp("harness") / "hostile_input"
    sources = [str(HARNESS), *map(str, sorted(NATIVE.glob("*.c")))]
    command = [COMPILER, *FLAGS, f"-I{NATIVE}", *sources, "-o", str(program)]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    if "cannot find" in built.stderr and "san" in built.stderr:
        pytest.skip("this compiler comes without the sanitizers' libraries")
    assert built.returncode == 0, built.stderr
    return program


@pytest.mark.parametrize("seed", SEEDS)
def test_damaged_input_is_read_inside_its_bounds(harness: Path, seed: int) -> None:
    run = subprocess.run(
        [str(harness), str(seed)], capture_output=True, text=True, check=False, timeout=120
    )
    assert run.returncode == 0, run.stderr
    counts = re.fullmatch(r"(\d+) accepted, (\d+) refused\n", run.stdout)
    assert counts is not None
    # Both ways through the parser were taken many times.
    assert min(map(int, counts.groups())) > 1000
