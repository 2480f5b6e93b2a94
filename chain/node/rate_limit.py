"""How often one connection may call what is dear to serve: a token bucket for each.

A connection starts with `burst` calls and gains `per_second` of them a second, up to `burst`. Only
so many connections are remembered; the one that was quiet for longest is forgotten first, so a
flood of new ones costs no memory.
"""

import math
import time
from collections import OrderedDict
from collections.abc import Callable

CONNECTIONS_MAX = 4096


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
