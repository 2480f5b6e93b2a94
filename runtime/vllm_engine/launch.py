"""Starting vLLM. Importing this module imports vLLM, which reads its environment then."""

import os
from pathlib import Path
from typing import Any, Final

import vllm
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.exceptions import VLLMClientError
from vllm.platforms import current_platform
from vllm.sampling_params import RequestOutputKind, SamplingParams
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError
from vllm.v1.executor.ray_utils import ray_is_available

from runtime.model_config import MAX_END_TOKENS, ModelConfig
from runtime.sampling import CANDIDATES
from runtime.vllm_engine import processor
from runtime.vllm_engine.export import SPARE_POSITIONS
from runtime.vllm_engine.first_row import FIRST_ROW_ARGUMENT
from runtime.vllm_engine.rules import RULE_ARGUMENT
from runtime.vllm_engine.settings import (
    Executor,
    Settings,
    SettingsError,
    kv_cache_bytes,
    profile_name,
)

ENGINE_ERRORS: Final = (EngineDeadError, EngineGenerateError, VLLMClientError, ValueError)
"""What a request may end with when it is not its caller's doing."""
CPU: Final = "cpu"
CPU_WORKER: Final = "runtime.vllm_engine.cpu_worker.WideningWorker"
"""By name: vLLM imports it in the worker's process."""


def profile_of(settings: Settings) -> str:
    """The engine profile of these settings on this machine."""
    return profile_name(settings, vllm.__version__, current_platform.device_type)


def engine_config(
    settings: Settings, config: ModelConfig, directory: Path, requests_max: int
) -> Any:
    """vLLM's whole configuration. Raises SettingsError."""
    on_cpu = current_platform.device_type == CPU
    if on_cpu and not settings.compiled:
        # The engine core would compile, with the machine's C++ compiler, a rank we do not use.
        os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")
    cache_bytes = None
    if on_cpu or settings.kv_cache_mib is not None:
        cache_bytes = kv_cache_bytes(settings, config)
    arguments = AsyncEngineArgs(
        model=str(directory),
        skip_tokenizer_init=True,
        load_format="safetensors",
        generation_config="vllm",
        dtype=settings.dtype.value,
        quantization=settings.quantization,
        max_model_len=config.context_tokens + SPARE_POSITIONS,
        max_num_seqs=requests_max,
        max_num_batched_tokens=max(settings.max_batched_tokens, requests_max),
        kv_cache_memory_bytes=cache_bytes,
        # A result must not depend on what was asked before it.
        enable_prefix_caching=False,
        enforce_eager=on_cpu and not settings.compiled,
        logprobs_mode="raw_logprobs",
        max_logprobs=CANDIDATES + 1 + MAX_END_TOKENS,
        tensor_parallel_size=settings.tensor_parallel_size,
        pipeline_parallel_size=settings.pipeline_parallel_size,
        distributed_executor_backend=executor_of(settings, on_cpu),
        logits_processors=[processor.NAME],
        worker_cls=CPU_WORKER if on_cpu else "auto",
        disable_log_stats=True,
        seed=0,
    )
    try:
        chosen = arguments.create_engine_config()
    except ValueError as error:
        raise SettingsError(f"vLLM refuses these options: {error}") from error
    if chosen.use_v2_model_runner:
        from runtime.vllm_engine import processor_v2

        chosen.model_config.logits_processors = [processor_v2.NAME]
    return chosen


def executor_of(settings: Settings, on_cpu: bool) -> Any:
    """vLLM's word for what runs the workers, or a class. Raises SettingsError."""
    executor = settings.effective_executor
    if executor is Executor.RAY and not ray_is_available():
        raise SettingsError(
            "--distributed-executor-backend is ray, and this Python has no Ray; "
            "install requirements/ray-py311.txt in vLLM's environment"
        )
    if executor is Executor.RAY and on_cpu:
        from runtime.vllm_engine.ray_on_cpu import CpuRayExecutor

        return CpuRayExecutor
    return executor.value


def launch(chosen: Any) -> AsyncLLM:
    """Start the engine core and load the model; call it on the event loop that will use it.

    The engine core is a new process that imports the main module first. That must not import
    numba: vLLM looks through all loaded modules then, and fails on llvmlite's.
    """
    return AsyncLLM.from_vllm_config(chosen)


def generation_parameters(rule: list[int], max_tokens: int, end_ids: list[int]) -> SamplingParams:
    """Parameters of a generation by our rule; each output brings the new tokens only."""
    return SamplingParams(
        temperature=0.0,
        max_tokens=max_tokens,
        logprobs=0,
        stop_token_ids=end_ids,
        ignore_eos=True,
        detokenize=False,
        output_kind=RequestOutputKind.DELTA,
        extra_args={RULE_ARGUMENT: rule},
    )


def prefill_parameters(greatest: int, first_row: int) -> SamplingParams:
    """Parameters of one prefill that returns each token's log-probability and as many of the
    greatest.

    Our worker leaves out the tokens before `first_row`; where vLLM's own runs, they come along.
    """
    return SamplingParams(
        temperature=0.0,
        max_tokens=1,
        prompt_logprobs=greatest,
        flat_logprobs=True,
        ignore_eos=True,
        detokenize=False,
        output_kind=RequestOutputKind.FINAL_ONLY,
        extra_args={FIRST_ROW_ARGUMENT: first_row},
    )
