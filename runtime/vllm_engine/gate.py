"""Bounds on what runs and what waits, for an engine that does its own scheduling."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

from runtime.scheduler import (
    DURATION_WEIGHT,
    RETRY_AFTER_MAX_S,
    RETRY_AFTER_MIN_S,
    JobExpiredError,
    Load,
    QueueFullError,
    Share,
    Workload,
)


def seconds_left(deadline_s: float, clock: Callable[[], float] = time.monotonic) -> float:
    """Time until a deadline, in seconds. Raises JobExpiredError when there is none left."""
    left_s = deadline_s - clock()
    if left_s <= 0:
        raise JobExpiredError("the deadline passed")
    return left_s


class Gate:
    """Lets requests of one kind in, first come first served, at most so many at a time."""

    def __init__(
        self, workload: Workload, share: Share, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._workload = workload
        self._share = share
        self._clock = clock
        self._slots = asyncio.Semaphore(share.running_limit)
        self._load = Load(0, 0)
        self._mean_duration_s = 1.0

    @property
    def load(self) -> Load:
        """How many wait and run."""
        return self._load

    @asynccontextmanager
    async def entered(self, deadline_s: float) -> AsyncGenerator[None, None]:
        """Wait for a slot and hold it for the length of the block.

        Raises QueueFullError at once, JobExpiredError at the deadline.
        """
        load, share = self._load, self._share
        if load.waiting + load.running >= share.running_limit + share.queue_limit:
            raise QueueFullError(
                self._workload, load.waiting, share.queue_limit, self._retry_after_s()
            )
        entered_s = self._clock()
        self._count(waiting=1)
        try:
            async with asyncio.timeout(seconds_left(deadline_s, self._clock)):
                await self._slots.acquire()
        except TimeoutError as error:
            raise JobExpiredError("the deadline passed while the request waited") from error
        finally:
            self._count(waiting=-1)
        self._count(running=1)
        try:
            yield
        finally:
            self._count(running=-1)
            self._slots.release()
            taken_s = self._clock() - entered_s
            self._mean_duration_s += DURATION_WEIGHT * (taken_s - self._mean_duration_s)

    def _count(self, waiting: int = 0, running: int = 0) -> None:
        self._load = Load(self._load.waiting + waiting, self._load.running + running)

    def _retry_after_s(self) -> float:
        expected_s = self._mean_duration_s / self._share.running_limit
        return min(max(expected_s, RETRY_AFTER_MIN_S), RETRY_AFTER_MAX_S)
