"""What is measured: an engine, the ways it can generate, and the requests it is given."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol

import numpy as np

from runtime.backend import Asked, Backend
from runtime.engine import (
    ChatInput,
    Completion,
    Message,
    Role,
    SamplingRule,
)
from runtime.packages import ModelPackage, ProgressCallback
from runtime.reference.engine import BLOCK_TOKENS, ReferenceEngine
from runtime.reference.model import Extension, Model
from runtime.scheduled import scheduled_backends
from runtime.scheduler import Share, Workload

SUBJECTS: Final = ("gold", "rain", "bread", "the sea", "clocks", "letters", "bridges", "snow")
TEMPERATURE_MILLI: Final = 800
FAR_S: Final = 86_400.0
PROVIDER: Final = "provider"
GREEDY: Final = "greedy"
PLAIN: Final = "plain"


@dataclass(frozen=True, slots=True)
class Overhead:
    """One variant to be set against another."""

    variant: str
    base: str


class Subject(Protocol):
    """An engine that has loaded the package."""

    @property
    def backend(self) -> Backend:
        """What the service would use."""
        ...

    @property
    def variants(self) -> tuple[str, ...]:
        """Besides `provider`, which every engine has; the plain one first."""
        ...

    @property
    def overheads(self) -> tuple[Overhead, ...]:
        """What is to be set against what."""
        ...

    async def run(self, variant: str, asked: Sequence[Asked]) -> int:
        """Generate all requests at once in this way; returns how many tokens came out."""
        ...


def requests(count: int, tokens: int) -> list[Asked]:
    """`count` different chats of about 40 tokens, the same ones every time."""
    rule = SamplingRule(
        temperature_milli=TEMPERATURE_MILLI, top_k=0, top_p_milli=0, max_output_tokens=tokens
    )
    found = []
    for number in range(count):
        subject = SUBJECTS[number % len(SUBJECTS)]
        text = f"Tell me a long story about {subject}, number {number}."
        seed = number.to_bytes(32, "little")
        found.append(Asked(ChatInput((Message(Role.USER, text),)), rule, seed))
    return found


def deadline_s() -> float:
    """Far off: what is measured is never cut short."""
    return time.monotonic() + FAR_S


@dataclass(frozen=True, slots=True)
class Provided:
    """One result as a provider makes it."""

    asked: Asked
    completion: Completion
    first_token_s: float
    """From when it was asked for."""


async def provide(backend: Backend, asked: Sequence[Asked]) -> list[Provided]:
    """Generate all requests at once, as the service does."""

    async def one(request: Asked) -> Provided:
        started_s, first_token_s = time.perf_counter(), None
        async for event in backend.generate(request, deadline_s()):
            if isinstance(event, list) and first_token_s is None:
                first_token_s = time.perf_counter() - started_s
            if isinstance(event, Completion) and first_token_s is not None:
                return Provided(request, event, first_token_s)
        raise RuntimeError("a generation ended without its completion")

    return list(await asyncio.gather(*(one(request) for request in asked)))


class ReferenceSubject:
    """The reference engine behind its scheduler; plain is the model alone, greedy, no evidence."""

    variants = (PLAIN, GREEDY)
    overheads = (Overhead(GREEDY, PLAIN), Overhead(PROVIDER, GREEDY), Overhead(PROVIDER, PLAIN))

    def __init__(
        self,
        package: ModelPackage,
        threads: int,
        profile: str | None,
        in_flight_max: int,
        progress: ProgressCallback | None = None,
    ) -> None:
        """Raises PackageError."""
        self._engine = ReferenceEngine.load(package, threads, progress, profile)
        self._engine._end_ids = frozenset()  # an output goes on to its length
        shares = {kind: Share(in_flight_max, 0) for kind in Workload}
        self.backend: Backend = scheduled_backends({package.model_id: self._engine}, shares)[
            package.model_id
        ]

    async def run(self, variant: str, asked: Sequence[Asked]) -> int:
        """See `Subject.run`."""
        if variant == GREEDY:
            greedy = [
                replace(one, sampling=replace(one.sampling, temperature_milli=0)) for one in asked
            ]
            made = await provide(self.backend, greedy)
            return sum(len(one.completion.token_ids) for one in made)
        prompts = [self._engine.tokenize(one.input) for one in asked]
        tokens = asked[0].sampling.max_output_tokens
        return await asyncio.to_thread(run_plain, self._engine.model, prompts, tokens)


def run_plain(model: Model, prompts: Sequence[Sequence[int]], tokens: int) -> int:
    """So many tokens after each prompt, the likeliest each time; returns how many in all."""
    sequences = [model.sequence(len(prompt) + tokens) for prompt in prompts]
    rows = []
    for sequence, prompt in zip(sequences, prompts, strict=True):
        for start in range(0, len(prompt), BLOCK_TOKENS):
            block = prompt[start : start + BLOCK_TOKENS]
            last = start + len(block) == len(prompt)
            row = model.extend(sequence, block, len(block) - last)
        rows.append(row)
    chosen = [int(np.argmax(row[-1])) for row in rows]
    for _ in range(tokens - 1):
        extensions = [
            Extension(sequence, [token], 0)
            for sequence, token in zip(sequences, chosen, strict=True)
        ]
        chosen = [int(np.argmax(row[-1])) for row in model.extend_together(extensions)]
    return tokens * len(prompts)
