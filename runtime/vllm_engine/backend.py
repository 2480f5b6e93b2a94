"""One package served by vLLM, behind the interface of the service."""

import asyncio
import os
import time
import uuid
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np

from runtime.backend import PROBE, Asked, EngineDeadError, Event, Started
from runtime.detokenizer import EndRules
from runtime.engine import (
    Completion,
    InferenceInput,
    RequestError,
    RequestReason,
    SamplingRule,
    Scores,
    Verification,
)
from runtime.model_config import ModelConfig
from runtime.packages import ModelPackage, ProgressCallback
from runtime.replay import REPLAY_COLUMNS
from runtime.sampling import rule_array
from runtime.scheduler import (
    JobExpiredError,
    JobFailedError,
    Load,
    SchedulerStoppedError,
    Share,
    Workload,
)
from runtime.scoring import (
    ClaimShape,
    check_positions,
    claim_shape,
    fingerprint,
    score,
    score_ending,
)
from runtime.sources import TEMPLATE_NAME, TOKENIZER_NAME
from runtime.tokenizer import PackageTokenizer
from runtime.vllm_engine.export import export
from runtime.vllm_engine.gate import Gate, seconds_left
from runtime.vllm_engine.output import Output
from runtime.vllm_engine.replay import greatest_needed, replay_returned
from runtime.vllm_engine.rules import rule_words
from runtime.vllm_engine.settings import Settings, check_quantization_option, environment

SHUTDOWN_TIMEOUT_S = 5.0
"""After which vLLM kills an engine core that has not ended."""


def open_backend(
    package: ModelPackage,
    settings: Settings,
    shares: Mapping[Workload, Share],
    progress: ProgressCallback | None = None,
) -> "VllmBackend":
    """Check and export a package, and get ready to start vLLM for it.

    Raises PackageError for a package vLLM can't serve as its manifest says, SettingsError.
    """
    check_quantization_option(settings, package.manifest.quantization)
    directory = export(package, settings.export_directory, progress)
    for name, value in environment(settings).items():
        os.environ.setdefault(name, value)
    return VllmBackend(package, settings, directory, shares)


class VllmBackend:
    """AsyncLLM with our bounds, sampling rule, texts and scores."""

    def __init__(
        self,
        package: ModelPackage,
        settings: Settings,
        directory: Path,
        shares: Mapping[Workload, Share],
    ) -> None:
        from runtime.vllm_engine import launch

        self._vllm = launch
        self._package = package
        self._config: ModelConfig = package.config()
        self._end_ids = frozenset(self._config.end_token_ids)
        self._tokenizer = PackageTokenizer(
            package.file_bytes(TOKENIZER_NAME),
            package.file_bytes(TEMPLATE_NAME).decode(),
            self._config,
        )
        self._profile = launch.profile_of(settings)
        self._gates = {kind: Gate(kind, share) for kind, share in shares.items()}
        running_kinds = (Workload.GENERATE, Workload.VERIFY)
        # One more: a probe must not wait for what it is to watch.
        requests_max = sum(shares[kind].running_limit for kind in running_kinds) + 1
        self._engine_config = launch.engine_config(settings, self._config, directory, requests_max)
        self._engine: Any = None
        self._last_token_s: float | None = None

    @property
    def package(self) -> ModelPackage:
        """See `Backend.package`."""
        return self._package

    @property
    def profile(self) -> str:
        """See `Backend.profile`."""
        return self._profile

    @property
    def context_tokens(self) -> int:
        """See `Backend.context_tokens`."""
        return self._config.context_tokens

    @property
    def vocabulary(self) -> int:
        """See `Backend.vocabulary`."""
        return self._config.vocabulary

    @property
    def last_token_s(self) -> float | None:
        """See `Backend.last_token_s`."""
        return self._last_token_s

    async def start(self) -> None:
        """Start vLLM's engine core and load the model; blocks the event loop while it does."""
        try:
            self._engine = self._vllm.launch(self._engine_config)
        except (RuntimeError, ValueError, OSError) as error:
            raise EngineDeadError(f"vLLM did not start: {error}") from error

    async def stop(self) -> None:
        """End vLLM's processes."""
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.shutdown(timeout=SHUTDOWN_TIMEOUT_S)

    def activity(self) -> str:
        """See `Backend.activity`."""
        if self._engine is None:
            return "vLLM is not running"
        return f"vLLM holds {self._engine.get_num_unfinished_requests()} requests"

    def death(self) -> str:
        """See `Backend.death`."""
        died = self._engine is not None and self._engine.errored
        return "vLLM's engine core has died" if died else ""

    def load(self, workload: Workload) -> Load:
        """See `Backend.load`."""
        return self._gates[workload].load

    async def probe(self, deadline_s: float) -> None:
        """See `Backend.probe`."""
        async with aclosing(self._completing(PROBE, deadline_s)) as events:
            async for _ in events:
                pass

    async def tokenize(self, request: InferenceInput, deadline_s: float) -> list[int]:
        """See `Backend.tokenize`."""
        async with self._gates[Workload.TOKENIZE].entered(deadline_s):
            return await self._encode(request)

    async def generate(self, asked: Asked, deadline_s: float) -> AsyncGenerator[Event, None]:
        """See `Backend.generate`."""
        async with (
            self._gates[Workload.GENERATE].entered(deadline_s),
            aclosing(self._completing(asked, deadline_s)) as events,
        ):
            async for event in events:
                yield event

    async def verify(
        self,
        asked: Asked,
        claim: Completion,
        fingerprint_positions: Sequence[int],
        deadline_s: float,
    ) -> Verification:
        """See `Backend.verify`."""
        async with self._gates[Workload.VERIFY].entered(deadline_s):
            prompt_ids = await self._encode(asked.input)
            check_positions(fingerprint_positions, len(claim.token_ids))
            rules = self._end_rules(len(prompt_ids), asked.sampling)
            shape = claim_shape(claim, self.vocabulary, rules.limit)
            readable = claim.token_ids[: shape.readable]
            replayed = await self.replay(
                prompt_ids, asked.sampling, asked.seed, readable, deadline_s
            )
            # A thread, because scoring hundreds of positions would hold up other calls.
            scores = await asyncio.to_thread(
                self._score, claim, shape, rules, replayed, len(prompt_ids)
            )
            return Verification(scores, fingerprint(replayed, fingerprint_positions), self._profile)

    async def replay(
        self,
        prompt_ids: list[int],
        sampling: SamplingRule,
        seed: bytes,
        token_ids: Sequence[int],
        deadline_s: float,
    ) -> np.ndarray:
        """int64[len(token_ids), REPLAY_COLUMNS]; see `ReferenceEngine.replay`."""
        columns = np.zeros((len(token_ids), REPLAY_COLUMNS), np.int64)
        if token_ids:
            rule = rule_array(sampling, seed, self._end_ids)
            greatest = greatest_needed(rule, self.vocabulary)
            returned = await self._prefill(prompt_ids, token_ids, greatest, deadline_s)
            await asyncio.to_thread(replay_returned, *returned, 0, rule, columns)
        return columns

    async def _encode(self, request: InferenceInput) -> list[int]:
        ids = await asyncio.to_thread(self._tokenizer.encode, request)
        if len(ids) >= self.context_tokens:
            raise RequestError(
                RequestReason.OVER_CONTEXT,
                f"the input has {len(ids)} tokens; this model's context of "
                f"{self.context_tokens} leaves room for {self.context_tokens - 1}",
            )
        return ids

    def _end_rules(self, input_tokens: int, sampling: SamplingRule) -> EndRules:
        limit = min(sampling.max_output_tokens, self.context_tokens - input_tokens)
        return EndRules(sampling.stop, self._end_ids, limit, sampling.min_tokens)

    async def _completing(self, asked: Asked, deadline_s: float) -> AsyncGenerator[Event, None]:
        prompt_ids = await self._encode(asked.input)
        yield Started(len(prompt_ids))
        rules = self._end_rules(len(prompt_ids), asked.sampling)
        output = Output(self._tokenizer.token_bytes, rules)
        parameters = self._vllm.generation_parameters(
            rule_words(asked.sampling, asked.seed, self._end_ids),
            rules.limit,
            sorted(self._end_ids),
        )
        async with self._outputs(prompt_ids, parameters) as outputs:
            while not output.ended:
                steps = []
                for token_id, logprob in _new_tokens(await _next(outputs, deadline_s)):
                    if not output.ended:
                        steps.append(output.push(token_id, logprob))
                if steps:
                    self._last_token_s = time.monotonic()
                    yield steps
        yield output.completion(len(prompt_ids), self._profile)

    async def _prefill(
        self, prompt_ids: list[int], readable: Sequence[int], greatest: int, deadline_s: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """(ids int64, log-probabilities float32), each [claimed tokens, 1 + greatest]; see
        `replay_returned`."""
        parameters = self._vllm.prefill_parameters(greatest, len(prompt_ids))
        async with self._outputs([*prompt_ids, *readable], parameters) as outputs:
            flat = (await _next(outputs, deadline_s)).prompt_logprobs
        self._last_token_s = time.monotonic()
        # The claim's rows are the last; a worker of vLLM's own gives the prompt's before them.
        first = flat.start_indices[-len(readable)]
        ids = np.array(flat.token_ids[first:], np.int64).reshape(len(readable), -1)
        logprobs = np.array(flat.logprobs[first:], np.float32).reshape(len(readable), -1)
        if np.isnan(logprobs).any():
            raise JobFailedError("log-probabilities are not numbers: the logits are not finite")
        return ids, logprobs

    @asynccontextmanager
    async def _outputs(
        self, token_ids: list[int], parameters: Any
    ) -> AsyncGenerator[AsyncGenerator[Any, None], None]:
        """vLLM's outputs of one request; leaving the block aborts what has not ended."""
        if self._engine is None:
            raise SchedulerStoppedError("the runtime is stopping")
        try:
            async with aclosing(
                self._engine.generate({"prompt_token_ids": token_ids}, parameters, uuid.uuid4().hex)
            ) as outputs:
                yield outputs
        except self._vllm.ENGINE_ERRORS as error:
            raise JobFailedError(f"{type(error).__name__}: {error}") from error

    def _score(
        self,
        claim: Completion,
        shape: ClaimShape,
        rules: EndRules,
        replayed: np.ndarray,
        input_tokens: int,
    ) -> Scores:
        ending = score_ending(claim, shape, self._tokenizer.token_bytes, rules)
        return score(claim, shape, replayed, input_tokens, ending)


async def _next(outputs: AsyncGenerator[Any, None], deadline_s: float) -> Any:
    """vLLM's next output. Raises JobExpiredError at the deadline."""
    try:
        async with asyncio.timeout(seconds_left(deadline_s)):
            return await anext(outputs)
    except TimeoutError as error:
        raise JobExpiredError("the deadline passed") from error
    except StopAsyncIteration as error:
        raise JobFailedError("vLLM ended a request before its output did") from error


def _new_tokens(output: Any) -> list[tuple[int, float]]:
    """Token ids and raw log-probabilities that came with one of vLLM's outputs."""
    completion = output.outputs[0]
    return [
        (token_id, entry[token_id].logprob)
        for token_id, entry in zip(completion.token_ids, completion.logprobs, strict=True)
    ]
