"""vLLM's Ray executor on machines without accelerators.

vLLM refuses Ray on its CPU platform for one reason only: the platform has no name for what Ray
counts. Here a worker takes one unit of what Ray calls a GPU, so a node started with
`ray start --num-gpus=N` has room for N workers, whatever is in it.

The classes go to Ray by name, so that each of its processes imports this module.
"""

from typing import Final

from vllm.platforms import current_platform
from vllm.v1.executor import ray_executor_v2

from runtime.vllm_engine.replaced import replaced

UNIT: Final = "GPU"


class CpuRayWorker(ray_executor_v2.RayWorkerProc):  # type: ignore[misc]  # vLLM has no types
    """A worker process that Ray runs on a CPU."""

    def get_node_and_physical_gpu_ids(self) -> tuple[str, list[int]]:
        """Which node this is, and which units Ray has given to the worker."""
        with replaced(current_platform, "ray_device_key", UNIT):
            found: tuple[str, list[int]] = super().get_node_and_physical_gpu_ids()
        return found


class CpuRayExecutor(ray_executor_v2.RayExecutorV2):  # type: ignore[misc]
    """vLLM's own executor, with workers for CPUs."""

    def _init_executor(self) -> None:
        with (
            replaced(current_platform, "ray_device_key", UNIT),
            replaced(ray_executor_v2, "RayWorkerProc", CpuRayWorker),
        ):
            super()._init_executor()
