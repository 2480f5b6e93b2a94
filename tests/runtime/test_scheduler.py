"""The scheduler, mostly without its thread: a test runs the steps by hand and owns the clock."""

import asyncio
import gc
import threading
import weakref
from collections.abc import Generator

import pytest

from runtime.engine import RequestError, RequestReason
from runtime.scheduler import (
    BUFFERED_ITEMS_MAX,
    Job,
    JobCancelledError,
    JobExpiredError,
    JobFailedError,
    QueueFullError,
    Scheduler,
    SchedulerStoppedError,
    Share,
    Work,
    Workload,
)

FAR_S = 1e9
SOON_S = 60.0


class ManualClock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def make_scheduler(
    clock: ManualClock | None = None, running_limit: int = 2, queue_limit: int = 2
) -> Scheduler:
    shares = dict.fromkeys(Workload, Share(running_limit, queue_limit))
    return Scheduler(shares, clock or ManualClock())


def counting(
    name: str,
    items: int,
    trace: list[str] | None = None,
    clock: ManualClock | None = None,
    step_s: float = 0.0,
) -> Work[str, int]:
    for index in range(items):
        if clock is not None:
            clock.now_s += step_s
        if trace is not None:
            trace.append(name)
        yield f"{name}{index}"
    return items


async def test_a_job_hands_over_its_items_in_order_and_then_its_result() -> None:
    scheduler = make_scheduler()
    job = scheduler.submit(Workload.GENERATE, counting("a", 3), FAR_S)
    while scheduler.run_step():
        pass
    assert [item async for items in job.batches() for item in items] == ["a0", "a1", "a2"]
    assert await job.result() == 3


async def test_items_that_came_up_together_are_handed_over_together() -> None:
    scheduler = make_scheduler()
    job = scheduler.submit(Workload.GENERATE, counting("a", 3), FAR_S)
    while scheduler.run_step():
        pass
    assert [items async for items in job.batches()] == [["a0", "a1", "a2"]]


async def test_jobs_of_one_workload_take_turns() -> None:
    scheduler, trace = make_scheduler(), list[str]()
    scheduler.submit(Workload.GENERATE, counting("a", 3, trace), FAR_S)
    scheduler.submit(Workload.GENERATE, counting("b", 3, trace), FAR_S)
    while scheduler.run_step():
        pass
    assert trace == ["a", "b", "a", "b", "a", "b"]


async def test_a_verification_gets_half_the_engine_however_many_generations_run() -> None:
    clock, trace = ManualClock(), list[str]()
    scheduler = make_scheduler(clock, running_limit=4)
    for _ in range(4):
        scheduler.submit(Workload.GENERATE, counting("g", 200, trace, clock, 1.0), FAR_S)
    # A verification's step is a block of prefill, here five times as long as a generation's.
    scheduler.submit(Workload.VERIFY, counting("v", 20, trace, clock, 5.0), FAR_S)
    while trace.count("v") < 20 and scheduler.run_step():
        pass
    assert 90 <= trace.count("g") <= 105


async def test_a_workload_that_was_idle_is_owed_nothing_for_it() -> None:
    clock, trace = ManualClock(), list[str]()
    scheduler = make_scheduler(clock)
    scheduler.submit(Workload.GENERATE, counting("g", 300, trace, clock, 1.0), FAR_S)
    for _ in range(100):
        scheduler.run_step()
    scheduler.submit(Workload.VERIFY, counting("v", 100, trace, clock, 1.0), FAR_S)
    trace.clear()
    for _ in range(20):
        scheduler.run_step()
    assert 9 <= trace.count("v") <= 11


async def test_a_full_queue_refuses_with_a_time_to_come_back() -> None:
    scheduler = make_scheduler(running_limit=1, queue_limit=2)
    for _ in range(3):
        scheduler.submit(Workload.GENERATE, counting("a", 1), FAR_S)
    with pytest.raises(QueueFullError) as refused:
        scheduler.submit(Workload.GENERATE, counting("a", 1), FAR_S)
    assert refused.value.limit == 2
    assert refused.value.retry_after_s > 0
    # The other workloads have queues of their own.
    scheduler.submit(Workload.VERIFY, counting("v", 1), FAR_S)


async def test_cancelling_frees_the_slot_and_closes_the_generator() -> None:
    scheduler, closed = make_scheduler(running_limit=1, queue_limit=0), list[str]()

    def held() -> Generator[str, None, None]:
        try:
            while True:
                yield "x"
        finally:
            closed.append("closed")

    job = scheduler.submit(Workload.GENERATE, held(), FAR_S)
    scheduler.run_step()
    job.cancel()
    scheduler.submit(Workload.GENERATE, counting("next", 1), FAR_S)
    scheduler.run_step()
    assert closed == ["closed"]
    with pytest.raises(JobCancelledError):
        await job.result()


async def test_cancelled_waiting_jobs_leave_nothing_behind_while_a_step_hangs() -> None:
    scheduler = Scheduler(dict.fromkeys(Workload, Share(1, 1)))
    entered, release, alive = threading.Event(), threading.Event(), list[weakref.ref[object]]()

    def hanging() -> Generator[None, None, None]:
        entered.set()
        release.wait()
        yield None

    scheduler.start()
    scheduler.submit(Workload.GENERATE, hanging(), FAR_S)
    await asyncio.to_thread(entered.wait, 10)
    for _ in range(100):
        work = counting("a", 1)
        alive.append(weakref.ref(work))
        scheduler.submit(Workload.GENERATE, work, FAR_S).cancel()
        del work
    await asyncio.sleep(0)
    gc.collect()
    assert sum(reference() is not None for reference in alive) <= 1
    release.set()
    await asyncio.to_thread(scheduler.stop)


async def test_leaving_the_block_cancels_the_job() -> None:
    scheduler = make_scheduler()
    with scheduler.submit(Workload.GENERATE, counting("a", 3), FAR_S):
        scheduler.run_step()
    assert scheduler.load(Workload.GENERATE).running == 0
    assert not scheduler.run_step()


async def test_a_deadline_ends_running_and_waiting_jobs() -> None:
    clock = ManualClock()
    scheduler = make_scheduler(clock, running_limit=1)
    running = scheduler.submit(Workload.GENERATE, counting("a", 9), clock.now_s + 5)
    waiting = scheduler.submit(Workload.GENERATE, counting("b", 9), clock.now_s + 5)
    scheduler.run_step()
    clock.now_s += 5
    assert not scheduler.run_step()
    for job in (running, waiting):
        with pytest.raises(JobExpiredError):
            await job.result()


async def test_a_failing_job_fails_alone() -> None:
    scheduler = make_scheduler()

    def failing() -> Generator[str, None, None]:
        yield "x"
        raise ZeroDivisionError("kernel")

    bad = scheduler.submit(Workload.GENERATE, failing(), FAR_S)
    good = scheduler.submit(Workload.GENERATE, counting("a", 3), FAR_S)
    while scheduler.run_step():
        pass
    with pytest.raises(JobFailedError, match="ZeroDivisionError: kernel") as failed:
        await bad.result()
    assert isinstance(failed.value.__cause__, ZeroDivisionError)
    assert await good.result() == 3


async def test_a_refused_request_keeps_its_reason() -> None:
    scheduler = make_scheduler()

    def refusing(text: str) -> Generator[str, None, None]:
        if not text:
            raise RequestError(RequestReason.EMPTY_INPUT, "nothing to say")
        yield text

    job = scheduler.submit(Workload.GENERATE, refusing(""), FAR_S)
    scheduler.run_step()
    with pytest.raises(RequestError) as refused:
        await job.result()
    assert refused.value.reason is RequestReason.EMPTY_INPUT


async def test_a_slow_reader_parks_only_its_own_job() -> None:
    scheduler, trace = make_scheduler(), list[str]()
    slow = scheduler.submit(Workload.GENERATE, counting("s", 3 * BUFFERED_ITEMS_MAX, trace), FAR_S)
    scheduler.submit(Workload.GENERATE, counting("f", BUFFERED_ITEMS_MAX - 1, trace), FAR_S)
    while scheduler.run_step():
        pass
    assert trace.count("s") == BUFFERED_ITEMS_MAX
    assert trace.count("f") == BUFFERED_ITEMS_MAX - 1
    first = await anext(slow.batches())
    assert len(first) == BUFFERED_ITEMS_MAX
    assert scheduler.run_step()


async def test_stopping_ends_every_job_and_refuses_new_ones() -> None:
    scheduler = make_scheduler()
    scheduler.start()
    endless = scheduler.submit(Workload.GENERATE, counting("a", 10**9), FAR_S)
    await anext(endless.batches())
    await asyncio.to_thread(scheduler.stop)
    with pytest.raises(SchedulerStoppedError):
        await endless.result()
    with pytest.raises(SchedulerStoppedError):
        scheduler.submit(Workload.GENERATE, counting("b", 1), FAR_S)


async def test_the_thread_wakes_for_work_submitted_while_it_was_idle() -> None:
    scheduler = make_scheduler()
    scheduler.start()
    for _ in range(50):
        assert await scheduler.submit(Workload.TOKENIZE, counting("a", 2), FAR_S).result() == 2
    await asyncio.to_thread(scheduler.stop)


async def test_a_caller_is_freed_at_its_deadline_even_when_the_step_hangs() -> None:
    scheduler = Scheduler(dict.fromkeys(Workload, Share(1, 0)))
    release = threading.Event()

    def hanging() -> Generator[None, None, None]:
        release.wait()
        yield None

    scheduler.start()
    job: Job[None, None] = scheduler.submit(Workload.GENERATE, hanging(), scheduler.now_s() + 0.05)
    with pytest.raises(JobExpiredError):
        await asyncio.wait_for(job.result(), SOON_S)
    assert scheduler.step_age_s() > 0
    # The slot is free again for a job that runs once the step comes back.
    after = scheduler.submit(Workload.GENERATE, counting("a", 1), scheduler.now_s() + 60)
    release.set()
    assert await asyncio.wait_for(after.result(), SOON_S) == 1
    await asyncio.to_thread(scheduler.stop)
