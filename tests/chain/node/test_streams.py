"""Tokens on their way: every reader hears an attempt from its start to its end."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from assay.v1 import node_pb2
from chain.node.streams import ATTEMPTS_KEPT, TokenStreams, chunk_message

JOB = b"j" * 32
SOON_S = 60.0


def chunk(
    sequence: int, job: bytes = JOB, attempt: int = 1, last: bool = False
) -> node_pb2.TokenChunk:
    return node_pb2.TokenChunk(
        job=job,
        attempt=attempt,
        sequence=sequence,
        token_ids=[sequence],
        logprobs=[-sequence],
        text=f"word {sequence}",
        last=last,
    )


async def heard(source: AsyncIterator[node_pb2.TokenChunk]) -> list[int]:
    async with asyncio.timeout(SOON_S):
        return [item.sequence async for item in source]


async def test_an_early_and_a_late_reader_hear_the_same() -> None:
    streams = TokenStreams()
    early = asyncio.create_task(heard(streams.read(JOB, 1)))
    await asyncio.sleep(0)
    for sequence in range(3):
        streams.publish(chunk(sequence))
        await asyncio.sleep(0)
    streams.publish(chunk(3, last=True))
    assert await early == [0, 1, 2, 3]
    assert await heard(streams.read(JOB, 1)) == [0, 1, 2, 3]


async def test_attempts_and_jobs_are_kept_apart() -> None:
    streams = TokenStreams()
    streams.publish(chunk(0, last=True))
    streams.publish(chunk(7, attempt=2, last=True))
    streams.publish(chunk(9, job=b"k" * 32, last=True))
    assert await heard(streams.read(JOB, 1)) == [0]
    assert await heard(streams.read(JOB, 2)) == [7]
    assert await heard(streams.read(b"k" * 32, 1)) == [9]


async def test_a_reader_waits_for_more() -> None:
    streams = TokenStreams()
    streams.publish(chunk(0))
    source = streams.read(JOB, 1)
    assert (await anext(source)).sequence == 0
    waiting = asyncio.ensure_future(anext(source))
    await asyncio.sleep(0)
    assert not waiting.done()
    streams.publish(chunk(1))
    assert (await waiting).sequence == 1


async def test_readers_of_an_attempt_that_was_given_up_are_let_go() -> None:
    streams = TokenStreams()
    streams.publish(chunk(0))
    reader = asyncio.create_task(heard(streams.read(JOB, 1)))
    await asyncio.sleep(0)
    streams.end(JOB, 1)
    assert await reader == [0]


async def test_who_comes_after_an_attempt_was_given_up_without_a_word_does_not_wait() -> None:
    streams = TokenStreams()
    streams.end(JOB, 1)
    assert await heard(streams.read(JOB, 1)) == []


async def test_the_oldest_attempt_goes_when_there_are_too_many() -> None:
    streams = TokenStreams()
    streams.publish(chunk(0))
    reader = asyncio.create_task(heard(streams.read(JOB, 1)))
    await asyncio.sleep(0)
    for number in range(ATTEMPTS_KEPT):
        streams.publish(chunk(0, job=number.to_bytes(32, "big")))
    assert await reader == [0]


@pytest.mark.parametrize(
    "change",
    [
        {"job": b"k" * 32},
        {"attempt": 2},
        {"sequence": 4},
        {"token_ids": [4]},
        {"token_ids": [3, 0]},
        {"logprobs": [-4]},
        {"text": "word 3."},
        {"last": True},
    ],
)
def test_a_chunks_signature_covers_all_it_says(change: dict[str, object]) -> None:
    said = chunk(3)
    other = chunk(3)
    for name in change:
        other.ClearField(name)  # type: ignore[arg-type]
    other.MergeFrom(node_pb2.TokenChunk(**change))  # type: ignore[arg-type]
    assert chunk_message("chain", said) == chunk_message("chain", chunk(3))
    assert chunk_message("chain", said) != chunk_message("chain", other)
    assert chunk_message("chain", said) != chunk_message("another", said)
