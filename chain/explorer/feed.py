"""What happens on the chain, block by block, to whoever listens.

One task follows the node; listeners share what it reads. Each has a queue of its own, and one that
does not empty it is let go: its browser connects again and asks for what it missed.
"""

import asyncio
import json
from collections import deque
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from typing import Any, Final

from chain.explorer.readings import block_value, changed_jobs
from chain.node.node import Node
from chain.rejections import Rejection

POINTS_MAX: Final = 256
"""Blocks that the charts show."""
QUEUED_MAX: Final = 64
QUIET_S: Final = 15.0
"""After so long without news a listener hears that the connection lives."""
CATCH_UP_BLOCKS: Final = 32
"""A feed that fell further behind leaves blocks out: lists have them."""


@dataclass(frozen=True, slots=True)
class Point:
    """One block in the charts."""

    height: int
    timestamp_ms: int
    """By its proposer's clock."""
    transactions: int
    executed_after_ms: int | None
    """From the block's time to the moment this node had executed it; None for what was executed
    before the node started."""

    def value(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "height": self.height,
            "timestamp_ms": self.timestamp_ms,
            "transactions": self.transactions,
            "executed_after_ms": self.executed_after_ms,
        }


class Feed:
    """Follows one node. Used from its event loop only."""

    def __init__(self, node: Node, clock_ms: Callable[[], int]) -> None:
        self._node = node
        self._clock_ms = clock_ms
        self._points: deque[Point] = deque(maxlen=POINTS_MAX)
        self._listeners: set[asyncio.Queue[str | None]] = set()

    def points(self) -> list[dict[str, Any]]:
        """The newest blocks, oldest first."""
        return [point.value() for point in self._points]

    async def run(self) -> None:
        """Follow the node until cancelled."""
        height = max(0, self._node.height - POINTS_MAX)
        while height < self._node.height:
            height += 1
            await self._take(height, None)
        while True:
            await self._node.next_block()
            seen_ms = self._clock_ms()
            newest = self._node.height
            for fresh in range(max(height, newest - CATCH_UP_BLOCKS) + 1, newest + 1):
                await self._take(fresh, seen_ms if fresh == newest else None)
            height = newest

    async def listen(self) -> AsyncGenerator[str, None]:
        """Server-sent events from now on; ends when the listener is too slow."""
        queue: asyncio.Queue[str | None] = asyncio.Queue(QUEUED_MAX)
        self._listeners.add(queue)
        try:
            yield event("hello", {"height": self._node.height})
            while True:
                try:
                    news = await asyncio.wait_for(queue.get(), QUIET_S)
                except TimeoutError:
                    yield ": quiet\n\n"
                    continue
                if news is None:
                    return
                yield news
        finally:
            self._listeners.discard(queue)

    async def _take(self, height: int, seen_ms: int | None) -> None:
        """Note one block, and tell it. What is pruned meanwhile is left out."""
        try:
            found = await self._node.look_up(self._read, height)
        except Rejection:
            return
        if found is None:
            return
        block, changes = found
        timestamp_ms = int(block["timestamp_ms"])
        after_ms = None if seen_ms is None else max(0, seen_ms - timestamp_ms)
        point = Point(height, timestamp_ms, int(block["transactions"]), after_ms)
        self._points.append(point)
        self._tell(event("block", {**block, "executed_after_ms": after_ms, "jobs": changes}))

    def _read(self, height: int) -> tuple[dict[str, Any], list[dict[str, Any]]] | None:
        block = block_value(self._node.store, height)
        return None if block is None else (block, changed_jobs(self._node.store, height))

    def _tell(self, news: str) -> None:
        for queue in tuple(self._listeners):
            if queue.full():
                self._listeners.discard(queue)
                queue.get_nowait()
                queue.put_nowait(None)
            else:
                queue.put_nowait(news)


def event(name: str, value: Any) -> str:
    """One server-sent event."""
    return f"event: {name}\ndata: {json.dumps(value, ensure_ascii=False)}\n\n"
