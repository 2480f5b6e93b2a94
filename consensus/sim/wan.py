"""A hundred validators on five continents: what finality takes there, and which bytes it costs.

The same replicas, logs and invariants as in every other world, on links that are slow instead of
hostile: each validator sits in a region, a message takes half of the measured round trip between
two regions and some jitter, leaves through the uplink of its sender after everything of its own
kind that waits there (votes before batches, as on the node's two connections), and may be lost. A
`STREAM` loses packets and pays with time: what was lost comes a retransmission later, and whatever
follows on the connection waits for it, as with TCP. A `DATAGRAM` link loses messages for good, so
that only the protocol's own resends help.

Processors cost nothing here, but for the moments that `World.soon` takes to check and execute.
"""

import enum
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Final

from consensus.events import Event, SealBatch, Timing
from consensus.messages import BatchMessage, Blocks, Certificates, Message
from consensus.sim.machine import Machine
from consensus.sim.scenario import Scenario
from consensus.sim.world import START_MS, World
from consensus.values import VALIDATORS_MAX, Vote

REGIONS: Final = ("Washington DC", "Frankfurt", "Tokyo", "Sydney", "Sao Paulo")
ROUND_TRIP_MS: Final = (
    (2, 91, 164, 214, 118),
    (91, 2, 233, 250, 198),
    (164, 233, 2, 115, 284),
    (214, 250, 115, 2, 328),
    (118, 198, 284, 328, 2),
)
"""Averages from 27 July to 25 August 2024, between regions and between zones of one region, as IBM
publishes them for its cloud: github.com/ibm-cloud-docs/vpc, network-latency.md."""
JITTER_MS: Final = 4.0
"""Mean of what a message takes longer, exponentially distributed."""
SYNC_MS: Final = 2
"""Before a message leaves, what it promises is made durable."""
RETRANSMIT_MS: Final = 200
"""TCP's least timeout, on top of a round trip: the kernel's own bound, taken for every loss."""
SEGMENT_BYTES: Final = 1_448
SEGMENT_OVERHEAD_BYTES: Final = 52
"""IPv4 and TCP headers with timestamps."""
MESSAGE_OVERHEAD_BYTES: Final = 36
"""gRPC prefix 5, HTTP/2 frame 9, TLS record 22."""
WARM_UP_MS: Final = 2_000
"""Not counted: connections come up and say where they stand."""
BATCH_INTERVAL_MS: Final = 20
"""What a transaction has waited when its batch is sealed: the node's default."""
TRANSACTION_BYTES: Final = 180
"""A signed transfer, about."""


class Transport(enum.StrEnum):
    """What a lost packet does."""

    STREAM = "stream"
    DATAGRAM = "datagram"


class Workload(enum.StrEnum):
    """What the network is asked to do."""

    IDLE = "idle"
    """Nothing: empty blocks at the heartbeat."""
    SPARSE = "sparse"
    """A transaction now and then, somewhere, on a chain that idles otherwise."""
    LOAD = "load"
    """Every validator seals batches."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One network to be measured."""

    validators: int
    workload: Workload
    seed: int = 1
    seconds: int = 20
    """Virtual time that is measured, after WARM_UP_MS."""
    loss: float = 0.01
    """Share of packets (STREAM) or messages (DATAGRAM) that are lost."""
    transport: Transport = Transport.STREAM
    uplink_mbit_s: int = 1_000
    payload_kb_s: int = 1_000
    """Under load, of all validators together."""
    seal_every_ms: int = 500
    """Mean time between two batches of one validator, under load."""
    sparse_every_ms: int = 1_200
    """Mean time between two transactions of a sparse workload."""

    def __post_init__(self) -> None:
        if not 4 <= self.validators <= VALIDATORS_MAX:
            raise ValueError(f"{self.validators} validators, allowed are 4 to {VALIDATORS_MAX}")
        if not 0 <= self.loss < 1:
            raise ValueError(f"a loss of {self.loss}, allowed is from 0 to less than 1")

    def scenario(self) -> Scenario:
        """The world: nothing goes wrong in it but what the links do."""
        sealing_ms = {
            Workload.IDLE: 0,
            Workload.SPARSE: self.sparse_every_ms * self.validators,
            Workload.LOAD: self.seal_every_ms,
        }[self.workload]
        return Scenario(
            seed=self.seed,
            stakes=(1,) * self.validators,
            seal_every_ms=sealing_ms,
            payload_bytes=self.payload_bytes(),
            calm_at_ms=2 * (WARM_UP_MS + 1_000 * self.seconds),
            compact_after_records=64,
            timing=Timing(),
        )

    def payload_bytes(self) -> int:
        """Of one batch."""
        if self.workload is not Workload.LOAD:
            return TRANSACTION_BYTES
        share = self.payload_kb_s * self.seal_every_ms // self.validators
        return max(TRANSACTION_BYTES, share)


@dataclass(slots=True)
class Cost:
    """Messages and bytes of one kind, headers included."""

    messages: int = 0
    size_bytes: int = 0


class WanLinks:
    """Implements `Network` between regions, and keeps the accounts."""

    def __init__(self, setting: Setting) -> None:
        self._setting = setting
        self._random = Random(f"wan {setting.seed}")
        self._bulk = {BatchMessage, Blocks}
        self._free_ms = [{True: 0.0, False: 0.0} for _ in range(setting.validators)]
        """When each uplink has sent what waits, bulk and urgent."""
        self._last_ms: dict[tuple[int, int, bool], int] = {}
        """Arrival of the last message of a connection."""
        self.costs: dict[str, Cost] = {}
        self.sent_bytes: Counter[int] = Counter()
        """By sender."""
        self.counting_from_ms = START_MS + WARM_UP_MS
        self.lost = 0

    def arrivals(
        self, sender: int, receiver: int, now_ms: int, message: Message, size_bytes: int
    ) -> Sequence[int]:
        """See `Network`."""
        segments = -(-size_bytes // SEGMENT_BYTES)
        wire_bytes = size_bytes + segments * SEGMENT_OVERHEAD_BYTES + MESSAGE_OVERHEAD_BYTES
        if now_ms >= self.counting_from_ms:
            cost = self.costs.setdefault(_kind(message), Cost())
            cost.messages += 1
            cost.size_bytes += wire_bytes
            self.sent_bytes[sender] += wire_bytes
        bulk = type(message) in self._bulk
        trip_ms = ROUND_TRIP_MS[sender % len(REGIONS)][receiver % len(REGIONS)]
        left_ms = self._leave(sender, now_ms + SYNC_MS, wire_bytes, bulk)
        arrives_ms = left_ms + trip_ms / 2 + self._random.expovariate(1 / JITTER_MS)
        loss = self._setting.loss
        if self._setting.transport is Transport.DATAGRAM:
            if self._random.random() < loss:
                self.lost += 1
                return ()
            return (int(arrives_ms) + 1,)
        if self._random.random() >= (1 - loss) ** segments:
            self.lost += 1
            arrives_ms += trip_ms + RETRANSMIT_MS
        link = (sender, receiver, bulk)
        at_ms = self._last_ms[link] = max(int(arrives_ms) + 1, self._last_ms.get(link, 0))
        return (at_ms,)

    def partition(self) -> None:
        """Never here."""

    def heal(self) -> None:
        """Nothing is cut."""

    def calm(self) -> None:
        """Links stay what they are."""

    def _leave(self, sender: int, now_ms: float, wire_bytes: int, bulk: bool) -> float:
        free_ms = self._free_ms[sender]
        takes_ms = wire_bytes * 8 / (1_000 * self._setting.uplink_mbit_s)
        # Urgent messages go first; what is bulk waits for them as well.
        begins_ms = max(now_ms, free_ms[False], free_ms[True] if bulk else 0.0)
        free_ms[bulk] = begins_ms + takes_ms
        return free_ms[bulk]


@dataclass(slots=True)
class _Sealed:
    """Batches of one lane that wait to be final."""

    times_ms: list[int] = field(default_factory=list)
    """By sequence, from 1."""
    final: int = 0


class WanWorld(World):
    """Measures how long a batch takes from its first transaction to its owner's execution."""

    def __init__(self, setting: Setting) -> None:
        self.links = WanLinks(setting)
        super().__init__(setting.scenario(), network=self.links)
        self.setting = setting
        self.finality_ms: list[int] = []
        self._lanes = [_Sealed() for _ in range(setting.validators)]
        self._seen: list[object] = [None] * setting.validators

    def unfinished(self, older_than_ms: int) -> int:
        """Batches sealed before a time, and not final where they were sealed."""
        waiting = (time for lane in self._lanes for time in lane.times_ms[lane.final :])
        return sum(time < older_than_ms for time in waiting)

    def _step(self, machine: Machine, event: Event) -> None:
        lane = self._lanes[machine.index]
        room = machine.replica is not None and machine.replica.lane_room > 0
        if isinstance(event, SealBatch) and room:
            lane.times_ms.append(self.now_ms)
        super()._step(machine, event)
        block = machine.delivered_block
        if block is None or block is self._seen[machine.index]:
            return
        self._seen[machine.index] = block
        final = {tip.lane: tip.sequence for tip in block.cut}.get(machine.index, 0)
        for sealed_ms in lane.times_ms[lane.final : final]:
            if sealed_ms >= self.links.counting_from_ms:
                self.finality_ms.append(self.now_ms - sealed_ms + BATCH_INTERVAL_MS)
        lane.final = final


def _kind(message: Message) -> str:
    """What a message is called in the accounts."""
    if isinstance(message, Vote):
        return f"Vote {message.body.kind.name.lower()}"
    if isinstance(message, Certificates):
        kinds = sorted({item.body.kind.name.lower() for item in message.items})
        return f"Certificates {'+'.join(kinds)}"
    return type(message).__name__
