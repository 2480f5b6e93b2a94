"""HTTP connections that end when their other side stops doing its part.

uvicorn counts connections and refuses requests above a bound, but lets one stay that never sends a
whole request, or does not read its answer: a hundred such, which cost nothing, would shut everybody
else out, an operator's probes among them. Here each connection is looked at now and then, and where
there are too many the one that has asked for nothing for longest makes room.
"""

import asyncio
from typing import ClassVar, Final, cast

from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

LOOK_S: Final = 30.0
READ_BYTES_MIN: Final = 32 << 10
"""What a reader that is behind has to take from one look to the next; 1 KiB a second."""


class BoundedConnection(H11Protocol):
    """Ended at the second look, at the latest, at which nothing has moved that should have."""

    look_s: ClassVar[float] = LOOK_S

    _made_s: float = 0.0
    _timer: asyncio.TimerHandle | None = None
    _answered: object = None
    """The request that was the last one at the last look, if it was answered then."""
    _unread_bytes: int | None = None
    """At the last look, if nothing was to be written behind them."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to look."""
        super().connection_made(transport)
        self._make_room()
        self._answered = self
        self._timer = self.loop.call_later(self.look_s, self._look)

    def connection_lost(self, exc: Exception | None) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)

    def _make_room(self) -> None:
        self._made_s = self.loop.time()
        if self.limit_concurrency is None or len(self.connections) < self.limit_concurrency:
            return
        idle = [
            one
            for one in self.connections
            if isinstance(one, BoundedConnection) and one is not self and one._is_answered()
        ]
        if idle:
            min(idle, key=lambda one: one._made_s).transport.abort()

    def _is_answered(self) -> bool:
        cycle = cast("RequestResponseCycle | None", self.cycle)  # None before the first request
        return cycle is None or cycle.response_complete

    def _look(self) -> None:
        self._timer = self.loop.call_later(self.look_s, self._look)
        unread_bytes = self.transport.get_write_buffer_size()
        cycle, is_answered = self.cycle, self._is_answered()
        if unread_bytes and (is_answered or self.flow.write_paused):
            before = self._unread_bytes
            is_over = before is not None and unread_bytes > before - min(before, READ_BYTES_MIN)
            self._unread_bytes, self._answered = unread_bytes, self
        else:
            is_over = is_answered and self._answered is cycle
            self._unread_bytes, self._answered = None, cycle if is_answered else self
        if is_over:
            self.transport.abort()
