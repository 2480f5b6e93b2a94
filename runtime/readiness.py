"""Readiness: an engine is ready when it produced a token lately, and for no other reason.

A hung engine that still answers health checks is a known failure of inference servers. So nothing
but tokens counts here: those of real requests, or, when there were none, those of probes of one
token each that go through the same scheduler and the same engine thread. Until its first token, an
engine is not ready; a token not older than the stall bound makes it ready, an older one does not.
"""

import asyncio
import logging
from collections.abc import Generator, Mapping
from dataclasses import dataclass

from runtime.engine import Completion, Engine, RequestError, SamplingRule, Step, TextInput
from runtime.scheduler import (
    Job,
    JobExpiredError,
    JobFailedError,
    QueueFullError,
    Scheduler,
    SchedulerStoppedError,
    Workload,
)

PROBE_TEXT = "1"
PROBE_SEED = bytes(32)
PROBE_RULE = SamplingRule(temperature_milli=0, top_k=0, top_p_milli=0, max_output_tokens=1)
FIRST_PROBE_BOUND_S = 600.0
"""How long the first probe may take: an engine may compile its kernels in it."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ReadinessBounds:
    """When to ask, and when to give up on an engine."""

    stall_s: float = 20.0
    """Without a token for longer than this, an engine is not ready."""
    check_interval_s: float = 0.5

    @property
    def probe_after_s(self) -> float:
        """Without a token for longer than this, a probe is sent: half the bound is left for it."""
        return self.stall_s / 2


class Readiness:
    """Remembers when each engine last produced, and asks those that were not asked by anyone."""

    def __init__(
        self, engines: Mapping[bytes, Engine], scheduler: Scheduler, bounds: ReadinessBounds
    ) -> None:
        self._engines = dict(engines)
        self._scheduler = scheduler
        self._bounds = bounds
        self._last_token_s: dict[bytes, float] = {}
        self._probes: dict[bytes, asyncio.Task[None]] = {}

    def watch(
        self, model: bytes, steps: Generator[Step | None, None, Completion]
    ) -> Generator[Step | None, None, Completion]:
        """Pass an engine's steps through, noting each token. Runs on the engine thread."""
        try:
            while True:
                try:
                    step = next(steps)
                except StopIteration as stop:
                    completion: Completion = stop.value
                    return completion
                if step is not None:
                    self._last_token_s[model] = self._scheduler.now_s()
                yield step
        finally:
            steps.close()

    def token_age_s(self, model: bytes) -> float | None:
        """Seconds since this engine's last token; None before its first."""
        last_s = self._last_token_s.get(model)
        return None if last_s is None else max(0.0, self._scheduler.now_s() - last_s)

    def trouble(self) -> str:
        """Why the runtime is not ready; empty when each engine produced within the stall bound."""
        for model in self._engines:
            age_s = self.token_age_s(model)
            if age_s is None or age_s > self._bounds.stall_s:
                since = "yet" if age_s is None else f"for {age_s:.1f} s"
                return (
                    f"model {model.hex()[:16]} produced no token {since}; the step under way has"
                    f" taken {self._scheduler.step_age_s():.1f} s"
                )
        return ""

    def send_probes(self) -> None:
        """Send a probe to each engine that was silent for long and has none under way."""
        for model, engine in self._engines.items():
            age_s = self.token_age_s(model)
            task = self._probes.get(model)
            if (task is None or task.done()) and (
                age_s is None or age_s >= self._bounds.probe_after_s
            ):
                self._probes[model] = asyncio.create_task(self._probe(model, engine, age_s is None))

    async def close(self) -> None:
        """Give up the probes under way."""
        tasks = [task for task in self._probes.values() if not task.done()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _probe_work(self, model: bytes, engine: Engine) -> Generator[Step | None, None, Completion]:
        prompt_ids = engine.tokenize(TextInput(PROBE_TEXT))
        steps = engine.generate(prompt_ids, PROBE_RULE, PROBE_SEED)
        return (yield from self.watch(model, steps))

    async def _probe(self, model: bytes, engine: Engine, first: bool) -> None:
        bound_s = FIRST_PROBE_BOUND_S if first else self._bounds.stall_s
        deadline_s = self._scheduler.now_s() + bound_s
        try:
            job: Job[Step, Completion] = self._scheduler.submit(
                Workload.PROBE, self._probe_work(model, engine), deadline_s
            )
            with job:
                await job.result()
        except (JobExpiredError, QueueFullError, SchedulerStoppedError) as error:
            _log.warning("probe of model %s: %s", model.hex()[:16], error)
        except (JobFailedError, RequestError):
            _log.exception("probe of model %s failed", model.hex()[:16])
            # An engine that fails at once would otherwise be asked at every check.
            await asyncio.sleep(self._bounds.probe_after_s / 2)
