"""vLLM on Ray: a real cluster of one node on the loopback address, and the real model on it.

Ray is no part of the pins for CPUs; where it is not installed beside vLLM these tests are skipped,
or fail where ASSAY_REQUIRE_RAY=1.
"""

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from chain.runtime_client import RuntimeClient
from runtime.packages import ModelPackage
from runtime.reference.engine import ReferenceEngine
from tests.runtime.vllm.asking import CALL_BOUND_S, ask, judged, results_of
from tests.runtime.vllm.conftest import Served, environment, in_torch_python, vllm_process

LOOPBACK = "127.0.0.1"
LOOPBACK_ONLY = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "VLLM_HOST_IP": LOOPBACK}
"""Ray listens on all of a machine's addresses, unless it is as on a system that has no clusters."""
CLUSTER_BOUND_S = 240.0
OBJECT_STORE_BYTES = 100 << 20
DISTANCE_MAX = 400
"""4e-4 nats, as between vLLM without Ray and the reference engine."""

pytestmark = pytest.mark.timeout(900)


def require_ray() -> None:
    found = subprocess.run(in_torch_python("-c", "import ray"), capture_output=True, check=False)
    if found.returncode != 0:
        why = "Ray is not installed beside vLLM (requirements/ray-py311.txt)"
        if os.environ.get("ASSAY_REQUIRE_RAY") == "1":
            pytest.fail(why)
        pytest.skip(why)


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind((LOOPBACK, 0))
        port: int = taken.getsockname()[1]
        return port


def reachable(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((LOOPBACK, port), 1.0):
        return True
    return False


@dataclass(frozen=True, slots=True)
class Cluster:
    """Ray on this machine."""

    address: str
    head: psutil.Process

    def processes(self) -> list[psutil.Process]:
        """All that Ray has started, workers too."""
        return self.head.children(recursive=True)

    def end(self) -> None:
        """End Ray at once; asked politely it waits half a minute for work to drain."""
        with contextlib.suppress(psutil.NoSuchProcess):
            for process in [*self.processes(), self.head]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A Ray cluster of one node, which has room for two workers."""
    require_ray()
    # Ray's sockets lie in its folder, and their paths may have 107 bytes.
    folder = Path(tempfile.mkdtemp(prefix="ray-"))
    port = free_port()
    options = ["--head", "--block", f"--node-ip-address={LOOPBACK}", f"--port={port}"]
    options += [f"--ray-client-server-port={free_port()}", "--include-dashboard=false"]
    options += ["--num-gpus=2", "--num-cpus=1", "--disable-usage-stats", f"--temp-dir={folder}"]
    options += [f"--object-store-memory={OBJECT_STORE_BYTES}"]
    log = folder / "start.log"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            in_torch_python("-m", "ray.scripts.scripts", "start", *options),
            env={**environment(), **LOOPBACK_ONLY},
            stdout=stream,
            stderr=stream,
        )
    started = Cluster(f"{LOOPBACK}:{port}", psutil.Process(process.pid))
    try:
        ends_s = time.monotonic() + CLUSTER_BOUND_S
        while b"Ray runtime started" not in log.read_bytes() or not reachable(port):
            assert process.poll() is None, log.read_text(errors="replace")[-4000:]
            assert time.monotonic() < ends_s, log.read_text(errors="replace")[-4000:]
            time.sleep(0.2)
        yield started
    finally:
        started.end()
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def served(
    cluster: Cluster, smollm2_package: ModelPackage, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    """vLLM in float32, its worker on the cluster."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**LOOPBACK_ONLY, "RAY_ADDRESS": cluster.address}.items():
            patch.setenv(name, value)
        folder = tmp_path_factory.mktemp("ray")
        with vllm_process(
            smollm2_package, folder, "--distributed-executor-backend", "ray"
        ) as process:
            yield process


async def test_a_result_from_ray_is_the_rules_own_and_ray_confirms_it(
    served: Served, reference: ReferenceEngine
) -> None:
    request = ask(served, "Tell me a story about a smith who tests gold.", temperature_milli=800)
    (result,) = await results_of(served, [request])
    assert result.engine_profile == "vllm-0.32/cpu/float32/tp1/pp1"
    ours = judged(reference, request, result).scores
    async with RuntimeClient(served.target) as client:
        theirs = (await client.verify(request, result, [0], CALL_BOUND_S)).scores
    for scores in (ours, theirs):
        assert scores.positions == len(result.token_ids) > 1
        assert scores.replay_mismatches == scores.margin_sum == 0
        assert scores.distance_max <= DISTANCE_MAX
        assert scores.finish_plausible
        assert scores.text_matches


def test_the_model_is_in_a_worker_of_the_cluster(cluster: Cluster, served: Served) -> None:
    workers = [process for process in cluster.processes() if is_worker(process)]
    assert len(workers) == 1
    assert workers[0].memory_info().rss > served.engine_core().memory_info().rss


def is_worker(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return "CpuRayWorker" in " ".join(process.cmdline())
    return False
