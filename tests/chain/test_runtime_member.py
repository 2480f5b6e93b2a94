"""One runtime of a pool: how long it stays out, how long it is left alone, what is told of it."""

import random

from chain.runtime_client import RuntimeClient
from chain.runtime_member import (
    BACK_OFF_JITTER,
    BUSY_RETRY_MAX_S,
    BUSY_RETRY_S,
    REASON_CHARACTERS_MAX,
    BackOff,
    Member,
    PoolBounds,
)
from tests.chain.scripted_runtime import ScriptedRuntime, serving_scripted


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_the_back_off_grows_to_its_bound_with_jitter_and_starts_anew() -> None:
    back_off = BackOff(0.5, 4.0, random.Random(3))
    for _ in range(2):
        delays_s = [back_off.next_delay_s() for _ in range(6)]
        for delay_s, least_s in zip(delays_s, (0.5, 1, 2, 4, 4, 4), strict=True):
            assert least_s <= delay_s <= least_s * (1 + BACK_OFF_JITTER)
        assert len(set(delays_s)) == 6
        back_off.reset()
    back_off.times = 100_000
    assert back_off.next_delay_s() <= 4.0 * (1 + BACK_OFF_JITTER)


async def test_failures_long_past_do_not_lengthen_the_next_back_off() -> None:
    clock, told = Clock(), []
    async with (
        serving_scripted(ScriptedRuntime()) as (target,),
        RuntimeClient(target, retries=False) as client,
    ):
        member = Member(client, PoolBounds(), clock, random.Random(1), lambda: told.append(1))
        await member.probe()
        assert member.healthy
        delays_s = []
        for _ in range(4):
            member.failed("broken")
            member.failed("the same fault, seen by another request")
            delays_s.append(member.next_probe_in_s())
            await member.probe()
            assert member.next_probe_in_s() == delays_s[-1], "not before its time"
            clock.now_s += delays_s[-1]
            await member.probe()
            assert member.on_trial
        assert [int(delay_s / 0.5) for delay_s in delays_s[:3]] == [1, 2, 4]
        assert 4 <= delays_s[3] <= 4 * (1 + BACK_OFF_JITTER)
        clock.now_s += PoolBounds().forgive_after_s + 1
        member.failed("broken")
        assert member.next_probe_in_s() < 1
    assert len(told) == 10


async def test_a_full_runtime_is_left_alone_as_long_as_it_asks_within_a_bound() -> None:
    clock = Clock()
    async with RuntimeClient("127.0.0.1:1") as client:
        member = Member(client, PoolBounds(), clock, random.Random(1), lambda: None)
        member.trouble = ""
        for asked_s, left_alone_s in ((None, BUSY_RETRY_S), (3.0, 3.0), (1e9, BUSY_RETRY_MAX_S)):
            member.busy(asked_s)
            clock.now_s += left_alone_s - 0.01
            assert not member.is_free()
            clock.now_s += 0.02
            assert member.is_free()


async def test_a_runtimes_own_words_are_cut_to_one_short_line() -> None:
    async with RuntimeClient("127.0.0.1:1") as client:
        alone = Member(client, PoolBounds(), Clock(), random.Random(1), lambda: None)
        alone.trouble = ""
        alone.failed("first line\nsecond line " + "x" * 10_000)
        assert alone.trouble.startswith("first line second line xxx")
        assert len(alone.trouble) == REASON_CHARACTERS_MAX
