"""Readiness: an engine is ready when it produced a token lately, and for no other reason.

A hung engine that still answers health checks is a known failure of inference servers. So nothing
but tokens counts here: those of real requests, or, when there were none, those of probes of one
token each that go the way of any request through the same engine. Until its first token, an
engine is not ready; a token not older than the stall bound makes it ready, an older one does not.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from runtime.backend import Backend
from runtime.engine import RequestError
from runtime.scheduler import (
    JobExpiredError,
    JobFailedError,
    QueueFullError,
    SchedulerStoppedError,
)

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
    """Looks when each engine last produced, and asks those that were not asked by anyone."""

    def __init__(
        self,
        backends: Mapping[bytes, Backend],
        bounds: ReadinessBounds,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._backends = dict(backends)
        self._bounds = bounds
        self._clock = clock
        self._probes: dict[bytes, asyncio.Task[None]] = {}

    def token_age_s(self, model: bytes) -> float | None:
        """Seconds since this engine's last token; None before its first."""
        last_s = self._backends[model].last_token_s
        return None if last_s is None else max(0.0, self._clock() - last_s)

    def trouble(self) -> str:
        """Why the runtime is not ready; empty when each engine produced within the stall bound."""
        for model, backend in self._backends.items():
            age_s = self.token_age_s(model)
            if age_s is None or age_s > self._bounds.stall_s:
                since = "yet" if age_s is None else f"for {age_s:.1f} s"
                return f"model {model.hex()[:16]} produced no token {since}; {backend.activity()}"
        return ""

    def send_probes(self) -> None:
        """Send a probe to each engine that was silent for long and has none under way."""
        for model, backend in self._backends.items():
            age_s = self.token_age_s(model)
            task = self._probes.get(model)
            if (task is None or task.done()) and (
                age_s is None or age_s >= self._bounds.probe_after_s
            ):
                self._probes[model] = asyncio.create_task(
                    self._probe(model, backend, age_s is None)
                )

    async def close(self) -> None:
        """Give up the probes under way."""
        tasks = [task for task in self._probes.values() if not task.done()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _probe(self, model: bytes, backend: Backend, first: bool) -> None:
        bound_s = FIRST_PROBE_BOUND_S if first else self._bounds.stall_s
        try:
            await backend.probe(self._clock() + bound_s)
        except (JobExpiredError, QueueFullError, SchedulerStoppedError) as error:
            _log.warning("probe of model %s: %s", model.hex()[:16], error)
        except (JobFailedError, RequestError):
            _log.exception("probe of model %s failed", model.hex()[:16])
            # An engine that fails at once would otherwise be asked at every check.
            await asyncio.sleep(self._bounds.probe_after_s / 2)
