"""Links, clocks and faults: the part of the simulation that replicas cannot see."""

import hashlib
import heapq
from dataclasses import dataclass
from random import Random

from consensus.events import Event, MessageReceived, PeerConnected, ReplicaConfig, SealBatch, Timing
from consensus.messages import Message, decode_message, encode_message
from consensus.sim.crypto import make_validators
from consensus.sim.disk import Disk, PowerLost
from consensus.sim.invariants import Invariants
from consensus.sim.machine import Machine
from ext.hashing import tagged_hash

START_MS = 1_700_000_000_000
CHAIN_ID = "sim"
FAST = Timing(
    leader_timeout_ms=200, certificate_timeout_ms=300, block_interval_ms=50, heartbeat_ms=2_000
)


@dataclass(frozen=True, slots=True)
class Scenario:
    """One world. Everything else follows from the seed."""

    seed: int
    stakes: tuple[int, ...] = (1, 1, 1, 1)
    twins: frozenset[int] = frozenset()
    """Validators that run twice with one key."""
    drop: float = 0.05
    duplicate: float = 0.03
    delay_ms_max: int = 60
    crashes_every_ms: int = 4_000
    """Mean time between two crashes anywhere; 0 for none."""
    partitions_every_ms: int = 5_000
    """Mean time between two partitions; 0 for none."""
    seal_every_ms: int = 300
    """Mean time between two batches of one validator; 0 for none."""
    calm_at_ms: int = 12_000
    """From here on no fault happens, and everybody is up."""
    end_at_ms: int = 22_000
    bad_sealers: frozenset[int] = frozenset()
    """Validators that now and then seal a batch which fails its check."""
    real_crypto: bool = False
    forgetful: frozenset[int] = frozenset()
    """Mutants that lose their log at every restart."""
    timing: Timing = FAST


class World:
    """Runs one scenario to its end."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.now_ms = START_MS
        self._random = Random(scenario.seed)
        self._queue: list[tuple[int, int, int, int, Event | bytes | None]] = []
        self._count = 0
        self._trace = hashlib.sha256()
        self._sides: dict[int, int] = {}
        self.messages = 0
        self.height_at_calm = 0
        """The highest final block when the faults ended."""
        self._encoded: tuple[Message | None, bytes] = (None, b"")
        """The last message, so that a broadcast is encoded once."""
        validators, signers, checks = make_validators(scenario.stakes, scenario.real_crypto)
        self.invariants = Invariants(CHAIN_ID, validators, checks, scenario.twins)
        indices = [*range(len(scenario.stakes)), *sorted(scenario.twins)]
        self.machines: list[Machine] = []
        self._skew_ms = [self._random.randint(-150, 150) for _ in indices]
        for number, index in enumerate(indices):
            config = ReplicaConfig(
                chain_id=CHAIN_ID,
                genesis_digest=tagged_hash(b"sim-genesis"),
                genesis_timestamp_ms=START_MS - 1_000,
                genesis_execution_root=tagged_hash(b"sim-genesis-root"),
                validators=validators,
                own_index=index,
                timing=scenario.timing,
            )
            machine = Machine(
                number,
                index,
                config,
                signers[index],
                checks,
                Disk(Random(self._random.getrandbits(64))),
                self,
                self.invariants,
            )
            machine.forget_votes = index in scenario.forgetful
            self.machines.append(machine)

    # --- what machines use ------------------------------------------------------------------

    def transmit(self, machine: int, peer: int, message: Message) -> None:
        """Put a message on the link: it may be dropped, delayed, doubled."""
        if self._encoded[0] is not message:
            self._encoded = (message, encode_message(message))
        data = self._encoded[1]
        self.note(machine, f"to {peer}", data)
        for target in self.machines:
            if target.index != peer:
                continue
            copies = 1
            if not self._calm():
                if self._sides.get(machine, 0) != self._sides.get(target.number, 0):
                    continue
                if self._random.random() < self.scenario.drop:
                    continue
                copies += self._random.random() < self.scenario.duplicate
            for _ in range(copies):
                self.messages += 1
                self._push(self.now_ms + self._delay(), target.number, machine, data)

    def later(self, machine: int, event: Event, delay_ms: int | None, at_ms: int = 0) -> None:
        """Feed an event to a machine later. `at_ms` is by the machine's own clock."""
        if delay_ms is None:
            delay_ms = self._random.randint(1, 30)
        own_ms = at_ms - self._skew_ms[machine] if at_ms else 0
        self._push(max(self.now_ms + delay_ms, own_ms), machine, -1, event)

    def note(self, machine: int, text: str, data: bytes) -> None:
        """Add to the trace."""
        self._trace.update(f"{self.now_ms} {machine} {text} {len(data)} ".encode())
        self._trace.update(data)

    # --- running ----------------------------------------------------------------------------

    def run(self) -> str:
        """Play to the end; the digest of everything that was said. Raises InvariantBroken."""
        scenario = self.scenario
        for machine in self.machines:
            self._start(machine)
            self._plan_seal(machine.number)
        self._plan("crash", scenario.crashes_every_ms)
        self._plan("partition", scenario.partitions_every_ms)
        self._push(START_MS + scenario.calm_at_ms, _WORLD, 0, b"calm")
        while self._queue:
            at_ms, _, number, sender, what = heapq.heappop(self._queue)
            if at_ms > START_MS + scenario.end_at_ms:
                break
            self.now_ms = at_ms
            if number == _WORLD:
                self._fault(what)
            else:
                self._feed(self.machines[number], sender, what)
        return self._trace.hexdigest()

    def heights(self) -> list[int]:
        """Delivered height of each machine."""
        return [m.replica.delivered_height if m.replica else -1 for m in self.machines]

    def _feed(self, machine: Machine, sender: int, what: Event | bytes | None) -> None:
        if isinstance(what, bytes):
            peer = self.machines[sender].index
            event: Event | None = MessageReceived(peer, decode_message(what))
        else:
            event = what
        if isinstance(event, SealBatch):
            self._plan_seal(machine.number)
        if event is None:
            if not machine.up:
                self._start(machine)
        elif machine.up:
            self._guarded(machine, event)

    def _guarded(self, machine: Machine, event: Event) -> None:
        try:
            machine.step(event, self._clock(machine))
        except PowerLost:
            self._went_down(machine)

    def _start(self, machine: Machine) -> None:
        try:
            machine.start(self._clock(machine))
        except PowerLost:
            self._went_down(machine)
            return
        for other in self.machines:
            if other.up and other.index != machine.index:
                self.later(machine.number, PeerConnected(other.index), None)
                self.later(other.number, PeerConnected(machine.index), None)

    def _went_down(self, machine: Machine) -> None:
        machine.stop()
        self.note(machine.number, "down", b"")
        # What was scheduled for the old life must not reach the new one.
        self._queue = [
            entry for entry in self._queue if entry[2] != machine.number or _outlives(entry[4])
        ]
        heapq.heapify(self._queue)
        delay_ms = 1 if self._calm() else self._random.randint(1, 3_000)
        self._push(self.now_ms + delay_ms, machine.number, -1, None)

    def _fault(self, what: Event | bytes | None) -> None:
        scenario = self.scenario
        if what == b"calm":
            self._sides = {}
            self.height_at_calm = self.invariants.height
            for machine in self.machines:
                machine.disk.writes_until_power_loss = None
                if not machine.up:
                    self._start(machine)
        elif self._calm():
            return
        elif what == b"crash":
            machine = self._random.choice(self.machines)
            machine.disk.writes_until_power_loss = self._random.randint(1, 12)
            self._plan("crash", scenario.crashes_every_ms)
        elif what == b"partition":
            self._sides = {m.number: self._random.randint(0, 1) for m in self.machines}
            heal_ms = self.now_ms + self._random.randint(100, 3_000)
            self._push(heal_ms, _WORLD, 0, b"heal")
            self._plan("partition", scenario.partitions_every_ms)
        else:
            self._sides = {}

    def _plan(self, name: str, mean_ms: int) -> None:
        if mean_ms:
            at_ms = self.now_ms + self._random.randint(1, 2 * mean_ms)
            self._push(at_ms, _WORLD, 0, name.encode())

    def _plan_seal(self, number: int) -> None:
        mean_ms = self.scenario.seal_every_ms
        if mean_ms:
            sealer = self.machines[number].index
            bad = sealer in self.scenario.bad_sealers and self._random.random() < 0.2
            payload = (b"bad" if bad else b"") + self._random.randbytes(24)
            self._push(
                self.now_ms + self._random.randint(1, 2 * mean_ms), number, -1, SealBatch(payload)
            )

    def _push(self, at_ms: int, number: int, sender: int, what: Event | bytes | None) -> None:
        self._count += 1
        heapq.heappush(self._queue, (at_ms, self._count, number, sender, what))

    def _calm(self) -> bool:
        return self.now_ms >= START_MS + self.scenario.calm_at_ms

    def _delay(self) -> int:
        return self._random.randint(1, 20 if self._calm() else self.scenario.delay_ms_max)

    def _clock(self, machine: Machine) -> int:
        return self.now_ms + self._skew_ms[machine.number]


_WORLD = -1
"""The receiver of faults."""


def _outlives(what: Event | bytes | None) -> bool:
    """Whether something scheduled for a machine still reaches it after a crash."""
    return what is None or isinstance(what, bytes | SealBatch | PeerConnected)
