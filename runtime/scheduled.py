"""Engines that do one step at a time, behind the interface of the service.

All engines of a process share one scheduler, thus one engine thread and one set of bounds.
"""

import asyncio
from collections.abc import AsyncGenerator, Generator, Mapping, Sequence

from runtime.backend import PROBE, Asked, Event, Started
from runtime.engine import (
    Completion,
    Engine,
    InferenceInput,
    SharedPass,
    SharingEngine,
    Step,
    Verification,
)
from runtime.packages import ModelPackage
from runtime.scheduler import Job, Load, Scheduler, Share, Work, Workload


class ScheduledBackend:
    """One engine, whose steps run on the scheduler's thread."""

    def __init__(self, engine: Engine, scheduler: Scheduler) -> None:
        self._engine = engine
        self._scheduler = scheduler
        self._last_token_s: float | None = None

    @property
    def package(self) -> ModelPackage:
        """See `Backend.package`."""
        return self._engine.package

    @property
    def profile(self) -> str:
        """See `Backend.profile`."""
        return self._engine.profile

    @property
    def context_tokens(self) -> int:
        """See `Backend.context_tokens`."""
        return self._engine.context_tokens

    @property
    def vocabulary(self) -> int:
        """See `Backend.vocabulary`."""
        return self._engine.vocabulary

    @property
    def last_token_s(self) -> float | None:
        """See `Backend.last_token_s`."""
        return self._last_token_s

    async def start(self) -> None:
        """Start the engine thread, if another model has not done so."""
        self._scheduler.ensure_started()

    async def stop(self) -> None:
        """Stop the engine thread, and with it every model on it."""
        await asyncio.to_thread(self._scheduler.stop)

    def activity(self) -> str:
        """How long the engine thread has been at its step."""
        return f"the step under way has taken {self._scheduler.step_age_s():.1f} s"

    def death(self) -> str:
        """See `Backend.death`; a thread that hangs may come back."""
        return ""

    def load(self, workload: Workload) -> Load:
        """See `Backend.load`; all models of the process together."""
        return self._scheduler.load(workload)

    async def probe(self, deadline_s: float) -> None:
        """See `Backend.probe`."""
        job = self._scheduler.submit(Workload.PROBE, self._generating(PROBE), deadline_s)
        with job:
            await job.result()

    async def tokenize(self, request: InferenceInput, deadline_s: float) -> list[int]:
        """See `Backend.tokenize`."""
        job: Job[None, list[int]] = self._scheduler.submit(
            Workload.TOKENIZE, self._tokenizing(request), deadline_s
        )
        with job:
            return await job.result()

    async def generate(self, asked: Asked, deadline_s: float) -> AsyncGenerator[Event, None]:
        """See `Backend.generate`."""
        job = self._scheduler.submit(Workload.GENERATE, self._generating(asked), deadline_s)
        with job:
            async for items in job.batches():
                for item in items:
                    if isinstance(item, Started):
                        yield item
                steps = [item for item in items if isinstance(item, Step)]
                if steps:
                    yield steps
            yield await job.result()

    async def verify(
        self,
        asked: Asked,
        claim: Completion,
        fingerprint_positions: Sequence[int],
        deadline_s: float,
    ) -> Verification:
        """See `Backend.verify`."""
        work = self._verifying(asked, claim, fingerprint_positions)
        job: Job[None, Verification] = self._scheduler.submit(Workload.VERIFY, work, deadline_s)
        with job:
            return await job.result()

    # What follows runs on the engine thread.

    def _tokenizing(self, request: InferenceInput) -> Work[None, list[int]]:
        yield None
        return self._engine.tokenize(request)

    def _generating(self, asked: Asked) -> Work[Started | Step, Completion]:
        prompt_ids = self._engine.tokenize(asked.input)
        yield Started(len(prompt_ids))
        engine = self._engine
        steps: Generator[Step | SharedPass | None, None, Completion]
        if isinstance(engine, SharingEngine):
            steps = engine.generate_together(prompt_ids, asked.sampling, asked.seed)
        else:
            steps = engine.generate(prompt_ids, asked.sampling, asked.seed)
        return (yield from self._noting_tokens(steps))

    def _noting_tokens(
        self, steps: Generator[Step | SharedPass | None, None, Completion]
    ) -> Generator[Step | SharedPass | None, None, Completion]:
        try:
            while True:
                try:
                    step = next(steps)
                except StopIteration as stop:
                    completion: Completion = stop.value
                    return completion
                if isinstance(step, Step):
                    self._last_token_s = self._scheduler.now_s()
                yield step
        finally:
            steps.close()

    def _verifying(
        self, asked: Asked, claim: Completion, fingerprint_positions: Sequence[int]
    ) -> Work[None, Verification]:
        prompt_ids = self._engine.tokenize(asked.input)
        yield None
        return (
            yield from self._engine.verify(
                prompt_ids, asked.sampling, asked.seed, claim, fingerprint_positions
            )
        )


def scheduled_backends(
    engines: Mapping[bytes, Engine], shares: dict[Workload, Share]
) -> dict[bytes, ScheduledBackend]:
    """Backends of these engines, by model id, on one new scheduler."""
    scheduler = Scheduler(shares)
    return {model: ScheduledBackend(engine, scheduler) for model, engine in engines.items()}
