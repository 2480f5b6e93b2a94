"""Options of the vLLM engine, and the name of the arithmetic they select."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from runtime.model_config import ModelConfig

MIB = 1 << 20
KV_CACHE_MIN_MIB = 256
KV_CACHE_BLOCK_TOKENS = 128
"""vLLM gives cache out in blocks of up to so many tokens; its own spare block is counted too."""


class DataType(StrEnum):
    """Precision of weights and activations; the value is vLLM's word."""

    FLOAT32 = "float32"
    FLOAT16 = "float16"
    BFLOAT16 = "bfloat16"

    @property
    def size_bytes(self) -> int:
        """Bytes of one value."""
        return 4 if self is DataType.FLOAT32 else 2


class Executor(StrEnum):
    """What runs the worker processes of one engine; the value is vLLM's word."""

    SINGLE = "uni"
    PROCESSES = "mp"
    RAY = "ray"


class SettingsError(ValueError):
    """These options cannot serve this package."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How one vLLM engine is run."""

    dtype: DataType = DataType.FLOAT32
    threads: int = 1
    """Of each worker on a CPU; no meaning on a GPU."""
    kv_cache_mib: int | None = None
    """None: what one whole context needs, at least KV_CACHE_MIN_MIB; on a GPU, vLLM's choice."""
    tensor_parallel_size: int = 1
    pipeline_parallel_size: int = 1
    quantization: str | None = None
    compiled: bool = False
    """On a CPU: have vLLM compile the model's graph, which merges roundings. 16-bit results change
    by it as they do between processors; a profile covers both. On a GPU vLLM always does."""
    executor: Executor | None = None
    """None: one process where there is one device, else processes on this machine."""
    max_batched_tokens: int = 1024
    """Tokens of one forward pass. On a GPU a verification's logits take 4 x vocabulary bytes for
    each; our worker on CPUs has `cpu_worker.HEAD_ROWS` rows of them in memory at once."""
    export_directory: Path | None = None

    @property
    def effective_executor(self) -> Executor:
        """The executor that is used."""
        if self.executor is not None:
            return self.executor
        devices = self.tensor_parallel_size * self.pipeline_parallel_size
        return Executor.SINGLE if devices == 1 else Executor.PROCESSES


def profile_name(settings: Settings, vllm_version: str, platform: str) -> str:
    """The engine profile: engine and version class, device kind, and what else changes bits.

    Two machines of one profile agree within the tolerance that was calibrated for it.
    """
    version = ".".join(vllm_version.split("+", maxsplit=1)[0].split(".")[:2])
    parts = [
        f"vllm-{version}",
        platform,
        settings.dtype.value,
        f"tp{settings.tensor_parallel_size}",
        f"pp{settings.pipeline_parallel_size}",
    ]
    if settings.quantization is not None:
        parts.append(settings.quantization)
    return "/".join(parts)


def environment(settings: Settings) -> dict[str, str]:
    """What vLLM reads from the environment when it is imported; an operator's own values win."""
    return {
        # One process for the engine core instead of two, where there is one device.
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "OMP_NUM_THREADS": str(settings.threads),
        # Standard output is for our own events.
        "VLLM_LOGGING_STREAM": "ext://sys.stderr",
        "VLLM_LOGGING_LEVEL": "WARNING",
        # Nothing is fetched, nothing is told to anybody.
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
    }


def check_quantization_option(settings: Settings, manifest_quantization: str) -> None:
    """Refuse to quantize other than the manifest says. Raises SettingsError."""
    asked = settings.quantization
    if asked is not None and asked.lower() != manifest_quantization.lower():
        raise SettingsError(
            f"--quantization is {asked}, the package's manifest says {manifest_quantization}; "
            "leave the option out, or pack the quantized weights as a model of their own"
        )


def kv_token_bytes(settings: Settings, config: ModelConfig) -> int:
    """What a token takes in the key-value cache of one worker."""
    kv_heads = -(-config.kv_heads // settings.tensor_parallel_size)
    layers = -(-config.layers // settings.pipeline_parallel_size)
    return 2 * layers * kv_heads * config.head_width * settings.dtype.size_bytes


def kv_cache_bytes(settings: Settings, config: ModelConfig) -> int:
    """Size of the key-value cache on a CPU. Raises SettingsError if one context does not fit.

    `kv_cache_mib` is of one worker, as vLLM counts.
    """
    tokens = config.context_tokens + 2 * KV_CACHE_BLOCK_TOKENS
    needed = kv_token_bytes(settings, config) * tokens
    needed_mib = -(-needed // MIB)
    if settings.kv_cache_mib is None:
        return max(needed_mib, KV_CACHE_MIN_MIB) * MIB
    if settings.kv_cache_mib < needed_mib:
        raise SettingsError(
            f"--kv-cache-mib is {settings.kv_cache_mib}; a context of {config.context_tokens} "
            f"tokens in {settings.dtype.value} needs {needed_mib}"
        )
    return settings.kv_cache_mib * MIB
