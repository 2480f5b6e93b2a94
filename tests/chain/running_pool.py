"""A pool that probes its runtimes for the length of a block, and waiting for what it finds."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from chain.runtime_pool import RuntimePool

SOON_S = 60.0
"""Nothing waited for takes nearly as long; a test that waits longer has failed."""


async def until(holds: Callable[[], bool]) -> None:
    """Return when something is so."""
    async with asyncio.timeout(SOON_S):
        while not holds():
            await asyncio.sleep(0.01)


@asynccontextmanager
async def running(pool: RuntimePool) -> AsyncIterator[RuntimePool]:
    """The pool while it probes; in the end nothing may be in flight any more."""
    task = asyncio.create_task(pool.run())
    try:
        yield pool
        await until(lambda: not any(state.in_flight for state in pool.states()))
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await pool.close()
