"""The provider's agent: what the chain assigned is answered once, streamed, and let go in time."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import cast

import pytest

from assay.v1 import inference_pb2, node_pb2, runtime_pb2, transactions_pb2
from chain.keys import KeyPair
from chain.node.provider import ProviderAgent
from chain.node.streams import TokenStreams, chunk_message
from chain.records import Job, JobStatus
from chain.rejections import Rejection, RejectionReason
from chain.runtime_client import RuntimeClient, RuntimeUnavailableError
from chain.runtime_replies import Chunk, Finished, GenerationEvent
from chain.store import Store
from ext.signatures import verify
from tests.builders import genesis, key
from tests.chain.node.agents import (
    JOB,
    NOW_MS,
    PROVIDER,
    SOON_S,
    assigned_job,
    store_of,
)
from tests.runtime.serving import serving
from tests.runtime.tiny_engine import TinyEngine

ABSENT = "127.0.0.1:1"


class Office:
    """Takes what the agent submits, and is the agent's clock."""

    def __init__(self, refusal: Rejection | None = None) -> None:
        self.submitted: asyncio.Queue[transactions_pb2.SubmitResult] = asyncio.Queue()
        self.refusal = refusal
        self.now_ms = NOW_MS

    async def submit(self, signer: KeyPair, operations: list[transactions_pb2.Op]) -> None:
        assert signer is PROVIDER
        assert len(operations) == 1
        self.submitted.put_nowait(operations[0].submit_result)
        if self.refusal is not None:
            raise self.refusal

    async def next(self) -> transactions_pb2.SubmitResult:
        async with asyncio.timeout(SOON_S):
            return await self.submitted.get()


def agent_of(
    runtime: RuntimeClient, store: Store, streams: TokenStreams, office: Office
) -> ProviderAgent:
    return ProviderAgent(
        genesis().chain_id,
        PROVIDER,
        runtime,
        store,
        streams,
        office.submit,
        lambda: office.now_ms,
    )


async def heard(streams: TokenStreams, attempt: int = 1) -> list[node_pb2.TokenChunk]:
    async with asyncio.timeout(SOON_S):
        return [chunk async for chunk in streams.read(JOB, attempt)]


async def idle(agent: ProviderAgent) -> None:
    """Return when the agent has nothing under way."""
    async with asyncio.timeout(SOON_S):
        while agent._running:
            await asyncio.sleep(0.01)


async def test_an_assigned_job_is_streamed_signed_and_put_on_chain(tmp_path: Path) -> None:
    engine, streams, office = TinyEngine(), TokenStreams(), Office()
    with store_of(tmp_path) as (store, chain):
        job = assigned_job(chain, engine)
        async with serving(engine) as target, RuntimeClient(target) as runtime:
            agent = agent_of(runtime, store, streams, office)
            agent.on_jobs([(JOB, job)])
            submitted = await office.next()
            chunks = await heard(streams)
            await idle(agent)
    assert submitted.job == JOB
    result = submitted.result
    assert len(result.token_ids) == 8
    assert [token for chunk in chunks for token in chunk.token_ids] == list(result.token_ids)
    assert [value for chunk in chunks for value in chunk.logprobs] == list(result.logprobs)
    assert "".join(chunk.text for chunk in chunks) == result.text
    assert [chunk.sequence for chunk in chunks] == list(range(len(chunks)))
    assert [chunk.last for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    for chunk in chunks:
        assert chunk.provider == PROVIDER.public_key
        message = chunk_message(genesis().chain_id, chunk)
        assert verify(PROVIDER.public_key, message, chunk.signature)


async def test_a_job_of_another_profile_is_given_up_before_a_token_is_streamed(
    tmp_path: Path,
) -> None:
    engine, streams, office = TinyEngine(), TokenStreams(), Office()
    with store_of(tmp_path) as (store, chain):
        job = assigned_job(chain, engine)._replace(engine_profile="another")
        async with serving(engine) as target, RuntimeClient(target) as runtime:
            agent = agent_of(runtime, store, streams, office)
            agent.on_jobs([(JOB, job)])
            assert await heard(streams) == []
            await idle(agent)
    assert office.submitted.empty()


async def test_a_job_is_answered_once_however_often_it_is_told(tmp_path: Path) -> None:
    engine, office = TinyEngine(), Office()
    with store_of(tmp_path) as (store, chain):
        job = assigned_job(chain, engine)
        async with serving(engine) as target, RuntimeClient(target) as runtime:
            agent = agent_of(runtime, store, TokenStreams(), office)
            agent.on_jobs([(JOB, job)])
            agent.on_jobs([(JOB, job), (JOB, job)])
            await office.next()
            await idle(agent)
    assert office.submitted.empty()


@pytest.mark.parametrize(
    "change",
    [
        {"provider": key("account-2").public_key},
        {"status": JobStatus.REQUESTED, "provider": None},
        {"status": JobStatus.ANSWERED},
    ],
)
async def test_what_is_not_assigned_to_it_is_left_alone(
    tmp_path: Path, change: dict[str, object]
) -> None:
    engine, office = TinyEngine(), Office()
    with store_of(tmp_path) as (store, chain):
        job = assigned_job(chain, engine)._replace(**change)  # type: ignore[arg-type]
        async with RuntimeClient(ABSENT) as runtime:
            agent = agent_of(runtime, store, TokenStreams(), office)
            agent.on_jobs([(JOB, job)])
            assert not agent._running
    assert office.submitted.empty()


async def test_a_job_that_moved_on_is_dropped_and_its_readers_let_go(tmp_path: Path) -> None:
    engine, streams, office = TinyEngine(), TokenStreams(), Office()
    with store_of(tmp_path) as (store, chain):
        job = assigned_job(chain, engine)
        async with serving(engine) as target, RuntimeClient(target) as runtime:
            engine.hold()
            agent = agent_of(runtime, store, streams, office)
            agent.on_jobs([(JOB, job)])
            await asyncio.to_thread(engine.held.wait, SOON_S)
            agent.on_jobs([(JOB, job._replace(status=JobStatus.REQUESTED, provider=None))])
            assert await heard(streams) == []
            await idle(agent)
            engine.release()
    assert office.submitted.empty()


async def test_without_a_runtime_it_tries_until_the_deadline(tmp_path: Path) -> None:
    streams, office = TokenStreams(), Office()
    with store_of(tmp_path) as (store, chain):
        job = assigned_job(chain, TinyEngine())._replace(deadline_ms=NOW_MS + 300)
        async with RuntimeClient(ABSENT) as runtime:
            agent = agent_of(runtime, store, streams, office)
            agent.on_jobs([(JOB, job)])
            reader = asyncio.create_task(heard(streams))
            await asyncio.sleep(0.1)
            assert not reader.done()
            office.now_ms = job.deadline_ms
            assert await reader == []
            await idle(agent)
    assert office.submitted.empty()


async def test_what_its_runtime_refuses_is_given_up_at_once(tmp_path: Path) -> None:
    engine, streams, office = TinyEngine(context_tokens=16), TokenStreams(), Office()
    with store_of(tmp_path) as (store, chain):
        job = assigned_job(chain, engine, text="a prompt of more than sixteen characters")
        async with serving(engine) as target, RuntimeClient(target) as runtime:
            agent = agent_of(runtime, store, streams, office)
            agent.on_jobs([(JOB, job)])
            assert await heard(streams) == []
            await idle(agent)
    assert office.submitted.empty()


async def test_a_result_that_the_ledger_refuses_is_not_sent_again(tmp_path: Path) -> None:
    refusal = Rejection(RejectionReason.JOB_NOT_OPEN, "too late")
    engine, office = TinyEngine(), Office(refusal)
    with store_of(tmp_path) as (store, chain):
        job = assigned_job(chain, engine)
        async with serving(engine) as target, RuntimeClient(target) as runtime:
            agent = agent_of(runtime, store, TokenStreams(), office)
            agent.on_jobs([(JOB, job)])
            await office.next()
            await idle(agent)
    assert office.submitted.empty()


class BreakingOff:
    """A runtime that dies after some chunks, and is back at the next try."""

    def __init__(self, chunks: tuple[Chunk, ...], result: inference_pb2.InferenceResult) -> None:
        self._chunks = chunks
        self._result = result
        self.calls = 0

    async def generate(
        self, request: runtime_pb2.GenerateRequest, deadline_s: float
    ) -> AsyncIterator[GenerationEvent]:
        assert request.seed
        assert deadline_s > 0
        self.calls += 1
        for number, chunk in enumerate(self._chunks):
            if number == self.calls and self.calls < len(self._chunks):
                raise RuntimeUnavailableError("killed")
            yield chunk
        yield Finished(self._result)


async def test_a_retry_goes_on_in_the_stream_where_it_broke_off(tmp_path: Path) -> None:
    engine, streams, office = TinyEngine(), TokenStreams(), Office()
    chunks = (
        Chunk((1,), (-1,), "o"),
        Chunk((2, 3), (-2, -3), "ne t"),
        Chunk((4,), (-4,), "wo"),
    )
    result = inference_pb2.InferenceResult(token_ids=[1, 2, 3, 4], text="one two")
    runtime = BreakingOff(chunks, result)
    with store_of(tmp_path) as (store, chain):
        job: Job = assigned_job(chain, engine)
        agent = agent_of(cast(RuntimeClient, runtime), store, streams, office)
        agent.on_jobs([(JOB, job)])
        await office.next()
        said = await heard(streams)
        await idle(agent)
    assert runtime.calls == len(chunks)
    assert [token for chunk in said for token in chunk.token_ids] == [1, 2, 3, 4]
    assert "".join(chunk.text for chunk in said) == "one two"
    assert [chunk.sequence for chunk in said] == list(range(len(said)))
