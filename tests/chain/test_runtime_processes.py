"""A pool and real runtime processes: one is stopped, or killed, and the jobs move on."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from assay.v1 import inference_pb2, runtime_pb2
from chain.runtime_client import RuntimeUnavailableError
from chain.runtime_member import PoolBounds
from chain.runtime_pool import RuntimePool
from chain.runtime_replies import Chunk, Finished
from tests.chain.running_pool import SOON_S, running, until
from tests.runtime.serving import generate_request, limits, serving
from tests.runtime.tiny_engine import TinyEngine

STEP_S = 0.04
TOKENS = 32
"""So a verification takes more than a second: long enough to be interrupted."""
STALL_S = 3.0
BOUNDS = PoolBounds(probe_interval_s=0.1, probe_deadline_s=1.0)
SLACK_S = 30.0
"""For a busy machine, on top of the bounds themselves."""


@dataclass(frozen=True, slots=True)
class RuntimeProcess:
    process: asyncio.subprocess.Process
    target: str

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.process.pid, number)


@asynccontextmanager
async def runtime_process(port_file: Path) -> AsyncIterator[RuntimeProcess]:
    """A runtime process with the tiny engine, that has produced a token."""
    arguments = (str(port_file), str(STEP_S), "60")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.chain.tiny_runtime", *arguments
    )
    try:
        async with asyncio.timeout(60):
            while not port_file.exists():
                assert process.returncode is None
                await asyncio.sleep(0.05)
        yield RuntimeProcess(process, port_file.read_text())
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@asynccontextmanager
async def two_processes(folder: Path) -> AsyncIterator[tuple[RuntimePool, list[RuntimeProcess]]]:
    async with AsyncExitStack() as stack:
        starting = [runtime_process(folder / f"port-{number}") for number in range(2)]
        processes = list(
            await asyncio.gather(*(stack.enter_async_context(item) for item in starting))
        )
        pool = RuntimePool([item.target for item in processes], BOUNDS)
        await stack.enter_async_context(running(pool))
        await until(lambda: all(state.healthy for state in pool.states()))
        yield pool, processes


def question() -> runtime_pb2.GenerateRequest:
    return generate_request(TinyEngine(), max_output_tokens=TOKENS)


async def answer(
    pool: RuntimePool, request: runtime_pb2.GenerateRequest
) -> inference_pb2.InferenceResult:
    events = [event async for event in pool.generate(request, 60)]
    assert isinstance(events[-1], Finished)
    return events[-1].result


def busiest(pool: RuntimePool) -> int:
    counts = [state.in_flight for state in pool.states()]
    return counts.index(max(counts))


async def test_jobs_leave_a_stopped_process_and_it_is_used_again_once_it_goes_on(
    tmp_path: Path,
) -> None:
    request = question()
    async with two_processes(tmp_path) as (pool, processes):
        claim = await answer(pool, request)
        under_way = asyncio.create_task(pool.verify(request, claim, [0, 1], 60))
        await until(lambda: sum(state.in_flight for state in pool.states()) == 1)
        await asyncio.sleep(0.3)
        stopped = busiest(pool)
        processes[stopped].signal(signal.SIGSTOP)
        stopped_s = time.monotonic()
        await until(lambda: not pool.states()[stopped].healthy)
        red_after_s = time.monotonic() - stopped_s
        assert red_after_s <= BOUNDS.hang_bound_s + SLACK_S
        assert "no answer within 1.0 s" in pool.states()[stopped].detail
        verified = await asyncio.wait_for(under_way, SOON_S)
        assert verified.scores.replay_mismatches == 0
        assert await pool.ready()
        new = await asyncio.gather(
            answer(pool, request), pool.verify(request, claim, [0, 1], SOON_S)
        )
        assert list(new) == [claim, verified]
        assert pool.states()[stopped].in_flight == 0
        processes[stopped].signal(signal.SIGCONT)
        await until(lambda: pool.states()[stopped].healthy)
        both = [asyncio.create_task(answer(pool, request)) for _ in range(2)]
        await until(lambda: [state.in_flight for state in pool.states()] == [1, 1])
        assert await asyncio.gather(*both) == [claim, claim]


async def test_a_killed_process_loses_its_verification_to_the_other_at_once(
    tmp_path: Path,
) -> None:
    request = question()
    async with two_processes(tmp_path) as (pool, processes):
        claim = await answer(pool, request)
        under_way = asyncio.create_task(pool.verify(request, claim, [0], 60))
        await until(lambda: sum(state.in_flight for state in pool.states()) == 1)
        await asyncio.sleep(0.3)
        killed = busiest(pool)
        processes[killed].signal(signal.SIGKILL)
        await until(lambda: pool.states()[1 - killed].in_flight == 1)
        assert not pool.states()[killed].healthy
        assert (await asyncio.wait_for(under_way, SOON_S)).scores.replay_mismatches == 0


async def test_a_generation_of_a_killed_process_breaks_off_and_its_retry_gives_the_same(
    tmp_path: Path,
) -> None:
    request = question()
    async with two_processes(tmp_path) as (pool, processes):
        seen: list[int] = []
        try:
            async for event in pool.generate(request, 60):
                if isinstance(event, Chunk):
                    seen += event.token_ids
                    if len(seen) >= 5:
                        processes[busiest(pool)].signal(signal.SIGKILL)
            raise AssertionError("a generation outlived its process")
        except RuntimeUnavailableError:
            pass
        again = await answer(pool, request)
        assert len(seen) < TOKENS
        assert list(again.token_ids)[: len(seen)] == seen


async def test_an_engine_that_hangs_turns_health_red_and_its_verification_moves() -> None:
    hanging, well = TinyEngine(step_s=0.01), TinyEngine(step_s=0.01)
    stalling = limits(stall_s=STALL_S)
    async with (
        serving(hanging, service_limits=stalling) as first,
        serving(well, service_limits=stalling) as second,
        running(RuntimePool([first, second], replace(BOUNDS, probe_interval_s=0.05))) as pool,
    ):
        await until(lambda: all(state.healthy for state in pool.states()))
        request = question()
        claim = await answer(pool, request)
        under_way = [asyncio.create_task(pool.verify(request, claim, [], 60)) for _ in range(2)]
        await until(lambda: [state.in_flight for state in pool.states()] == [1, 1])
        hanging.hold()
        held_s = time.monotonic()
        await until(lambda: not pool.states()[0].healthy)
        assert time.monotonic() - held_s <= STALL_S + SLACK_S
        assert "not SERVING" in pool.states()[0].detail
        verified = await asyncio.wait_for(asyncio.gather(*under_way), SOON_S)
        assert [item.scores.replay_mismatches for item in verified] == [0, 0]
        assert hanging.held.is_set(), "it still hangs"
        hanging.release()
        await until(lambda: pool.states()[0].healthy)
