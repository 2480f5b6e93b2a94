"""Options of the vLLM engine: what they need, and how results name them."""

import pytest

from runtime.model_config import ModelConfig
from runtime.packages import ModelPackage
from runtime.vllm_engine.settings import (
    KV_CACHE_MIN_MIB,
    MIB,
    DataType,
    Executor,
    Settings,
    SettingsError,
    environment,
    kv_cache_bytes,
    profile_name,
)
from tests.runtime.tiny_model import tiny_package

PROFILE_BYTES_MAX = 128
"""What a transaction has room for."""


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> ModelConfig:
    package: ModelPackage = tiny_package(tmp_path_factory.mktemp("packages"))
    return package.config()


def test_the_profile_names_all_that_changes_numbers() -> None:
    plain = Settings()
    assert profile_name(plain, "0.32.0+cpu", "cpu") == "vllm-0.32/cpu/float32/tp1/pp1"
    others = [
        Settings(dtype=DataType.BFLOAT16),
        Settings(tensor_parallel_size=2),
        Settings(pipeline_parallel_size=2),
        Settings(quantization="fp8"),
    ]
    names = {profile_name(settings, "0.32.0", "cpu") for settings in [plain, *others]}
    names |= {profile_name(plain, "0.33.1", "cpu"), profile_name(plain, "0.32.0", "cuda")}
    assert len(names) == 7
    assert all(len(name.encode()) <= PROFILE_BYTES_MAX for name in names)


def test_a_patch_release_is_the_same_profile() -> None:
    assert profile_name(Settings(), "0.32.0", "cpu") == profile_name(Settings(), "0.32.7", "cpu")


def test_the_cache_holds_one_whole_context_and_some(config: ModelConfig) -> None:
    assert kv_cache_bytes(Settings(), config) == KV_CACHE_MIN_MIB * MIB
    token_bytes = 2 * config.layers * config.kv_heads * config.head_width * 4
    assert kv_cache_bytes(Settings(kv_cache_mib=1), config) == MIB
    assert token_bytes * config.context_tokens < MIB


def test_a_cache_too_small_for_one_context_is_refused(config: ModelConfig) -> None:
    object.__setattr__(config, "context_tokens", 4096)
    with pytest.raises(SettingsError, match=r"--kv-cache-mib is 1; a context of 4096 tokens"):
        kv_cache_bytes(Settings(kv_cache_mib=1), config)
    half = kv_cache_bytes(Settings(kv_cache_mib=2, dtype=DataType.BFLOAT16), config)
    assert half == 2 * MIB


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (Settings(), Executor.SINGLE),
        (Settings(tensor_parallel_size=2), Executor.PROCESSES),
        (Settings(pipeline_parallel_size=2), Executor.PROCESSES),
        (Settings(tensor_parallel_size=16, executor=Executor.RAY), Executor.RAY),
    ],
)
def test_several_devices_need_several_processes(settings: Settings, expected: Executor) -> None:
    assert settings.effective_executor is expected


def test_vllm_keeps_off_the_network_and_off_standard_output() -> None:
    told = environment(Settings(threads=3))
    assert told["HF_HUB_OFFLINE"] == "1"
    assert told["VLLM_NO_USAGE_STATS"] == "1"
    assert told["VLLM_LOGGING_STREAM"] == "ext://sys.stderr"
    assert told["OMP_NUM_THREADS"] == "3"
