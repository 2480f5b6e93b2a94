"""Tokens on their way: what a provider has produced for a job, for anyone who asks at this node.

A job's attempt is one append-only list of signed chunks; a subscriber reads it from the start and
then waits for more. Attempts are kept for a bounded number of jobs, oldest out first. Only who
publishes makes one: of what has not begun, and may never, nothing is kept but its readers.
"""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field

from assay.v1 import node_pb2
from ext.hashing import tagged_hash

ATTEMPTS_KEPT = 1024


def chunk_message(chain_id: str, chunk: node_pb2.TokenChunk) -> bytes:
    """The 32 bytes under a chunk's signature."""
    return tagged_hash(
        b"chunk",
        chain_id.encode(),
        chunk.job,
        chunk.attempt.to_bytes(4, "little"),
        chunk.sequence.to_bytes(4, "little"),
        b"".join(token.to_bytes(4, "little") for token in chunk.token_ids),
        b"".join(value.to_bytes(4, "little", signed=True) for value in chunk.logprobs),
        chunk.text.encode(),
        b"\x01" if chunk.last else b"\x00",
    )


@dataclass(slots=True)
class _Attempt:
    chunks: list[node_pb2.TokenChunk] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    ended: bool = False


class TokenStreams:
    """Chunks by (job, attempt). Used from the event loop only."""

    def __init__(self) -> None:
        self._attempts: OrderedDict[tuple[bytes, int], _Attempt] = OrderedDict()
        self._awaited: dict[tuple[bytes, int], set[asyncio.Future[_Attempt]]] = {}

    def publish(self, chunk: node_pb2.TokenChunk) -> None:
        """Append a chunk and wake its readers; the last chunk ends the attempt."""
        attempt = self._attempt(chunk.job, chunk.attempt)
        attempt.chunks.append(chunk)
        attempt.ended = attempt.ended or chunk.last
        self._wake(attempt)

    def end(self, job: bytes, number: int) -> None:
        """No more chunks will come: the provider gave up, or the job moved on."""
        attempt = self._attempt(job, number)  # remembered for readers who are yet to come
        attempt.ended = True
        self._wake(attempt)

    async def read(self, job: bytes, number: int) -> AsyncGenerator[node_pb2.TokenChunk, None]:
        """All chunks of an attempt, from the first; ends when the attempt does."""
        attempt = self._attempts.get((job, number)) or await self._begun((job, number))
        sent = 0
        while True:
            changed = attempt.changed
            while sent < len(attempt.chunks):
                sent += 1
                yield attempt.chunks[sent - 1]
            if attempt.ended:
                return
            await changed.wait()

    def _attempt(self, job: bytes, number: int) -> _Attempt:
        key = (job, number)
        attempt = self._attempts.get(key)
        if attempt is None:
            attempt = self._attempts[key] = _Attempt()
            for reader in self._awaited.pop(key, ()):
                if not reader.done():
                    reader.set_result(attempt)
            while len(self._attempts) > ATTEMPTS_KEPT:
                _, oldest = self._attempts.popitem(last=False)
                oldest.ended = True
                self._wake(oldest)
        return attempt

    async def _begun(self, key: tuple[bytes, int]) -> _Attempt:
        """An attempt that nothing is known of, once it begins."""
        reader: asyncio.Future[_Attempt] = asyncio.get_running_loop().create_future()
        self._awaited.setdefault(key, set()).add(reader)
        try:
            return await reader
        finally:
            others = self._awaited.get(key)
            if others is not None:
                others.discard(reader)
                if not others:
                    del self._awaited[key]

    @staticmethod
    def _wake(attempt: _Attempt) -> None:
        attempt.changed.set()
        attempt.changed = asyncio.Event()
