"""A peer that sends faster than it is worked off is not read until it is; others are."""

import asyncio

from chain.node.backlog import MESSAGE_BYTES_LEAST, Backlog


async def test_above_the_bound_a_peer_waits_and_the_others_do_not() -> None:
    backlog = Backlog(bytes_max=10_000)
    first = backlog.add(1, 6_000)
    await asyncio.wait_for(backlog.room(1), 1)
    second = backlog.add(1, 6_000)
    waiting = asyncio.create_task(backlog.room(1))
    await asyncio.wait_for(backlog.room(2), 1)
    await asyncio.sleep(0)
    assert not waiting.done()
    backlog.remove(1, first)
    await asyncio.wait_for(waiting, 1)
    backlog.remove(1, second)
    await asyncio.wait_for(backlog.room(1), 1)


async def test_all_who_wait_for_one_peer_go_on_and_wait_again_if_it_is_full_again() -> None:
    backlog = Backlog(bytes_max=10_000)
    counted = backlog.add(1, 20_000)
    waiting = [asyncio.create_task(backlog.room(1)) for _ in range(3)]
    await asyncio.sleep(0)
    backlog.remove(1, counted)
    again = backlog.add(1, 20_000)
    await asyncio.sleep(0)
    assert not any(task.done() for task in waiting)
    backlog.remove(1, again)
    await asyncio.wait_for(asyncio.gather(*waiting), 1)


async def test_many_tiny_messages_count_too() -> None:
    backlog = Backlog(bytes_max=10 * MESSAGE_BYTES_LEAST)
    for _ in range(11):
        assert backlog.add(1, 1) == MESSAGE_BYTES_LEAST
    waiting = asyncio.create_task(backlog.room(1))
    await asyncio.sleep(0)
    assert not waiting.done()
    waiting.cancel()
