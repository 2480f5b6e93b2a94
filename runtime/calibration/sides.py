"""The two sides of a calibration: engines that generate as providers and replay as verifiers.

`Side` is all that is asked of an engine here. Work is given in lists, of which up to `in_flight`
items are under way together, as they would be in a service; results come as they are ready.
"""

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np

from runtime.engine import Completion, InferenceInput, SamplingRule, Step
from runtime.packages import ModelPackage, ProgressCallback
from runtime.reference.engine import ReferenceEngine

Result = TypeVar("Result")
Yielded = TypeVar("Yielded")


@dataclass(frozen=True, slots=True)
class Generation:
    """A prompt to answer."""

    prompt_ids: tuple[int, ...]
    sampling: SamplingRule
    seed: bytes


@dataclass(frozen=True, slots=True)
class Replay:
    """Claimed tokens to be compared with the rule."""

    prompt_ids: tuple[int, ...]
    sampling: SamplingRule
    seed: bytes
    token_ids: tuple[int, ...]


class Side(Protocol):
    """An engine with a package loaded."""

    @property
    def profile(self) -> str:
        """The name of its arithmetic."""
        ...

    @property
    def vocabulary(self) -> int:
        """Token ids run from 0 to one less."""
        ...

    def tokenize(self, request: InferenceInput) -> list[int]:
        """Prompt ids. Raises RequestError."""
        ...

    def generate(
        self, items: Sequence[Generation], in_flight: int
    ) -> Iterator[tuple[int, Completion]]:
        """(index of the item, what came out), as they end."""
        ...

    def replay(self, items: Sequence[Replay], in_flight: int) -> Iterator[tuple[int, np.ndarray]]:
        """(index of the item, int64[tokens, 5] as `runtime.sampling.replay_rows` fills it)."""
        ...

    def close(self) -> None:
        """Let the engine go."""
        ...


def in_turns(
    works: Iterator[tuple[int, Generator[Yielded, None, Result]]], in_flight: int
) -> Iterator[tuple[int, Result]]:
    """Run generators round-robin, up to `in_flight` at a time; yields each one's return value."""
    if in_flight < 1:
        raise ValueError(f"in_flight is {in_flight}, must be at least 1")
    running: list[tuple[int, Generator[Yielded, None, Result]]] = []
    try:
        while True:
            while len(running) < in_flight:
                started = next(works, None)
                if started is None:
                    break
                running.append(started)
            if not running:
                return
            for entry in list(running):
                index, work = entry
                try:
                    next(work)
                except StopIteration as stop:
                    running.remove(entry)
                    yield index, stop.value
    finally:
        for _, work in running:
            work.close()


class ReferenceSide:
    """The reference engine. What it gives does not depend on what else is under way."""

    def __init__(self, engine: ReferenceEngine) -> None:
        self.engine = engine

    @classmethod
    def load(
        cls, package: ModelPackage, threads: int = 1, progress: ProgressCallback | None = None
    ) -> "ReferenceSide":
        """Raises PackageError."""
        return cls(ReferenceEngine.load(package, threads, progress))

    @property
    def profile(self) -> str:
        """See `Side.profile`."""
        return self.engine.profile

    @property
    def vocabulary(self) -> int:
        """See `Side.vocabulary`."""
        return self.engine.vocabulary

    def tokenize(self, request: InferenceInput) -> list[int]:
        """See `Side.tokenize`."""
        return self.engine.tokenize(request)

    def generate(
        self, items: Sequence[Generation], in_flight: int
    ) -> Iterator[tuple[int, Completion]]:
        """See `Side.generate`."""

        def works() -> Iterator[tuple[int, Generator[Step | None, None, Completion]]]:
            for index, item in enumerate(items):
                yield index, self.engine.generate(item.prompt_ids, item.sampling, item.seed)

        return in_turns(works(), in_flight)

    def replay(self, items: Sequence[Replay], in_flight: int) -> Iterator[tuple[int, np.ndarray]]:
        """See `Side.replay`."""

        def works() -> Iterator[tuple[int, Generator[None, None, np.ndarray]]]:
            for index, item in enumerate(items):
                yield (
                    index,
                    self.engine.replay(item.prompt_ids, item.sampling, item.seed, item.token_ids),
                )

        return in_turns(works(), in_flight)

    def close(self) -> None:
        """See `Side.close`."""
        self.engine.close()
