"""How often one connection may call what is dear to serve, and how many calls may stay open.

For the first there is a token bucket for each connection: it starts with `burst` calls and gains
`per_second` of them a second, up to `burst`. Only so many connections are remembered; the one that
was quiet for longest is forgotten first, so a flood of new ones costs no memory.
"""

import math
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from chain.rejections import Busy

CONNECTIONS_MAX = 4096
OPEN_CALL_DELAY_MS = 1_000
"""When to come again if too many calls are open: they end when they have what they wait for."""


class RateLimit:
    """Token buckets by connection. Used from the event loop only."""

    def __init__(
        self,
        per_second: float,
        burst: float,
        clock_s: Callable[[], float] = time.monotonic,
        connections_max: int = CONNECTIONS_MAX,
    ) -> None:
        self._per_second = per_second
        self._burst = burst
        self._clock_s = clock_s
        self._connections_max = connections_max
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()
        """(calls left, when that was so), the last caller at the end."""

    def take(self, connection: str) -> int:
        """Use up one call: 0, or if there is none, in how many milliseconds there will be."""
        now_s = self._clock_s()
        left, then_s = self._buckets.pop(connection, (self._burst, now_s))
        left = min(self._burst, left + (now_s - then_s) * self._per_second)
        delay_ms = 0
        if left >= 1:
            left -= 1
        else:
            delay_ms = max(1, math.ceil((1 - left) / self._per_second * 1000))
        self._buckets[connection] = (left, now_s)
        if len(self._buckets) > self._connections_max:
            self._buckets.popitem(last=False)
        return delay_ms


class OpenCalls:
    """Calls that last until something happens, by client. Used from the event loop only."""

    def __init__(self, all_max: int, client_max: int) -> None:
        self._all_max = all_max
        self._client_max = client_max
        self._all = 0
        self._by_client: Counter[str] = Counter()

    @property
    def count(self) -> int:
        """How many are open."""
        return self._all

    @contextmanager
    def open(self, client: str) -> Iterator[None]:
        """Count a call while it lasts. Raises Busy if there are as many as may be."""
        if self._by_client[client] >= self._client_max:
            raise Busy(
                f"{self._client_max} calls of yours wait here, more are not allowed; let some end, "
                "or share them among your users",
                OPEN_CALL_DELAY_MS,
            )
        if self._all >= self._all_max:
            raise Busy(
                f"{self._all_max} calls wait here, more are not allowed; use another node",
                OPEN_CALL_DELAY_MS,
            )
        self._all += 1
        self._by_client[client] += 1
        try:
            yield
        finally:
            self._all -= 1
            self._by_client[client] -= 1
            if not self._by_client[client]:
                del self._by_client[client]


def host_of(peer: str) -> str:
    """gRPC's name of a connection's other end without its port: one host is one client."""
    return peer.rpartition(":")[0] if peer.startswith(("ipv4:", "ipv6:")) else peer
