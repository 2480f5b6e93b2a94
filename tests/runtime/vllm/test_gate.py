"""Bounds round an engine that schedules by itself."""

import asyncio
import time

import pytest

from runtime.scheduler import JobExpiredError, Load, QueueFullError, Share, Workload
from runtime.vllm_engine.gate import Gate, seconds_left

SOON_S = 60.0


def gate(running_limit: int = 1, queue_limit: int = 1) -> Gate:
    return Gate(Workload.GENERATE, Share(running_limit, queue_limit))


def later_s(seconds: float = SOON_S) -> float:
    return time.monotonic() + seconds


async def hold(narrow: Gate, release: asyncio.Event, order: list[int], number: int) -> None:
    async with narrow.entered(later_s()):
        order.append(number)
        await release.wait()


async def test_requests_enter_in_the_order_they_came() -> None:
    narrow, release, order = gate(queue_limit=4), asyncio.Event(), list[int]()
    tasks = [asyncio.create_task(hold(narrow, release, order, n)) for n in range(4)]
    await asyncio.sleep(0.01)
    assert order == [0]
    assert narrow.load == Load(waiting=3, running=1)
    release.set()
    await asyncio.gather(*tasks)
    assert order == [0, 1, 2, 3]
    assert narrow.load == Load(0, 0)


async def test_one_more_than_may_wait_is_refused_at_once() -> None:
    narrow, release = gate(), asyncio.Event()
    tasks = [asyncio.create_task(hold(narrow, release, [], n)) for n in range(2)]
    await asyncio.sleep(0.01)
    with pytest.raises(QueueFullError, match="1 generate requests wait already, at most 1 may"):
        async with narrow.entered(later_s()):
            pass
    release.set()
    await asyncio.gather(*tasks)
    async with narrow.entered(later_s()):
        assert narrow.load == Load(waiting=0, running=1)


async def test_a_request_does_not_wait_past_its_deadline() -> None:
    narrow, release = gate(), asyncio.Event()
    holder = asyncio.create_task(hold(narrow, release, [], 0))
    await asyncio.sleep(0.01)
    with pytest.raises(JobExpiredError):
        async with narrow.entered(later_s(0.05)):
            pass
    assert narrow.load == Load(waiting=0, running=1)
    release.set()
    await holder


async def test_cancelling_a_waiting_request_frees_its_place() -> None:
    narrow, release = gate(), asyncio.Event()
    holder = asyncio.create_task(hold(narrow, release, [], 0))
    waiting = asyncio.create_task(hold(narrow, release, [], 1))
    await asyncio.sleep(0.01)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert narrow.load == Load(waiting=0, running=1)
    release.set()
    await holder


async def test_a_block_that_raises_gives_its_slot_back() -> None:
    narrow = gate()
    with pytest.raises(ZeroDivisionError):
        async with narrow.entered(later_s()):
            raise ZeroDivisionError
    assert narrow.load == Load(0, 0)


def test_a_deadline_that_has_passed_leaves_no_time() -> None:
    assert seconds_left(5.0, lambda: 3.0) == 2.0
    with pytest.raises(JobExpiredError, match="the deadline passed"):
        seconds_left(5.0, lambda: 5.0)
