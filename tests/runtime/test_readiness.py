"""Ready is who produced a token lately, by a clock of the tests' own."""

import asyncio
from typing import cast

from runtime.backend import Backend
from runtime.readiness import Readiness, ReadinessBounds
from runtime.scheduler import JobExpiredError

MODEL = bytes(range(32))
BOUNDS = ReadinessBounds(stall_s=20.0)


class Probed:
    """A backend that is asked for nothing but probes, and answers them while it is well."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.last_token_s: float | None = None
        self.probes = 0
        self.well = True

    async def probe(self, ends_s: float) -> None:
        assert ends_s > self.now_s
        self.probes += 1
        if not self.well:
            raise JobExpiredError("it hangs")
        self.last_token_s = self.now_s

    def activity(self) -> str:
        return "1 running"


def readiness_of(backend: Probed) -> Readiness:
    return Readiness({MODEL: cast(Backend, backend)}, BOUNDS, lambda: backend.now_s)


async def after(readiness: Readiness, backend: Probed, seconds: float) -> str:
    """What is wrong at that time, after the service has looked whom to probe."""
    backend.now_s += seconds
    readiness.send_probes()
    for _ in range(3):
        await asyncio.sleep(0)
    return readiness.trouble()


async def test_without_a_first_token_an_engine_is_not_ready() -> None:
    backend = Probed()
    backend.well = False
    readiness = readiness_of(backend)
    told = await after(readiness, backend, 0)
    assert told == f"model {MODEL.hex()[:16]} produced no token yet; 1 running"
    backend.well = True
    assert await after(readiness, backend, 0) == ""


async def test_a_silent_engine_is_ready_up_to_its_bound_and_again_after_its_next_token() -> None:
    backend = Probed()
    readiness = readiness_of(backend)
    await after(readiness, backend, 0)
    backend.well = False
    assert await after(readiness, backend, BOUNDS.stall_s) == ""
    told = await after(readiness, backend, 0.5)
    assert told == f"model {MODEL.hex()[:16]} produced no token for 20.5 s; 1 running"
    backend.well = True
    assert await after(readiness, backend, 0) == ""


async def test_an_idle_engine_is_asked_in_time_and_stays_ready() -> None:
    backend = Probed()
    readiness = readiness_of(backend)
    for _ in range(30):
        assert await after(readiness, backend, BOUNDS.probe_after_s / 2) == ""
    assert backend.probes == 15


async def test_an_engine_that_produces_for_others_is_not_asked() -> None:
    backend = Probed()
    readiness = readiness_of(backend)
    await after(readiness, backend, 0)
    for _ in range(10):
        backend.last_token_s = backend.now_s
        assert await after(readiness, backend, BOUNDS.probe_after_s / 2) == ""
    assert backend.probes == 1
