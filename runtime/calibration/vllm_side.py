"""vLLM as a side of a calibration: many requests in flight, batched by vLLM itself."""

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np

from runtime.backend import Asked
from runtime.calibration.sides import Generation, Replay
from runtime.engine import Completion, InferenceInput, TokenInput
from runtime.packages import ModelPackage, ProgressCallback
from runtime.scheduler import Share, Workload
from runtime.vllm_engine.backend import VllmBackend, open_backend
from runtime.vllm_engine.settings import Settings

WALL_TIME_S = 3_600.0
"""No single request takes longer, however many share the engine."""
RUNNING_LIMIT = 256
Result = TypeVar("Result")


class VllmSide:
    """One package in vLLM, on an event loop that runs while results are waited for."""

    def __init__(
        self, package: ModelPackage, settings: Settings, progress: ProgressCallback | None = None
    ) -> None:
        """Raises PackageError, SettingsError."""
        shares = {kind: Share(RUNNING_LIMIT, 0) for kind in Workload}
        self._backend: VllmBackend = open_backend(package, settings, shares, progress)
        self._runner = asyncio.Runner()
        self._runner.run(self._backend.start())

    @property
    def profile(self) -> str:
        """See `Side.profile`."""
        return self._backend.profile

    @property
    def vocabulary(self) -> int:
        """See `Side.vocabulary`."""
        return self._backend.vocabulary

    def tokenize(self, request: InferenceInput) -> list[int]:
        """See `Side.tokenize`."""
        return self._runner.run(self._backend.tokenize(request, _deadline_s()))

    def generate(
        self, items: Sequence[Generation], in_flight: int
    ) -> Iterator[tuple[int, Completion]]:
        """See `Side.generate`."""
        return self._as_they_end(items, self._generate, in_flight)

    def replay(self, items: Sequence[Replay], in_flight: int) -> Iterator[tuple[int, np.ndarray]]:
        """See `Side.replay`."""
        return self._as_they_end(items, self._replay, in_flight)

    def close(self) -> None:
        """See `Side.close`."""
        self._runner.run(self._backend.stop())
        self._runner.close()

    async def _generate(self, item: Generation) -> Completion:
        asked = Asked(TokenInput(item.prompt_ids), item.sampling, item.seed)
        last: Any = None
        async for event in self._backend.generate(asked, _deadline_s()):
            last = event
        if not isinstance(last, Completion):
            raise RuntimeError("the engine ended a generation without a completion")
        return last

    async def _replay(self, item: Replay) -> np.ndarray:
        return await self._backend.replay(
            list(item.prompt_ids), item.sampling, item.seed, item.token_ids, _deadline_s()
        )

    def _as_they_end(
        self,
        items: Sequence[Any],
        work: Callable[[Any], Coroutine[Any, Any, Result]],
        in_flight: int,
    ) -> Iterator[tuple[int, Result]]:
        """Keep `in_flight` items under way, and yield results between runs of the event loop."""
        if not 1 <= in_flight <= RUNNING_LIMIT:
            raise ValueError(f"in_flight is {in_flight}, allowed is 1 to {RUNNING_LIMIT}")
        places = iter(range(len(items)))
        running: dict[asyncio.Task[Result], int] = {}

        async def advance() -> set[asyncio.Task[Result]]:
            while len(running) < in_flight and (place := next(places, None)) is not None:
                running[asyncio.create_task(work(items[place]))] = place
            if not running:
                return set()
            done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            return done

        try:
            while done := self._runner.run(advance()):
                for task in done:
                    yield running.pop(task), task.result()
        finally:
            for task in running:
                task.cancel()


def _deadline_s() -> float:
    return time.monotonic() + WALL_TIME_S
