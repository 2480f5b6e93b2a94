"""vLLM as a real process, one a precision for a file, and the reference engine to judge it.

vLLM lives in an environment of its own: ASSAY_TORCH_PYTHON names its Python. Without it these tests
are skipped, or fail where ASSAY_REQUIRE_VLLM=1.
"""

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from runtime.packages import ModelPackage
from runtime.reference.engine import ReferenceEngine
from tests.conftest import REPOSITORY

START_BOUND_S = 560.0
"""vLLM alone takes half a minute of one free core, and kernels may be compiled."""
STOP_BOUND_S = 120.0
CHECKS_BOUND_S = 250.0
WHOLE_RUN_BOUND_S = 600.0
"""A minute of two free cores."""
STALL_S = 10.0
RUNNING_LIMIT = 8
QUEUE_LIMIT = 8
PASS_TOKENS = 256
"""Of one forward pass in float32: what takes several passes takes seconds, not a minute."""
EXPORTS = REPOSITORY / ".cache" / "vllm"


@dataclass(frozen=True, slots=True)
class Served:
    """A runtime process with vLLM in it."""

    target: str
    process: psutil.Process
    package: ModelPackage

    def engine_core(self) -> psutil.Process:
        """vLLM's own process, which holds the model."""
        for child in self.process.children(recursive=True):
            if "EngineCore" in " ".join(child.cmdline()) or "EngineCore" in child.name():
                return child
        raise AssertionError("the runtime has no engine core")


def torch_python() -> str:
    """The Python that has vLLM; skips or fails the test where there is none."""
    interpreter = os.environ.get("ASSAY_TORCH_PYTHON")
    if interpreter:
        return interpreter
    why = "ASSAY_TORCH_PYTHON names no Python with vLLM"
    if os.environ.get("ASSAY_REQUIRE_VLLM") == "1":
        pytest.fail(why)
    pytest.skip(why)


def in_torch_python(*arguments: str) -> list[str]:
    """The command line of a Python program of ours in vLLM's environment."""
    return [torch_python(), *arguments]


def environment() -> dict[str, str]:
    """This process's, with the checkout on the path."""
    return {**os.environ, "PYTHONPATH": str(REPOSITORY)}


def run_in_torch_python(*arguments: str) -> tuple[int, str, str]:
    """(exit code, output, errors) of a program; none of its processes outlives it."""
    with subprocess.Popen(
        in_torch_python(*arguments),
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            output, errors = process.communicate(timeout=WHOLE_RUN_BOUND_S)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        return process.returncode, output, errors


def run_checks_in_torch_python(script: Path) -> dict[str, str]:
    """Run a script of checks where vLLM is; what went wrong in each, empty where nothing did."""
    result = subprocess.run(
        in_torch_python(str(script)),
        cwd=REPOSITORY,
        env={
            **environment(),
            "VLLM_LOGGING_LEVEL": "ERROR",
            "OMP_NUM_THREADS": "1",
            "TORCHDYNAMO_DISABLE": "1",
        },
        capture_output=True,
        text=True,
        timeout=CHECKS_BOUND_S,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-4000:]
    outcome: dict[str, str] = json.loads(result.stdout.splitlines()[-1])
    return outcome


@contextmanager
def vllm_process(package: ModelPackage, folder: Path, *options: str) -> Iterator[Served]:
    """A runtime that has produced a token; ends it afterwards, and all it started."""
    port_file, log = folder / "port", folder / "log"
    arguments = ["-m", "runtime", "serve", "--engine", "vllm", "--model", str(package.path)]
    arguments += ["--export-directory", str(EXPORTS), "--port-file", str(port_file), "--json"]
    arguments += ["--running-limit", str(RUNNING_LIMIT), "--queue-limit", str(QUEUE_LIMIT)]
    arguments += ["--stall-s", str(STALL_S), *options]
    with log.open("wb") as stream:
        started = subprocess.Popen(
            in_torch_python(*arguments), env=environment(), stdout=stream, stderr=stream
        )
    process = psutil.Process(started.pid)
    try:
        ends_s = time.monotonic() + START_BOUND_S
        while b'"ready"' not in log.read_bytes():
            assert started.poll() is None, log.read_text(errors="replace")[-4000:]
            assert time.monotonic() < ends_s, log.read_text(errors="replace")[-4000:]
            time.sleep(0.1)
        yield Served(f"127.0.0.1:{int(port_file.read_text())}", process, package)
    finally:
        children = process.children(recursive=True) if started.poll() is None else []
        started.terminate()
        try:
            started.wait(STOP_BOUND_S)
        finally:
            started.kill()
            _, alive = psutil.wait_procs(children, timeout=STOP_BOUND_S)
            for child in alive:
                child.kill()
            assert not alive, "the runtime left processes behind"


@pytest.fixture(scope="module")
def float32(
    smollm2_package: ModelPackage, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    """vLLM in float32."""
    options = ("--max-batched-tokens", str(PASS_TOKENS))
    with vllm_process(smollm2_package, tmp_path_factory.mktemp("float32"), *options) as served:
        yield served


@pytest.fixture(scope="module")
def bfloat16(
    smollm2_package: ModelPackage, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    """vLLM in bfloat16."""
    folder = tmp_path_factory.mktemp("bfloat16")
    with vllm_process(smollm2_package, folder, "--dtype", "bfloat16") as served:
        yield served


@pytest.fixture(scope="module")
def reference(smollm2_package: ModelPackage) -> Iterator[ReferenceEngine]:
    """The reference engine on the same package."""
    engine = ReferenceEngine.load(smollm2_package, threads=1)
    yield engine
    engine.close()
