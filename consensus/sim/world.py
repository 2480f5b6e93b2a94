"""A world that plays one scenario: the part of the simulation that replicas cannot see."""

import heapq
from dataclasses import dataclass
from random import Random
from typing import Final, TextIO

from consensus.blocktree import root_node
from consensus.events import Event, MessageReceived, PeerConnected, ReplicaConfig, SealBatch, Tick
from consensus.messages import Message, decode_message, encode_message
from consensus.replica import RecoveryConflict
from consensus.sim.byzantine import Liar
from consensus.sim.crypto import make_checks
from consensus.sim.disk import Disk, PowerLost
from consensus.sim.epochs import Calendar
from consensus.sim.invariants import InvariantBroken, Invariants
from consensus.sim.links import Links, Network
from consensus.sim.machine import ATTESTATION, BAD_PAYLOAD, Machine
from consensus.sim.scenario import Misdeed, Scenario
from consensus.sim.trace import Trace
from consensus.wal import WAL_NAME, WalError
from ext.hashing import tagged_hash

START_MS: Final = 1_700_000_000_000
CHAIN_ID: Final = "sim"
BLOCKS_TO_BE_LIVE: Final = 3
"""New blocks after the faults that everybody honest must deliver."""
DOWN_MS_MAX: Final = 1_500
PARTITION_MS_MAX: Final = 2_000
FULL_MS_MAX: Final = 1_500
CLOCK_JUMPS_EVERY_MS: Final = 1_000
AMNESIA_AGAIN_MS: Final = 100
CRASH_WRITES_MAX: Final = 12
"""A crash falls into one of this many writes to come."""
ATTESTING_SHARE: Final = 0.3
_WORLD: Final = -1
"""The receiver of what befalls the world as a whole."""
_ANY_LIFE: Final = -1
"""Life of what reaches a machine even if it went down meanwhile."""
_BUGS: Final = (
    ArithmeticError,
    AttributeError,
    LookupError,
    RecoveryConflict,
    RuntimeError,
    TypeError,
    ValueError,
    WalError,
)
"""What no peer and no crash may make a validator's program raise."""


@dataclass(frozen=True, slots=True)
class Fate:
    """How a world ended."""

    digest: str
    """Of everything that was said."""
    height: int
    """The highest final block."""
    height_at_calm: int
    live_after_ms: int | None
    """How long after the faults everybody honest went on; None if it was not waited for."""
    virtual_ms: int
    messages: int
    steps: int
    crashes: int
    lost_logs: int
    partitions: int
    compactions: int
    """How often a log was compacted."""
    epochs: int
    """How many have ended."""
    convicted: tuple[int, ...]
    """Validators that somebody holds evidence against."""


class World:
    """Runs one scenario to its end."""

    def __init__(
        self, scenario: Scenario, sink: TextIO | None = None, network: Network | None = None
    ) -> None:
        """`network` takes the place of the scenario's links."""
        self.scenario = scenario
        self.now_ms = START_MS
        self.messages = 0
        self.steps = 0
        self.crashes = 0
        self.partitions = 0
        self.height_at_calm = 0
        """The highest final block when the faults ended."""
        self.live_at_ms: int | None = None
        self._random = Random(scenario.seed)
        self._queue: list[tuple[int, int, int, int, Event | bytes | int | None]] = []
        self._count = 0
        self._trace = Trace(sink)
        self._sent: tuple[Message | None, bytes, dict[int, MessageReceived]] = (None, b"", {})
        """The last message, so that a broadcast is encoded and decoded once."""
        self.lost_logs = 0
        self._forgot: set[int] = set()
        """Validators that lost their log and may not know yet what they signed."""
        self._lost: dict[int, bytes] = {}
        """Logs that come back when the faults end, by machine."""
        self._goals: dict[int, int] = {}
        """Lane -> sequence that was sealed when the faults ended: it must become final."""
        self._owed: dict[int, tuple[int, frozenset[bytes]]] = {}
        """The same on a chain of epochs: owner -> its epoch, and payloads. Who loses its seat keeps
        what is owed until it has one again."""
        self._byzantine = frozenset(index for index, _ in scenario.byzantine)
        self.machines: list[Machine] = []
        self.calendar = Calendar(scenario)
        self._checks = make_checks(scenario.real_crypto)
        self.invariants = Invariants(
            CHAIN_ID,
            self.calendar,
            self._checks,
            self._byzantine,
            self._honest_disks,
            root_node(self._config(0)),
        )
        twins = [i for i, misdeeds in scenario.byzantine if Misdeed.TWINS in misdeeds]
        indices = [*self.calendar.ids, *twins]
        self._by_index: list[list[Machine]] = [[] for _ in self.calendar.ids]
        for number, index in enumerate(indices):
            machine = self._make_machine(number, index)
            self.machines.append(machine)
            self._by_index[index].append(machine)
        self._links: Network = network or Links(scenario, len(indices), self._random)
        self._skew_ms = [self._draw_skew_ms() for _ in indices]
        self._busy_until_ms = [0] * len(indices)
        self._timers: list[int | None] = [None] * len(indices)

    # --- what machines use ------------------------------------------------------------------

    def transmit(self, machine: int, peer: int, message: Message) -> None:
        """Put a message on the link: it may be lost, late, doubled."""
        last, data, received = self._sent
        if last is not message:
            data = encode_message(message)
            received = {}
            self._sent = (message, data, received)
        sender = self.machines[machine]
        leaves_ms = self.now_ms + sender.disk.stalled_ms
        self._trace.note(leaves_ms, machine, f"to {peer}", data, message)
        for target in self._by_index[peer]:
            number = target.number
            for at_ms in self._links.arrivals(machine, number, leaves_ms, message, len(data)):
                event = received.get(sender.index)
                if event is None:
                    event = received[sender.index] = MessageReceived(
                        sender.index, decode_message(data)
                    )
                self.messages += 1
                self._push(at_ms, number, _ANY_LIFE, event)

    def soon(self, machine: int, event: Event) -> None:
        """See `Surroundings`."""
        at_ms = self.now_ms + 1 + int(self._random.random() * 15)
        self._push(at_ms, machine, self.machines[machine].lives, event)

    def wake(self, machine: int, at_ms: int) -> None:
        """See `Surroundings`. A later timer replaces the earlier one."""
        self._timers[machine] = at_ms
        rings_ms = max(self.now_ms, at_ms - self._skew_ms[machine])
        self._push(rings_ms, machine, self.machines[machine].lives, at_ms)

    def note(self, machine: int, text: str, data: bytes) -> None:
        """Add to the trace."""
        self._trace.note(self.now_ms, machine, text, data)

    # --- running ----------------------------------------------------------------------------

    def run(self, until_ms: int | None = None) -> Fate:
        """Play until everybody is live again after the faults, or for `until_ms` of virtual time.

        Raises InvariantBroken, also if that takes longer than the scenario allows.
        """
        self._begin()
        scenario = self.scenario
        end_ms = START_MS + (until_ms or scenario.calm_at_ms + scenario.live_within_ms)
        while self._queue:
            at_ms, _, number, life, what = heapq.heappop(self._queue)
            if at_ms > end_ms:
                break
            self.now_ms = at_ms
            if number == _WORLD:
                self._befall(what)
                continue
            self._feed(self.machines[number], life, what)
            if until_ms is None and self._live(self.machines[number]):
                self.live_at_ms = at_ms
                break
        if until_ms is None and self.live_at_ms is None:
            raise InvariantBroken(
                f"not live within {scenario.live_within_ms} ms after the faults: final height "
                f"{self.invariants.height}, at their end {self.height_at_calm}, heights "
                f"{self.heights()}"
            )
        return self._fate()

    def heights(self) -> list[int]:
        """Delivered height of each machine."""
        return [m.replica.delivered_height if m.replica else -1 for m in self.machines]

    def _begin(self) -> None:
        scenario = self.scenario
        for machine in self.machines:
            if scenario.crash_at_write is not None and machine.number == scenario.crash_at_write[0]:
                machine.disk.writes_until_power_loss = scenario.crash_at_write[1]
            self._start(machine)
            self._plan_seal(machine)
        self._plan(b"crash", scenario.crashes_every_ms)
        self._plan(b"partition", scenario.partitions_every_ms)
        self._plan(b"full", scenario.full_disks_every_ms)
        self._plan(b"clock", CLOCK_JUMPS_EVERY_MS if scenario.skew_ms_max else 0)
        self._plan(b"lose", scenario.lost_logs_every_ms)
        if scenario.amnesia_at_ms:
            self._push(START_MS + scenario.amnesia_at_ms, _WORLD, _ANY_LIFE, b"amnesia")
        self._push(START_MS + scenario.calm_at_ms, _WORLD, _ANY_LIFE, b"calm")

    def _feed(self, machine: Machine, life: int, what: Event | bytes | int | None) -> None:
        if life not in (_ANY_LIFE, machine.lives):
            return
        number = machine.number
        if self._busy_until_ms[number] > self.now_ms:
            self._push(self._busy_until_ms[number], number, life, what)
            return
        if isinstance(what, int):
            if self._timers[number] == what:
                self._timers[number] = None
                self._step(machine, _TICK)
        elif what is None:
            if not machine.up:
                self._start(machine)
        elif not isinstance(what, bytes):
            if isinstance(what, SealBatch):
                self._plan_seal(machine)
            if machine.up:
                self._step(machine, what)

    def _step(self, machine: Machine, event: Event) -> None:
        self.steps += 1
        try:
            machine.step(event, self._clock(machine))
        except (PowerLost, OSError):
            self._went_down(machine)
        except _BUGS as error:
            name = f"validator {machine.index} ended with {type(error).__name__}: {error}"
            raise InvariantBroken(name) from error
        self._account(machine)

    def _start(self, machine: Machine) -> None:
        self._timers[machine.number] = None
        if machine.index in self._forgot:
            self._hang_up(machine.number)
        try:
            machine.start(self._clock(machine))
        except (PowerLost, OSError):
            self._went_down(machine)
            return
        except _BUGS as error:
            name = f"validator {machine.index} cannot start: {type(error).__name__}: {error}"
            raise InvariantBroken(name) from error
        self._account(machine)
        for other in self.machines:
            if other.up and other.index != machine.index:
                self.soon(machine.number, PeerConnected(other.index))
                self.soon(other.number, PeerConnected(machine.index))

    def _hang_up(self, number: int) -> None:
        """What was under way to a machine ended with its connections: who forgot what it signed
        goes by what it is told since its start. Elsewhere late messages are one more fault."""
        self._queue = [
            entry
            for entry in self._queue
            if entry[2] != number or not isinstance(entry[4], MessageReceived)
        ]
        heapq.heapify(self._queue)

    def _account(self, machine: Machine) -> None:
        """While its disk was busy, a machine did nothing else."""
        self._busy_until_ms[machine.number] = self.now_ms + machine.disk.stalled_ms
        machine.disk.stalled_ms = 0

    def _went_down(self, machine: Machine) -> None:
        self.crashes += 1
        machine.stop()
        machine.disk.stalled_ms = 0
        self._busy_until_ms[machine.number] = 0
        self.note(machine.number, "down", b"")
        # Many that lost their logs meet best while those who remember are not heard yet.
        at_once = self._calm() or machine.number in self._lost
        delay_ms = 1 if at_once else self._random.randint(1, DOWN_MS_MAX)
        self._push(self.now_ms + delay_ms, machine.number, _ANY_LIFE, None)

    # --- what befalls ------------------------------------------------------------------------

    def _befall(self, what: Event | bytes | int | None) -> None:
        scenario = self.scenario
        random = self._random
        if what == b"calm":
            self._end_faults()
        elif self._calm():
            return
        elif what == b"crash":
            machine = random.choice(self.machines)
            machine.disk.writes_until_power_loss = random.randint(1, CRASH_WRITES_MAX)
            self._plan(b"crash", scenario.crashes_every_ms)
        elif what == b"partition":
            self.partitions += 1
            self._links.partition()
            heal_ms = self.now_ms + random.randint(100, PARTITION_MS_MAX)
            self._push(heal_ms, _WORLD, _ANY_LIFE, b"heal")
            self._plan(b"partition", scenario.partitions_every_ms)
        elif what == b"full":
            random.choice(self.machines).disk.full = True
            free_ms = self.now_ms + random.randint(100, FULL_MS_MAX)
            self._push(free_ms, _WORLD, _ANY_LIFE, b"free")
            self._plan(b"full", scenario.full_disks_every_ms)
        elif what == b"clock":
            self._skew_ms[random.randrange(len(self._skew_ms))] = self._draw_skew_ms()
            self._plan(b"clock", CLOCK_JUMPS_EVERY_MS)
        elif what == b"lose":
            self._lose_some_log()
            self._plan(b"lose", scenario.lost_logs_every_ms)
        elif what == b"amnesia":
            self._amnesia()
        elif what == b"free":
            self._free_disks()
        else:
            self._links.heal()

    def _lose_some_log(self) -> None:
        """Of a validator at random, if it and all that are faulty already are less than a third."""
        self._forgot = {
            machine.index
            for machine in self.machines
            if machine.index in self._forgot
            and not (machine.remembers and machine.index not in self.invariants.excused)
        }
        machine = self._random.choice(self.machines)
        faulty = self._byzantine | self._forgot | {machine.index}
        stakes = self.scenario.stakes
        if machine.index in self._byzantine or machine.index in self._forgot:
            return
        if 3 * sum(stakes[index] for index in faulty) < sum(stakes):
            begins = any(m.replica is not None and m.replica.view == 1 for m in self.machines)
            if begins:
                self.invariants.excuse(machine.index)
            self._lose_log(machine)

    def _lose_log(self, machine: Machine) -> None:
        """It stops, and what it signed is gone."""
        self.lost_logs += 1
        self._forgot.add(machine.index)
        if machine.up:
            self._went_down(machine)
        self.note(machine.number, "log lost", b"")
        machine.disk.lose(WAL_NAME)

    def _amnesia(self) -> None:
        """At least a third lose their logs at once, when each has a final block on its disk: of a
        chain that nobody shows to have begun there is nothing to remember."""
        if any(1 not in machine.disk.store.blocks for machine in self.machines):
            self._push(self.now_ms + AMNESIA_AGAIN_MS, _WORLD, _ANY_LIFE, b"amnesia")
            return
        stakes = self.scenario.stakes
        stake = 0
        share = self._random.uniform(1, 3)
        for machine in self._random.sample(self.machines, len(self.machines)):
            if stake * 3 >= sum(stakes) * share:
                break
            stake += stakes[machine.index]
            self._lost[machine.number] = bytes(machine.disk.durable(WAL_NAME))
            self._lose_log(machine)

    def _restore_logs(self) -> None:
        """The operators have found copies: nothing was signed meanwhile, so these are whole."""
        for number, data in self._lost.items():
            machine = self.machines[number]
            if machine.up:
                self._went_down(machine)
            machine.disk.restore(WAL_NAME, data)

    def _end_faults(self) -> None:
        self._links.calm()
        self._free_disks()
        self._restore_logs()
        self.height_at_calm = self.invariants.height
        for machine in self.machines:
            machine.disk.writes_until_power_loss = None
            machine.disk.slow_ms_max = 0
            if not machine.up:
                self._start(machine)
            if machine.index not in self._byzantine and machine.replica is not None:
                held = {tip.lane: tip.sequence for tip in machine.replica.held_tips}
                self._goals[machine.index] = held.get(machine.index, 0)
                self._owed[machine.index] = (machine.epoch, machine.owed())

    def _free_disks(self) -> None:
        for machine in self.machines:
            machine.disk.full = False

    def _live(self, stepped: Machine) -> bool:
        """Whether everybody honest has gone on, with all that was sealed before."""
        if not self._calm() or self._lags(stepped):
            return False
        return not any(map(self._lags, self.machines))

    def _lags(self, machine: Machine) -> bool:
        if machine.index in self._byzantine:
            return False
        block = machine.delivered_block
        blocks = max(BLOCKS_TO_BE_LIVE, self.scenario.epoch_blocks + 1)  # so that one epoch ends
        if block is None or block.height < self.height_at_calm + blocks:
            return True
        if self.scenario.epoch_blocks:
            return self._owes(machine)
        final = {tip.lane: tip.sequence for tip in block.cut}
        return any(final.get(lane, 0) < goal for lane, goal in self._goals.items())

    def _owes(self, machine: Machine) -> bool:
        """Whether a machine lacks what somebody sealed who has kept its seat ever since."""
        for owner, (epoch, payloads) in self._owed.items():
            later = range(epoch, machine.epoch + 1)
            kept = all(owner in self.calendar.validators(one).by_index for one in later)
            if kept and not payloads <= machine.delivered_payloads:
                return True
        return False

    def _fate(self) -> Fate:
        calm_ms = START_MS + self.scenario.calm_at_ms
        return Fate(
            digest=self._trace.hexdigest(),
            height=self.invariants.height,
            height_at_calm=self.height_at_calm,
            live_after_ms=None if self.live_at_ms is None else self.live_at_ms - calm_ms,
            virtual_ms=self.now_ms - START_MS,
            messages=self.messages,
            steps=self.steps,
            crashes=self.crashes,
            lost_logs=self.lost_logs,
            partitions=self.partitions,
            compactions=sum(machine.compactions for machine in self.machines),
            epochs=self.invariants.epochs_ended,
            convicted=tuple(
                sorted({e.evidence.culprit for m in self.machines for e in m.evidence})
            ),
        )

    # --- making and planning ----------------------------------------------------------------

    def _config(self, index: int) -> ReplicaConfig:
        return ReplicaConfig(
            chain_id=CHAIN_ID,
            genesis_digest=tagged_hash(b"sim-genesis"),
            genesis_timestamp_ms=START_MS - 1_000,
            genesis_execution_root=tagged_hash(b"sim-genesis-root"),
            validators=self.calendar.validators(0),
            own_index=index,
            timing=self.scenario.timing,
        )

    def _make_machine(self, number: int, index: int) -> Machine:
        scenario = self.scenario
        config = self._config(index)
        signer = self.calendar.signer(0, index)
        misdeeds = scenario.misdeeds(index)
        own = Random(self._random.getrandbits(64))
        first = self.calendar.validators(0)
        liar = Liar(index, misdeeds, signer, CHAIN_ID, first, own) if misdeeds else None
        slow_ms_max = scenario.slow_disk_ms_max if self._random.random() < 0.5 else 0
        disk = Disk(Random(self._random.getrandbits(64)), slow_ms_max)
        machine = Machine(
            number, index, config, self.calendar, self._checks, disk, self, self.invariants
        )
        machine.liar = liar
        machine.compact_after_records = scenario.compact_after_records
        machine.forgets = bool(scenario.lost_logs_every_ms or scenario.amnesia_at_ms)
        return machine

    def _honest_disks(self) -> list[Disk]:
        return [m.disk for m in self.machines if m.index not in self._byzantine]

    def _draw_skew_ms(self) -> int:
        return self._random.randint(-self.scenario.skew_ms_max, self.scenario.skew_ms_max)

    def _plan(self, what: bytes, mean_ms: int) -> None:
        if mean_ms:
            at_ms = self.now_ms + self._random.randint(1, 2 * mean_ms)
            self._push(at_ms, _WORLD, _ANY_LIFE, what)

    def _plan_seal(self, machine: Machine) -> None:
        mean_ms = self.scenario.seal_every_ms
        if mean_ms:
            at_ms = self.now_ms + self._random.randint(1, 2 * mean_ms)
            event = SealBatch(self._payload(machine.index))
            self._push(at_ms, machine.number, _ANY_LIFE, event)

    def _payload(self, index: int) -> bytes:
        random = self._random
        misdeeds = self.scenario.misdeeds(index)
        junk = random.randbytes(self.scenario.payload_bytes)
        if Misdeed.BAD_BATCH in misdeeds and random.random() < 0.2:
            return BAD_PAYLOAD + junk
        if random.random() >= ATTESTING_SHARE:
            return junk
        job = random.randrange(16)
        both = Misdeed.CONTRADICT in misdeeds
        return ATTESTATION + bytes((job, random.randrange(2) if both else job % 2)) + junk

    def _push(self, at_ms: int, number: int, life: int, what: Event | bytes | int | None) -> None:
        self._count += 1
        heapq.heappush(self._queue, (at_ms, self._count, number, life, what))

    def _calm(self) -> bool:
        return self.now_ms >= START_MS + self.scenario.calm_at_ms

    def _clock(self, machine: Machine) -> int:
        return self.now_ms + self._skew_ms[machine.number]


_TICK: Final = Tick()
