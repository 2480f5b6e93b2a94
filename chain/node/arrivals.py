"""What has come and is not stepped yet, and what is stepped next.

The node's own events go first: there are only as many as its own work makes. Then urgent messages,
one of each peer in turn, so that whoever floods waits behind itself and nobody else; then bulk, in
turn as well. However many urgent ones there are, bulk gets one step in URGENT_RUN_MAX.

What a peer has here counts against it until it is worked off, each kind for itself: above its bound
the peer is read no further on that stream.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar

from chain.node.backlog import BACKLOG_BYTES_MAX, Backlog
from chain.node.traffic import Traffic, traffic_of
from consensus.events import Demand, Event, MessageReceived, PeerConnected, SealBatch, Start
from consensus.messages import Message

URGENT_BACKLOG_BYTES_MAX = 1024 * 1024
"""A thousand votes of a peer; what a quorum of peers sends for one view is far less."""
URGENT_RUN_MAX = 64

LASTING = SealBatch | Demand | PeerConnected
T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False)
class Arrived:
    """An event, and how to count it off."""

    event: Event
    size_bytes: int
    """0 for the node's own."""
    done: Callable[[], None]
    """To be called once it is stepped."""


class Rounds(Generic[T]):
    """Things that wait, by peer, taken from one peer after another."""

    def __init__(self) -> None:
        self._waiting: dict[int, deque[T]] = {}
        self._turns: deque[int] = deque()
        """Peers of which something waits."""

    def put(self, peer: int, thing: T) -> None:
        """Behind what else waits of this peer."""
        if peer not in self._waiting:
            self._waiting[peer] = deque()
            self._turns.append(peer)
        self._waiting[peer].append(thing)

    def take(self) -> T | None:
        """The next, of the peer whose turn it is."""
        if not self._turns:
            return None
        peer = self._turns.popleft()
        waiting = self._waiting[peer]
        thing = waiting.popleft()
        if waiting:
            self._turns.append(peer)
        else:
            del self._waiting[peer]
        return thing

    def __bool__(self) -> bool:
        return bool(self._turns)


class Arrivals:
    """Used from the event loop only."""

    def __init__(self) -> None:
        self._own: deque[Event] = deque()
        self._urgent = Rounds[Arrived]()
        self._bulk = Rounds[Arrived]()
        self._backlogs = {
            Traffic.URGENT: Backlog(URGENT_BACKLOG_BYTES_MAX),
            Traffic.BULK: Backlog(BACKLOG_BYTES_MAX),
        }
        self._urgent_run = 0
        self._changed = asyncio.Event()

    def post(self, event: Event) -> None:
        """Queue an event of this node's own."""
        self._own.append(event)
        self._changed.set()

    async def receive(self, peer: int, message: Message, size_bytes: int) -> None:
        """Queue a peer's message; returns when the peer may be read again on its stream."""
        self.put(peer, message, size_bytes)
        await self.room(peer, traffic_of(message))

    def put(self, peer: int, message: Message, size_bytes: int) -> None:
        """Queue a peer's message, and don't wait."""
        traffic = traffic_of(message)
        done = self._count(traffic, peer, size_bytes)
        rounds = self._bulk if traffic is Traffic.BULK else self._urgent
        rounds.put(peer, Arrived(MessageReceived(peer, message), size_bytes, done))
        self._changed.set()

    def begin_epoch(self) -> None:
        """Of the node's own events only those are left that mean the same to another replica, which
        starts first."""
        lasting = [event for event in self._own if isinstance(event, LASTING)]
        self._own = deque((Start(), *lasting))
        self._changed.set()

    async def room(self, peer: int, traffic: Traffic) -> None:
        """Return when the peer may be read on this stream."""
        await self._backlogs[traffic].room(peer)

    def hold(self, peer: int, size_bytes: int) -> Callable[[], None]:
        """Count work for a peer in its backlog of bulk; call the answer when it is done."""
        return self._count(Traffic.BULK, peer, size_bytes)

    def take(self) -> Arrived | None:
        """The next to be stepped, if there is any."""
        if self._own:
            return Arrived(self._own.popleft(), 0, _nothing)
        if self._urgent and (self._urgent_run < URGENT_RUN_MAX or not self._bulk):
            self._urgent_run += 1
            return self._urgent.take()
        self._urgent_run = 0
        return self._bulk.take()

    async def changed(self) -> None:
        """Return when something comes, or after `wake`."""
        self._changed.clear()
        await self._changed.wait()

    def wake(self) -> None:
        """Let who waits for changes look about."""
        self._changed.set()

    def __bool__(self) -> bool:
        return bool(self._own or self._urgent or self._bulk)

    def _count(self, traffic: Traffic, peer: int, size_bytes: int) -> Callable[[], None]:
        backlog = self._backlogs[traffic]
        return partial(backlog.remove, peer, backlog.add(peer, size_bytes))


def _nothing() -> None:
    """Own events count against nobody."""
