"""A pool of runtimes: who is asked, who is taken out, and where requests under way go."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

import grpc
import pytest

from assay.v1 import runtime_pb2
from chain.runtime_client import (
    RuntimeRefusedError,
    RuntimeUnavailableError,
    Unavailability,
)
from chain.runtime_member import (
    PoolBounds,
)
from chain.runtime_pool import RuntimePool
from chain.runtime_replies import (
    Chunk,
    Finished,
    GenerationEvent,
    ReplyFault,
    RuntimeReplyError,
    Started,
)
from tests.chain.running_pool import SOON_S, running, until
from tests.chain.scripted_runtime import (
    CLAIM,
    INFO,
    MODEL,
    REQUEST,
    ScriptedRuntime,
    serving_bytes,
    serving_scripted,
    start_scripted,
)

SILENT_S = 3.0
"""What a verification waits for a silent runtime: half of the time it is given."""
PROGRESS_S = 3.0
"""Of a generation. An honest runtime needs a fraction of either, on a busy machine too."""
FAST = PoolBounds(
    probe_interval_s=0.05,
    probe_deadline_s=5.0,
    retry_first_s=0.1,
    absent_retry_max_s=0.2,
    failed_retry_max_s=0.4,
    progress_s=SOON_S,
    silence_fault_s=0.5,
)
UNFORGIVING = replace(FAST, retry_first_s=SOON_S, failed_retry_max_s=SOON_S)
"""Who failed is out for the rest of the test."""
OTHER_MODEL = bytes(range(1, 33))
OTHER_INFO = runtime_pb2.ModelInfo(
    model=OTHER_MODEL, name="o", engine_profile="exact", context_tokens=16, vocabulary=10
)
UNKNOWN = (grpc.StatusCode.NOT_FOUND, "UNKNOWN_MODEL")


@asynccontextmanager
async def pool_of(
    *runtimes: ScriptedRuntime, bounds: PoolBounds = FAST
) -> AsyncIterator[RuntimePool]:
    """A pool of scripted runtimes, all of them asked once."""
    async with (
        serving_scripted(*runtimes) as targets,
        running(RuntimePool(targets, bounds, jitter=random.Random(1))) as pool,
    ):
        await until(lambda: all(state.detail != "not asked yet" for state in pool.states()))
        yield pool


async def verify(pool: RuntimePool, deadline_s: float = SOON_S) -> tuple[int, ...]:
    return (await pool.verify(REQUEST, CLAIM, [1], deadline_s)).fingerprint


async def collect(pool: RuntimePool, deadline_s: float = SOON_S) -> list[GenerationEvent]:
    return [event async for event in pool.generate(REQUEST, deadline_s)]


def calls(*runtimes: ScriptedRuntime) -> list[int]:
    return [runtime.calls for runtime in runtimes]


async def test_requests_go_where_the_fewest_are() -> None:
    runtimes = [ScriptedRuntime() for _ in range(3)]
    async with pool_of(*runtimes) as pool:
        for runtime in runtimes:
            runtime.hold()
        waiting = [asyncio.create_task(verify(pool)) for _ in range(6)]
        await until(lambda: calls(*runtimes) == [2, 2, 2])
        assert [state.in_flight for state in pool.states()] == [2, 2, 2]
        for runtime in runtimes:
            runtime.release()
        assert await asyncio.gather(*waiting) == [(-5,)] * 6


async def test_what_is_under_way_counts_more_than_who_was_asked_last() -> None:
    slow, quick = ScriptedRuntime(), ScriptedRuntime()
    async with pool_of(slow, quick) as pool:
        slow.hold()
        asked = [asyncio.create_task(verify(pool)) for _ in range(2)]
        await until(lambda: [state.in_flight for state in pool.states()] == [1, 0])
        for _ in range(3):
            await verify(pool)
        slow.release()
        await asyncio.gather(*asked)
    assert calls(slow, quick) == [1, 4]


def with_queue(queued: int) -> runtime_pb2.ModelInfo:
    info = runtime_pb2.ModelInfo()
    info.CopyFrom(INFO)
    info.queued = queued
    return info


async def test_what_others_have_queued_counts_too() -> None:
    crowded, empty = ScriptedRuntime(), ScriptedRuntime()
    crowded.models = [with_queue(5)]
    async with pool_of(crowded, empty) as pool:
        for _ in range(3):
            await verify(pool)
    assert calls(crowded, empty) == [0, 3]


async def test_only_a_runtime_that_has_the_model_is_asked() -> None:
    having, lacking = ScriptedRuntime(), ScriptedRuntime()
    lacking.models = [OTHER_INFO]
    async with pool_of(lacking, having) as pool:
        assert [info.model for info in await pool.models()] == [OTHER_MODEL, MODEL]
        for _ in range(3):
            await verify(pool)
        assert await pool.tokenize(MODEL, REQUEST.input, SOON_S) == (1, 2)
    assert calls(lacking, having) == [0, 3]


async def test_a_model_that_no_runtime_has_is_refused_at_once() -> None:
    lacking = ScriptedRuntime()
    lacking.models = [OTHER_INFO]
    async with pool_of(lacking, lacking) as pool:
        with pytest.raises(RuntimeRefusedError) as refused:
            await verify(pool)
        assert refused.value.reason == "UNKNOWN_MODEL"
        assert all(state.address in refused.value.detail for state in pool.states())


def lie(runtime: ScriptedRuntime) -> None:
    runtime.verification.scores.positions = 9


def deny(runtime: ScriptedRuntime) -> None:
    runtime.refusal = UNKNOWN


def break_down(runtime: ScriptedRuntime) -> None:
    runtime.refusal = (grpc.StatusCode.INTERNAL, "ENGINE_FAILED")


def stay_silent(runtime: ScriptedRuntime) -> None:
    runtime.silent = True


FAULTS: dict[str, tuple[Callable[[ScriptedRuntime], None], str]] = {
    "garbage": (lie, "bad_scores"),
    "a model it said it has": (deny, "UNKNOWN_MODEL"),
    "a broken engine": (break_down, "ENGINE_FAILED"),
    "silence": (stay_silent, f"no progress within {SILENT_S} s"),
}


@pytest.mark.parametrize("name", FAULTS)
async def test_a_verification_moves_on_and_who_failed_it_is_out_for_a_while(name: str) -> None:
    fault, told = FAULTS[name]
    faulty, honest = ScriptedRuntime(), ScriptedRuntime()
    fault(faulty)
    async with pool_of(faulty, honest, bounds=UNFORGIVING) as pool:
        assert await verify(pool, 2 * SILENT_S) == (-5,)
        state = pool.states()[0]
        assert not state.healthy
        assert told in state.detail
        for _ in range(3):
            await verify(pool)
        assert calls(faulty, honest) == [1, 4]
        await until(lambda: faulty.under_way == 0)  # the attempt it left was cancelled


@pytest.mark.parametrize("queued", [0, 3])
async def test_silence_that_is_short_or_behind_a_queue_moves_a_request_and_is_no_fault(
    queued: int,
) -> None:
    slow, quick = ScriptedRuntime(), ScriptedRuntime()
    slow.models, quick.models = [with_queue(queued)], [with_queue(queued + 1)]
    slow.silent = True
    bounds = replace(FAST, silence_fault_s=SOON_S if queued == 0 else 0.1)
    async with pool_of(slow, quick, bounds=bounds) as pool:
        assert await verify(pool, 2 * SILENT_S) == (-5,)
        assert pool.states()[0].healthy
    assert calls(slow, quick) == [1, 1]


async def test_a_runtime_that_failed_comes_back_on_trial() -> None:
    faulty, honest = ScriptedRuntime(), ScriptedRuntime()
    lie(faulty)
    async with pool_of(faulty, honest) as pool:
        await verify(pool)
        faulty.verification = honest.verification
        await until(lambda: pool.states()[0].healthy)
        faulty.hold()
        honest.hold()
        waiting = [asyncio.create_task(verify(pool)) for _ in range(5)]
        await until(lambda: honest.under_way == 4)
        assert faulty.under_way == 1, "one request at a time, until one succeeds"
        faulty.release()
        honest.release()
        await asyncio.gather(*waiting)
        faulty.hold()
        honest.hold()
        waiting = [asyncio.create_task(verify(pool)) for _ in range(4)]
        await until(lambda: (faulty.under_way, honest.under_way) == (2, 2))
        faulty.release()
        honest.release()
        await asyncio.gather(*waiting)


async def test_a_sole_runtime_that_lies_is_told_to_the_caller_and_not_asked_again() -> None:
    faulty = ScriptedRuntime()
    lie(faulty)
    async with pool_of(faulty) as pool:
        with pytest.raises(RuntimeReplyError) as refused:
            await verify(pool)
    assert refused.value.reason is ReplyFault.BAD_SCORES
    assert faulty.calls == 1


async def test_a_request_that_breaks_its_runtimes_is_given_to_each_once() -> None:
    runtimes = [ScriptedRuntime() for _ in range(3)]
    for runtime in runtimes:
        break_down(runtime)
    async with pool_of(*runtimes) as pool:
        with pytest.raises(RuntimeUnavailableError, match="ENGINE_FAILED"):
            await verify(pool)
    assert calls(*runtimes) == [1, 1, 1]


async def test_a_request_that_is_lost_again_and_again_is_given_up() -> None:
    alone = ScriptedRuntime()
    alone.unavailable = 1_000
    hasty = replace(FAST, retry_first_s=0.02, absent_retry_max_s=0.02)
    async with pool_of(alone, bounds=hasty) as pool:
        with pytest.raises(RuntimeUnavailableError, match="UNAVAILABLE: starting"):
            await asyncio.wait_for(verify(pool, 3600), SOON_S)
    assert alone.calls == FAST.attempts_max


async def test_a_refusal_is_the_callers_once_all_have_refused_and_held_against_nobody() -> None:
    runtimes = [ScriptedRuntime(), ScriptedRuntime()]
    for runtime in runtimes:
        runtime.refusal = (grpc.StatusCode.INVALID_ARGUMENT, "TEMPERATURE_TOO_HIGH")
    async with pool_of(*runtimes) as pool:
        with pytest.raises(RuntimeRefusedError) as refused:
            await verify(pool)
        assert refused.value.reason == "TEMPERATURE_TOO_HIGH"
        assert all(state.healthy for state in pool.states())
    assert calls(*runtimes) == [1, 1]


async def test_a_refusal_does_not_wait_for_a_runtime_that_is_out() -> None:
    refusing, absent = ScriptedRuntime(), ScriptedRuntime()
    refusing.refusal = (grpc.StatusCode.INVALID_ARGUMENT, "TEMPERATURE_TOO_HIGH")
    absent.healthy = False
    async with pool_of(refusing, absent) as pool:
        with pytest.raises(RuntimeRefusedError):
            await asyncio.wait_for(verify(pool, 3600), SOON_S)


async def test_a_full_runtime_is_passed_by_and_stays_in() -> None:
    full, empty = ScriptedRuntime(), ScriptedRuntime()
    full.refusal = (grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL")
    async with pool_of(full, empty) as pool:
        for _ in range(3):
            await verify(pool)
        assert pool.states()[0].healthy
    assert calls(full, empty) == [1, 3]


async def test_a_red_health_moves_a_verification_under_way() -> None:
    red, green = ScriptedRuntime(), ScriptedRuntime()
    async with pool_of(red, green) as pool:
        red.hold()
        green.hold()
        first = asyncio.create_task(verify(pool))
        await until(lambda: red.under_way == 1)
        green.release()
        red.healthy = False
        assert await first == (-5,)
        await until(lambda: red.under_way == 0)
        assert "not SERVING" in pool.states()[0].detail


async def test_a_sole_runtime_keeps_its_request_though_its_health_is_red() -> None:
    alone = ScriptedRuntime()
    async with pool_of(alone) as pool:
        alone.hold()
        asked = asyncio.create_task(verify(pool))
        await until(lambda: alone.under_way == 1)
        alone.healthy = False
        await until(lambda: not pool.states()[0].healthy)
        assert not await pool.ready()
        alone.release()
        assert await asked == (-5,)
        assert alone.calls == 1


async def test_a_runtime_that_answers_nothing_is_out_within_the_bound_and_back_when_it_does() -> (
    None
):
    hung, other = ScriptedRuntime(), ScriptedRuntime()
    bounds = replace(FAST, probe_deadline_s=0.5)
    async with pool_of(hung, other, bounds=bounds) as pool:
        hung.hung = True
        other.hold()
        asked = asyncio.create_task(verify(pool, 60))
        await until(lambda: hung.under_way + other.under_way == 1)
        other.release()
        await until(lambda: not pool.states()[0].healthy)
        assert await asyncio.wait_for(asked, SOON_S) == (-5,)
        assert "no answer within 0.5 s" in pool.states()[0].detail
        hung.hung = False
        await until(lambda: pool.states()[0].healthy)


async def test_one_late_answer_to_a_probe_is_no_absence() -> None:
    slow = ScriptedRuntime()
    async with pool_of(slow, bounds=replace(FAST, probe_deadline_s=3.0)) as pool:
        probed = slow.probes
        slow.late_probes = 1
        seen = set()
        while slow.late_probes or slow.probes < probed + 4:
            seen.add(pool.states()[0].detail)
            await asyncio.sleep(0.01)
        assert seen == {""}


async def test_a_runtime_that_went_and_came_is_found_again() -> None:
    leaving, staying = ScriptedRuntime(), ScriptedRuntime()
    server, target = await start_scripted(leaving)
    async with (
        serving_scripted(staying) as (other,),
        running(RuntimePool([target, other], FAST)) as pool,
    ):
        await until(lambda: all(state.healthy for state in pool.states()))
        leaving.hold()
        staying.hold()
        asked = [asyncio.create_task(verify(pool)) for _ in range(2)]
        await until(lambda: calls(leaving, staying) == [1, 1])
        await server.stop(0)
        staying.release()
        assert await asyncio.gather(*asked) == [(-5,)] * 2
        assert not pool.states()[0].healthy
        leaving.release()
        server, _ = await start_scripted(leaving, int(target.rsplit(":", 1)[1]))
        await until(lambda: pool.states()[0].healthy)
        await server.stop(0)


async def test_with_no_runtime_there_a_request_waits_for_one_until_its_deadline() -> None:
    scripted = ScriptedRuntime()
    server, target = await start_scripted(scripted)
    await server.stop(0)
    async with running(RuntimePool([target], FAST)) as pool:
        await until(lambda: pool.states()[0].detail != "not asked yet")
        with pytest.raises(RuntimeUnavailableError, match="UNAVAILABLE"):
            await verify(pool, 0.5)
        asked = asyncio.create_task(verify(pool))
        await asyncio.sleep(0.1)
        server, _ = await start_scripted(scripted, int(target.rsplit(":", 1)[1]))
        assert await asked == (-5,)
        await server.stop(0)


async def test_no_more_are_in_flight_at_a_runtime_and_no_more_wait_than_allowed() -> None:
    alone = ScriptedRuntime()
    narrow = replace(FAST, in_flight_max=2, waiting_max=1)
    async with pool_of(alone, bounds=narrow) as pool:
        alone.hold()
        asked = [asyncio.create_task(verify(pool)) for _ in range(3)]
        await until(lambda: alone.under_way == 2)
        with pytest.raises(RuntimeUnavailableError, match="1 requests wait") as refused:
            await verify(pool)
        assert refused.value.cause is Unavailability.BUSY
        assert alone.calls == 2
        alone.release()
        assert await asyncio.gather(*asked) == [(-5,)] * 3


async def test_no_request_takes_longer_than_the_wall_time() -> None:
    alone = ScriptedRuntime()
    alone.silent = True
    async with pool_of(alone, bounds=replace(FAST, wall_time_s=0.3)) as pool:
        with pytest.raises(RuntimeUnavailableError, match="DEADLINE_EXCEEDED"):
            await asyncio.wait_for(verify(pool, 3600), SOON_S)


async def test_a_generation_comes_through_as_it_was_sent() -> None:
    async with pool_of(ScriptedRuntime()) as pool:
        assert await collect(pool) == [
            Started(1, "exact"),
            Chunk((1, 2), (-1, -2), "a"),
            Chunk((3,), (0,), "b"),
            Chunk((), (), "c"),
            Finished(CLAIM),
        ]


async def test_a_generation_moves_while_nothing_was_yielded() -> None:
    faulty, honest = ScriptedRuntime(), ScriptedRuntime()
    faulty.replies[1].chunk.token_ids[0] = 10
    async with pool_of(faulty, honest, bounds=UNFORGIVING) as pool:
        events = await collect(pool)
        assert [type(event) for event in events[:2]] == [Started, Chunk]
        assert events[-1] == Finished(CLAIM)
        assert "token_outside_vocabulary" in pool.states()[0].detail
    assert calls(faulty, honest) == [1, 1]


async def test_a_generation_that_hangs_after_its_start_moves() -> None:
    hanging, honest = ScriptedRuntime(), ScriptedRuntime()
    hanging.silent_after = 1
    bounds = replace(UNFORGIVING, progress_s=PROGRESS_S)
    async with pool_of(hanging, honest, bounds=bounds) as pool:
        assert (await collect(pool))[-1] == Finished(CLAIM)
        assert f"no progress within {PROGRESS_S} s" in pool.states()[0].detail


@pytest.mark.parametrize("fault", ["hangs", "lies", "goes red"])
async def test_a_generation_that_breaks_off_is_unavailable_and_the_next_goes_elsewhere(
    fault: str,
) -> None:
    faulty, honest = ScriptedRuntime(), ScriptedRuntime()
    if fault == "lies":
        faulty.replies[2].chunk.token_ids[0] = 10
    else:
        faulty.silent_after = 2
    seen: list[GenerationEvent] = []
    bounds = replace(UNFORGIVING, progress_s=PROGRESS_S if fault == "hangs" else SOON_S)
    async with pool_of(faulty, honest, bounds=bounds) as pool:
        with pytest.raises(RuntimeUnavailableError):
            async for event in pool.generate(REQUEST, SOON_S):
                seen.append(event)
                faulty.healthy = fault != "goes red"
        assert [type(event) for event in seen] == [Started, Chunk]
        assert not pool.states()[0].healthy
        assert (await collect(pool))[-1] == Finished(CLAIM)
    assert calls(faulty, honest) == [1, 1]


async def test_closing_a_generation_cancels_it_and_frees_its_place() -> None:
    alone = ScriptedRuntime()
    alone.silent_after = 2
    async with pool_of(alone) as pool:
        events = pool.generate(REQUEST, 60)
        assert isinstance(await anext(events), Started)
        assert pool.states()[0].in_flight == 1
        await events.aclose()
        assert pool.states()[0].in_flight == 0
        assert pool.states()[0].healthy


async def test_a_runtime_whose_bytes_are_no_messages_never_gets_in() -> None:
    async with (
        serving_bytes(b"\xff\xff\xff") as target,
        running(RuntimePool([target], FAST)) as pool,
    ):
        await until(lambda: "unreadable" in pool.states()[0].detail)
        with pytest.raises(RuntimeUnavailableError, match="unreadable"):
            await verify(pool, 0.3)


async def test_whatever_runtimes_do_each_request_ends_and_none_is_counted_twice() -> None:
    dice = random.Random(7)
    runtimes = [ScriptedRuntime() for _ in range(3)]
    honest = runtimes[0].verification
    bounds = replace(
        FAST,
        progress_s=PROGRESS_S,
        retry_first_s=0.02,
        absent_retry_max_s=0.05,
        failed_retry_max_s=0.05,
    )

    async def disturb() -> None:
        while True:
            runtime = dice.choice(runtimes)
            runtime.healthy = dice.random() < 0.8
            runtime.unavailable = dice.choice((0, 0, 1))
            runtime.silent = dice.random() < 0.1
            runtime.refusal = dice.choice((None, None, None, UNKNOWN))
            runtime.verification = dice.choice((honest, honest, runtime_pb2.VerifyReply()))
            await asyncio.sleep(0.005)

    async with pool_of(*runtimes, bounds=bounds) as pool:
        disturbing = asyncio.create_task(disturb())
        work = [verify(pool, 5) if n % 2 else collect(pool, 5) for n in range(60)]
        done = await asyncio.wait_for(asyncio.gather(*work, return_exceptions=True), SOON_S)
        disturbing.cancel()
    failures = [item for item in done if isinstance(item, BaseException)]
    known = (RuntimeUnavailableError, RuntimeRefusedError, RuntimeReplyError)
    assert all(isinstance(item, known) for item in failures), failures
    answers = [item for item in done if not isinstance(item, BaseException)]
    assert len(answers) >= 20
    assert all(item == (-5,) or item[-1] == Finished(CLAIM) for item in answers)


def test_a_pool_needs_runtimes_and_each_only_once() -> None:
    for targets in ([], ["h:1", "h:1"]):
        with pytest.raises(ValueError, match="each once"):
            RuntimePool(targets)
