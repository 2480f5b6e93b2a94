"""vLLM with its own seeded sampling beside ours."""

import asyncio
import uuid
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from runtime.backend import Asked, Backend
from runtime.benchmark.subjects import PROVIDER, Overhead
from runtime.packages import ModelPackage, ProgressCallback
from runtime.scheduler import Share, Workload
from runtime.vllm_engine.backend import open_backend
from runtime.vllm_engine.rules import RULE_ARGUMENT, rule_words
from runtime.vllm_engine.settings import (
    KV_CACHE_BLOCK_TOKENS,
    MIB,
    Settings,
    kv_cache_bytes,
    kv_token_bytes,
)

OWN: Final = "own"
OWN_LOGPROBS: Final = "own+logprobs"
PUBLIC: Final = "public"
MILLI: Final = 1000
PROMPT_TOKENS_MAX: Final = 128
"""More than a request of `subjects.requests` has."""


def roomy(settings: Settings, package: ModelPackage, in_flight_max: int, tokens: int) -> Settings:
    """With a cache that holds all requests at once, unless the caller gave a size."""
    if settings.kv_cache_mib is not None:
        return settings
    config = package.config()
    blocks = -(-(PROMPT_TOKENS_MAX + tokens) // KV_CACHE_BLOCK_TOKENS) + 1
    needed = in_flight_max * blocks * KV_CACHE_BLOCK_TOKENS * kv_token_bytes(settings, config)
    least = kv_cache_bytes(settings, config)
    return replace(settings, kv_cache_mib=-(-max(needed, least) // MIB))


class VllmSubject:
    """One package in vLLM."""

    variants = (OWN, OWN_LOGPROBS, PUBLIC)
    overheads = (
        Overhead(OWN_LOGPROBS, OWN),
        Overhead(PUBLIC, OWN),
        Overhead(PROVIDER, OWN_LOGPROBS),
        Overhead(PROVIDER, OWN),
    )

    def __init__(
        self,
        package: ModelPackage,
        settings: Settings,
        in_flight_max: int,
        tokens: int,
        progress: ProgressCallback | None = None,
    ) -> None:
        """Raises PackageError, SettingsError."""
        shares = {kind: Share(in_flight_max, 0) for kind in Workload}
        chosen = roomy(settings, package, in_flight_max, tokens)
        self._backend = open_backend(package, chosen, shares, progress)
        self._backend._end_ids = frozenset()  # an output goes on to its length
        self.backend: Backend = self._backend

    async def run(self, variant: str, asked: Sequence[Asked]) -> int:
        """See `Subject.run`."""
        return sum(await asyncio.gather(*(self._one(variant, request) for request in asked)))

    async def _one(self, variant: str, asked: Asked) -> int:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        tokens = asked.sampling.max_output_tokens
        common: dict[str, Any] = {
            "max_tokens": tokens,
            "ignore_eos": True,
            "detokenize": False,
            "output_kind": RequestOutputKind.DELTA,
            "logprobs": 0 if variant == OWN_LOGPROBS else None,
        }
        if variant == PUBLIC:
            rule = rule_words(asked.sampling, asked.seed)
            parameters = SamplingParams(temperature=0.0, extra_args={RULE_ARGUMENT: rule}, **common)
        else:
            temperature = asked.sampling.temperature_milli / MILLI
            seed = int.from_bytes(asked.seed[:4], "little")
            parameters = SamplingParams(temperature=temperature, seed=seed, **common)
        prompt = {"prompt_token_ids": self._backend._tokenizer.encode(asked.input)}
        count = 0
        async for output in self._backend._engine.generate(prompt, parameters, uuid.uuid4().hex):
            count += len(output.outputs[0].token_ids)
        return count
