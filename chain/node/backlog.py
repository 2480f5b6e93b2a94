"""What each peer has sent that is not worked off: above a bound the peer is read no further.

gRPC's flow control then holds the peer's frames back, and its own outbox bounds what it keeps. So a
peer costs a bounded amount of memory here, however fast it sends.
"""

import asyncio

BACKLOG_BYTES_MAX = 4 * 1024 * 1024
"""A peer may be one message above it."""
MESSAGE_BYTES_LEAST = 1024
"""What the smallest message counts, about what it costs as objects."""


class Backlog:
    """Bytes by peer. Used from the event loop only."""

    def __init__(self, bytes_max: int = BACKLOG_BYTES_MAX) -> None:
        self._bytes_max = bytes_max
        self._bytes: dict[int, int] = {}
        self._freed: dict[int, asyncio.Event] = {}

    def add(self, peer: int, size_bytes: int) -> int:
        """Count something that waits; what to give back to `remove`."""
        counted = max(size_bytes, MESSAGE_BYTES_LEAST)
        self._bytes[peer] = self._bytes.get(peer, 0) + counted
        return counted

    def remove(self, peer: int, counted: int) -> None:
        """It has been worked off."""
        self._bytes[peer] -= counted
        if self._bytes[peer] <= self._bytes_max and peer in self._freed:
            self._freed.pop(peer).set()

    async def room(self, peer: int) -> None:
        """Return when the peer may send more."""
        while self._bytes.get(peer, 0) > self._bytes_max:
            await self._freed.setdefault(peer, asyncio.Event()).wait()
