"""The links between machines: each with its own delay and loss, cut by partitions."""

from collections.abc import Sequence
from random import Random
from typing import Protocol

from consensus.messages import Message
from consensus.sim.scenario import CALM_DELAY_MS_MAX, Scenario


class Network(Protocol):
    """What carries messages between machines. These are named by number."""

    def arrivals(
        self, sender: int, receiver: int, now_ms: int, message: Message, size_bytes: int
    ) -> Sequence[int]:
        """When copies of a message sent now arrive: usually one. `size_bytes` of its encoding."""
        ...

    def partition(self) -> None:
        """Cut links at random."""
        ...

    def heal(self) -> None:
        """Join all links."""
        ...

    def calm(self) -> None:
        """The faults end."""
        ...


class Links:
    """When what is sent arrives, and whether it does. Machines are named by number."""

    def __init__(self, scenario: Scenario, machines: int, random: Random) -> None:
        self._scenario = scenario
        self._random = random
        self._machines = machines
        pairs = [(a, b) for a in range(machines) for b in range(machines) if a != b]
        self._loss = {pair: random.uniform(0, scenario.loss_max) for pair in pairs}
        self._delay_ms_max = {pair: random.randint(2, scenario.delay_ms_max) for pair in pairs}
        self._last_ms: dict[tuple[int, int], int] = {}
        """Arrival of the last message on a link that keeps the order."""
        self._cut: frozenset[tuple[int, int]] = frozenset()
        self._calm = False

    def arrivals(
        self, sender: int, receiver: int, now_ms: int, message: Message, size_bytes: int
    ) -> Sequence[int]:
        """See `Network`; every message fares alike."""
        link = (sender, receiver)
        if self._calm:
            return (self._arrival(link, now_ms, CALM_DELAY_MS_MAX),)
        if link in self._cut or self._random.random() < self._loss[link]:
            return ()
        delay_ms_max = self._delay_ms_max[link]
        first_ms = self._arrival(link, now_ms, delay_ms_max)
        if self._random.random() < self._scenario.duplication:
            return (first_ms, self._arrival(link, now_ms, 2 * delay_ms_max))
        return (first_ms,)

    def partition(self) -> None:
        """Cut links: in two or three groups, one machine off, or some in one direction only."""
        random = self._random
        machines = range(self._machines)
        kind = random.choice(("halves", "thirds", "one", "one-way"))
        if kind == "one-way":
            share = random.uniform(0.2, 0.6)
            self._cut = frozenset(link for link in self._loss if random.random() < share)
            return
        if kind == "one":
            chosen = random.randrange(self._machines)
            side = [int(machine == chosen) for machine in machines]
        else:
            side = [random.randrange(2 if kind == "halves" else 3) for _ in machines]
        self._cut = frozenset((a, b) for a, b in self._loss if side[a] != side[b])

    def heal(self) -> None:
        """Join all links."""
        self._cut = frozenset()

    def calm(self) -> None:
        """Nothing is lost or late from now on."""
        self._calm = True
        self.heal()

    def _arrival(self, link: tuple[int, int], now_ms: int, delay_ms_max: int) -> int:
        at_ms = now_ms + 1 + int(self._random.random() * delay_ms_max)
        if not self._scenario.reordering:
            at_ms = max(at_ms, self._last_ms.get(link, 0))
            self._last_ms[link] = at_ms
        return at_ms
