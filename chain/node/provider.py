"""The provider's side of a job: run what was assigned, stream it signed, put the result on chain.

A job is this provider's while the ledger says ASSIGNED with its account. If the runtime fails, the
attempt is tried again until the deadline; after that the chain reassigns, and nothing here needs
cleaning up.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial

from assay.v1 import inference_pb2, node_pb2, runtime_pb2, transactions_pb2
from chain.keys import KeyPair
from chain.node.streams import TokenStreams, chunk_message
from chain.records import Job, JobStatus
from chain.rejections import Rejection
from chain.runtime_client import (
    InferenceRuntime,
    RuntimeRefusedError,
    RuntimeUnavailableError,
)
from chain.runtime_replies import Chunk, RuntimeReplyError, Started
from chain.store import Store

OTHER_PROFILE = "OTHER_PROFILE"
RETRY_DELAY_MS = 250

logger = logging.getLogger(__name__)

SubmitOperations = Callable[[KeyPair, list[transactions_pb2.Op]], Awaitable[None]]


@dataclass(slots=True)
class _Published:
    """How much of an attempt its readers already have, so that a retry goes on where it broke
    off."""

    chunks: int = 0
    tokens: int = 0
    characters: int = 0


class ProviderAgent:
    """Runs jobs that the chain assigned to one account."""

    def __init__(
        self,
        chain_id: str,
        key: KeyPair,
        runtime: InferenceRuntime,
        store: Store,
        streams: TokenStreams,
        submit: SubmitOperations,
        clock_ms: Callable[[], int],
    ) -> None:
        self._chain_id = chain_id
        self._key = key
        self._runtime = runtime
        self._store = store
        self._streams = streams
        self._submit = submit
        self._clock_ms = clock_ms
        self._running: dict[tuple[bytes, int], asyncio.Task[None]] = {}

    def on_jobs(self, jobs: Iterable[tuple[bytes, Job]]) -> None:
        """Start what is newly ours; stop what is ours no longer."""
        for identity, job in jobs:
            ours = job.status is JobStatus.ASSIGNED and job.provider == self._key.public_key
            for key, task in list(self._running.items()):
                if key[0] == identity and (not ours or key[1] != job.attempts):
                    task.cancel()
            if ours and (identity, job.attempts) not in self._running:
                key = (identity, job.attempts)
                task = asyncio.create_task(self._run(identity, job))
                self._running[key] = task
                task.add_done_callback(partial(self._forget, key))

    def _forget(self, key: tuple[bytes, int], _: asyncio.Task[None]) -> None:
        self._running.pop(key, None)

    async def stop(self) -> None:
        """Cancel everything under way."""
        tasks = list(self._running.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, identity: bytes, job: Job) -> None:
        try:
            published = _Published()
            while self._clock_ms() < job.deadline_ms:
                try:
                    await self._generate(identity, job, published)
                    return
                except RuntimeUnavailableError as error:
                    logger.warning("job %s: runtime unavailable: %s", identity.hex()[:8], error)
                except (RuntimeRefusedError, RuntimeReplyError) as error:
                    logger.error("job %s: given up: %s", identity.hex()[:8], error)
                    return
                except Rejection as rejection:
                    logger.error("job %s: result refused: %s", identity.hex()[:8], rejection)
                    return
                await asyncio.sleep(RETRY_DELAY_MS / 1000)
        finally:
            self._streams.end(identity, job.attempts)

    async def _generate(self, identity: bytes, job: Job, published: _Published) -> None:
        request = await asyncio.to_thread(generate_request, job, self._store)
        left_s = (job.deadline_ms - self._clock_ms()) / 1000
        tokens = characters = 0
        async with aclosing(self._runtime.generate(request, left_s)) as events:
            async for event in events:
                if isinstance(event, Chunk):
                    new = Chunk(
                        event.token_ids[max(0, published.tokens - tokens) :],
                        event.logprobs[max(0, published.tokens - tokens) :],
                        event.text[max(0, published.characters - characters) :],
                    )
                    tokens += len(event.token_ids)
                    characters += len(event.text)
                    if new.token_ids or new.text:
                        self._publish(identity, job, published, new)
                elif isinstance(event, Started):
                    _check_profile(event, job)
                else:
                    self._publish(identity, job, published, Chunk((), (), ""), last=True)
                    operation = transactions_pb2.Op(
                        submit_result=transactions_pb2.SubmitResult(
                            job=identity, result=event.result
                        )
                    )
                    await self._submit(self._key, [operation])

    def _publish(
        self,
        identity: bytes,
        job: Job,
        published: _Published,
        chunk: Chunk,
        last: bool = False,
    ) -> None:
        message = node_pb2.TokenChunk(
            job=identity,
            attempt=job.attempts,
            sequence=published.chunks,
            token_ids=chunk.token_ids,
            logprobs=chunk.logprobs,
            text=chunk.text,
            provider=self._key.public_key,
            last=last,
        )
        message.signature = self._key.sign(chunk_message(self._chain_id, message))
        self._streams.publish(message)
        published.chunks += 1
        published.tokens += len(chunk.token_ids)
        published.characters += len(chunk.text)


def _check_profile(started: Started, job: Job) -> None:
    # Told before a token is streamed: the chain would refuse the result, so nobody should pay for
    # reading it.
    if started.engine_profile != job.engine_profile:
        raise RuntimeRefusedError(
            OTHER_PROFILE,
            f"the runtime answers with {started.engine_profile}, the job was assigned for "
            f"{job.engine_profile}",
        )


def generate_request(job: Job, store: Store) -> runtime_pb2.GenerateRequest:
    """What a runtime is asked for a job, from the stored request. Provider and verifiers ask the
    same."""
    request = stored_request(job, store)
    return runtime_pb2.GenerateRequest(
        model=job.model, input=request.input, sampling=request.sampling, seed=job.seed or b""
    )


def stored_request(job: Job, store: Store) -> transactions_pb2.RequestInference:
    """The request a job's digest names; every executed request is stored."""
    payload = store.payload(job.request_digest)
    if payload is None:
        raise RuntimeError(f"the request {job.request_digest.hex()} of an open job is not stored")
    return transactions_pb2.RequestInference.FromString(payload)


def stored_result(job: Job, store: Store) -> inference_pb2.InferenceResult | None:
    """The result a job's digest names, once it is answered."""
    payload = None if job.result_digest is None else store.payload(job.result_digest)
    return None if payload is None else inference_pb2.InferenceResult.FromString(payload)
