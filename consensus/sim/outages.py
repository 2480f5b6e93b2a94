"""What a validator that is down costs those who pay: rolling outages on links that are quick.

The simulated form of `tests/faults`, so that what a change does to finality is seen in seconds and
without noise: the same replicas and invariants as in every other world, links as within one data
centre, payments in an open loop. After a calm phase f validators at a time are killed, stopped or
cut off, each in turn, and come back. A payment is timed from when it was meant to be sent until a
node that took it hands its block to execution. Clients know a node to be down as those of
`tests/faults` do; what was on its way through one when it failed is sent again through another: at
once after a kill, which resets connections, else after `ANSWER_WITHIN_MS`.

Processors cost nothing, but for the moments that `World.soon` takes to check and execute.
"""

import enum
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from random import Random
from typing import Any, Final

from consensus.events import Event, SealBatch, Timing
from consensus.messages import Message
from consensus.sim.machine import Machine
from consensus.sim.scenario import VALIDATORS_LEAST, VALIDATORS_MOST, Scenario
from consensus.sim.world import START_MS, World

WARM_UP_MS: Final = 2_000
BATCH_INTERVAL_MS: Final = 20
SYNC_MS: Final = 2
LINK_MS_LEAST: Final = 1
JITTER_MS: Final = 3.0
"""Mean of what a message takes longer, exponentially distributed."""
HICCUP_SHARE: Final = 0.002
HICCUP_MS_MAX: Final = 120
"""Now and then a message waits for a processor that does something else."""
ANSWER_WITHIN_MS: Final = 10_000
AGAIN_MS: Final = 100
START_TAKES_MS: Final = 2_500
"""A killed process has to start, import and open its store."""
REDIAL_MS: Final = 500
"""A connection that hung is carried on this long after its link is whole."""
AVOIDED_AFTER_MS: Final = 1_500
"""Clients use a validator again this long after its fault: it must follow the chain first."""
BETWEEN_MS: Final = 5_000
FINISH_MS: Final = 15_000
"""For what is on its way at the end."""
PAYMENT: Final = b"pay"
"""How a payload begins; then comes the payment's number."""
PAYMENT_BYTES: Final = 180
SLOWER_MOST: Final = 3.0
"""What is promised of p99, against calm."""
_WORLD: Final = -1
_ANY_LIFE: Final = -1


class Outage(enum.StrEnum):
    """What befalls a validator."""

    KILL = "kill"
    STOP = "stop"
    CUT = "cut"


@dataclass(frozen=True, slots=True)
class Setting:
    """One campaign."""

    validators: int = 4
    seed: int = 1
    calm_seconds: int = 60
    fault_seconds: int = 30
    outages: int = 0
    """How many; 0 for each kind on each validator once."""
    payments_a_second: int = 20

    def __post_init__(self) -> None:
        if not VALIDATORS_LEAST <= self.validators <= VALIDATORS_MOST:
            raise ValueError(
                f"{self.validators} validators, allowed are {VALIDATORS_LEAST} to {VALIDATORS_MOST}"
            )

    @property
    def down_at_once(self) -> int:
        """f."""
        return (self.validators - 1) // 3

    def scenario(self) -> Scenario:
        """The world: nothing goes wrong in it but the outages."""
        return Scenario(
            seed=self.seed,
            stakes=(1,) * self.validators,
            seal_every_ms=0,
            calm_at_ms=10_000_000,
            compact_after_records=512,
            timing=Timing(),
        )


@dataclass(frozen=True, slots=True)
class Turn:
    """One outage: who, what, and when, in milliseconds of virtual time."""

    outage: Outage
    validators: tuple[int, ...]
    from_ms: int
    until_ms: int


def turns(setting: Setting) -> list[Turn]:
    """Every outage befalls every validator once; the next outage, the next validators."""
    count = setting.validators
    at_ms = START_MS + WARM_UP_MS + 1_000 * setting.calm_seconds
    kinds = list(Outage)
    planned = []
    for turn in range(setting.outages or 3 * count):
        kind = kinds[(turn + (turn // count if count % 3 == 0 else 0)) % 3]
        chosen = tuple((turn + step) % count for step in range(setting.down_at_once))
        until_ms = at_ms + 1_000 * setting.fault_seconds
        planned.append(Turn(kind, chosen, at_ms, until_ms))
        at_ms = until_ms + START_TAKES_MS + BETWEEN_MS
    return planned


@dataclass(slots=True)
class Payment:
    """One payment, and who was asked for it last."""

    intended_ms: int
    asked: int
    final_ms: int | None = None


@dataclass(frozen=True, slots=True)
class GivenUp:
    """A view that was given up."""

    view: int
    leader: int
    at_ms: int
    lasted_ms: int
    """On the first validator that left it."""
    leader_down: bool


class QuickLinks:
    """Implements `Network`: in order, a few milliseconds; what is cut off waits at the gate."""

    def __init__(self, setting: Setting, planned: Sequence[Turn]) -> None:
        self._random = Random(f"outages {setting.seed}")
        self._last_ms: dict[tuple[int, int], int] = {}
        self._turns = planned

    def arrivals(
        self, sender: int, receiver: int, now_ms: int, message: Message, size_bytes: int
    ) -> Sequence[int]:
        """See `Network`."""
        random = self._random
        takes_ms = LINK_MS_LEAST + random.expovariate(1 / JITTER_MS)
        if random.random() < HICCUP_SHARE:
            takes_ms += random.random() * HICCUP_MS_MAX
        at_ms = int(now_ms + SYNC_MS + takes_ms)
        for turn in self._turns:
            touches = sender in turn.validators or receiver in turn.validators
            if touches and turn.from_ms <= at_ms < turn.until_ms:
                if turn.outage is Outage.KILL:
                    return ()
                if turn.outage is Outage.CUT:
                    at_ms = turn.until_ms + REDIAL_MS
        link = (sender, receiver)
        at_ms = self._last_ms[link] = max(at_ms, self._last_ms.get(link, 0))
        return (at_ms,)

    def partition(self) -> None:
        """Never at random."""

    def heal(self) -> None:
        """See the plan."""

    def calm(self) -> None:
        """See the plan."""


class OutageWorld(World):
    """Plays a campaign; knows when each payment was final, and which views were given up."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.plan = turns(setting)
        super().__init__(setting.scenario(), network=QuickLinks(setting, self.plan))
        self.payments: list[Payment] = []
        self.given_up: dict[int, GivenUp] = {}
        """By view."""
        count = setting.validators
        self._lanes: list[list[int]] = [[] for _ in range(count)]
        """Numbers of the payments of each lane, by sequence from 1."""
        self._final = [0] * count
        self._entered = [(1, START_MS)] * count
        """View of each, and when it entered it."""

    @property
    def ended_ms(self) -> int:
        """When the last payment is sent."""
        return self.plan[-1].until_ms + START_TAKES_MS + BETWEEN_MS

    def down(self, at_ms: int, after_ms: int = 0) -> frozenset[int]:
        """Who is down, or was until so long ago."""
        return frozenset(
            validator
            for turn in self.plan
            if turn.from_ms <= at_ms < turn.until_ms + after_ms
            for validator in turn.validators
        )

    def _begin(self) -> None:
        super()._begin()
        every_ms = 1_000 // self.setting.payments_a_second
        for number, at_ms in enumerate(range(START_MS + WARM_UP_MS, self.ended_ms, every_ms)):
            self._push(at_ms, _WORLD, _ANY_LIFE, b"pay %d" % number)
        for number, turn in enumerate(self.plan):
            self._push(turn.from_ms, _WORLD, _ANY_LIFE, b"down %d" % number)
            if turn.outage is Outage.KILL:
                up_ms = turn.until_ms + START_TAKES_MS
                self._push(up_ms, _WORLD, _ANY_LIFE, b"up %d" % number)

    def _befall(self, what: Event | bytes | int | None) -> None:
        verb, _, number = what.partition(b" ") if isinstance(what, bytes) else (b"", b"", b"")
        if verb == b"pay":
            self.payments.append(Payment(self.now_ms, 0))
            self._ask(int(number))
        elif verb == b"again":
            self._ask(int(number))
        elif verb == b"down":
            self._fail(self.plan[int(number)])
        elif verb == b"up":
            for validator in self.plan[int(number)].validators:
                self._start(self.machines[validator])
        else:
            super()._befall(what)

    def _ask(self, number: int) -> None:
        """A client sends a payment to a validator that it does not know to be down."""
        payment = self.payments[number]
        if payment.final_ms is not None:
            return
        count = self.setting.validators
        avoided = self.down(self.now_ms, START_TAKES_MS + AVOIDED_AFTER_MS)
        order = [(number + step) % count for step in range(count)]
        payment.asked = next(index for index in order if index not in avoided)
        payload = (PAYMENT + number.to_bytes(8, "big")).ljust(PAYMENT_BYTES, b"\0")
        self._push(self.now_ms + BATCH_INTERVAL_MS, payment.asked, _ANY_LIFE, SealBatch(payload))

    def _fail(self, turn: Turn) -> None:
        for number, payment in enumerate(self.payments):
            if payment.final_ms is None and payment.asked in turn.validators:
                again_ms = payment.intended_ms + ANSWER_WITHIN_MS
                if turn.outage is Outage.KILL:
                    again_ms = self.now_ms + AGAIN_MS
                self._push(again_ms, _WORLD, _ANY_LIFE, b"again %d" % number)
        for validator in turn.validators:
            if turn.outage is Outage.KILL:
                self.machines[validator].stop()
            elif turn.outage is Outage.STOP:
                self._busy_until_ms[validator] = turn.until_ms

    def _step(self, machine: Machine, event: Event) -> None:
        if isinstance(event, SealBatch) and machine.replica is not None:
            if machine.replica.lane_room == 0:
                at_ms = self.now_ms + BATCH_INTERVAL_MS
                self._push(at_ms, machine.number, machine.lives, event)
                return
            number = int.from_bytes(event.payload[len(PAYMENT) :][:8], "big")
            self._lanes[machine.index].append(number)
        super()._step(machine, event)
        self._see_views(machine)
        block = machine.delivered_block
        if block is None:
            return
        lane = self._lanes[machine.index]
        final = {tip.lane: tip.sequence for tip in block.cut}.get(machine.index, 0)
        for number in lane[self._final[machine.index] : final]:
            payment = self.payments[number]
            payment.final_ms = payment.final_ms or self.now_ms
        self._final[machine.index] = max(final, self._final[machine.index])

    def _see_views(self, machine: Machine) -> None:
        replica = machine.replica
        if replica is None or replica.view == self._entered[machine.index][0]:
            return
        _, since_ms = self._entered[machine.index]
        self._entered[machine.index] = (replica.view, self.now_ms)
        simplex = replica._simplex
        past = replica.view - 1
        if past in simplex.ballots.nullifications and past not in self.given_up:
            leader = simplex.leader(past)
            down = leader in self.down(self.now_ms, START_TAKES_MS)
            found = GivenUp(past, leader, self.now_ms, self.now_ms - since_ms, down)
            self.given_up[past] = found


def measure(setting: Setting) -> dict[str, Any]:
    """Finality calm and faulty, and what views of those who are down cost. Raises
    InvariantBroken, as every simulated world does."""
    world = OutageWorld(setting)
    fate = world.run(world.ended_ms + FINISH_MS - START_MS)
    first_ms = world.plan[0].from_ms
    calm = [p for p in world.payments if p.intended_ms < first_ms]
    faulty = [p for p in world.payments if p.intended_ms >= first_ms]
    firsts, others, well = _costs(world)
    spread = {"calm": _finality(calm), "faulty": _finality(faulty)}
    return {
        **asdict(setting),
        "payments": len(world.payments),
        "not_final": sum(payment.final_ms is None for payment in world.payments),
        "finality_ms": spread,
        "p99_ratio": round(spread["faulty"]["p99"] / spread["calm"]["p99"], 2),
        "given_up_ms": {
            "first_of_an_outage": _spread(firsts),
            "later_of_an_outage": _spread(others),
            "leader_well": _spread(well),
        },
        "turns": [
            {
                "outage": turn.outage.value,
                "validators": turn.validators,
                "finality_ms": _finality(
                    [
                        payment
                        for payment in world.payments
                        if turn.from_ms
                        <= payment.intended_ms
                        < turn.until_ms + START_TAKES_MS + BETWEEN_MS
                    ]
                ),
            }
            for turn in world.plan
        ],
        "blocks": fate.height,
        "trace_sha256": fate.digest,
    }


def text(row: dict[str, Any]) -> str:
    """For people."""
    spread, cost = row["finality_ms"], row["given_up_ms"]
    views = ", ".join(
        f"{name.replace('_', ' ')} {found['p50']} ms (most {found['most']}, {found['count']} times)"
        for name, found in cost.items()
        if found
    )
    return (
        f"{row['validators']} validators, {row['fault_seconds']} s each: p50 and p99 calm "
        f"{spread['calm']['p50']} and {spread['calm']['p99']} ms, faulty {spread['faulty']['p50']} "
        f"and {spread['faulty']['p99']} ms: {row['p99_ratio']} times; {row['not_final']} of "
        f"{row['payments']} not final\n     views given up: {views or 'none'}"
    )


def _costs(world: OutageWorld) -> tuple[list[int], list[int], list[int]]:
    """Milliseconds of views given up: of each outage's first of each leader, of later ones, and
    of those whose leader was well."""
    firsts: list[int] = []
    others: list[int] = []
    well: list[int] = []
    seen: set[tuple[int, int]] = set()
    for found in world.given_up.values():
        begun = sum(turn.from_ms <= found.at_ms for turn in world.plan)
        if not found.leader_down:
            well.append(found.lasted_ms)
        elif (begun, found.leader) in seen:
            others.append(found.lasted_ms)
        else:
            seen.add((begun, found.leader))
            firsts.append(found.lasted_ms)
    return firsts, others, well


def _finality(payments: Sequence[Payment]) -> dict[str, int]:
    return _spread([p.final_ms - p.intended_ms for p in payments if p.final_ms is not None])


def _spread(values: Sequence[int]) -> dict[str, int]:
    """Percentiles; empty if there are none."""
    if not values:
        return {}
    ordered = sorted(values)
    percentiles = {
        f"p{share}": ordered[-(-len(ordered) * share // 100) - 1] for share in (50, 90, 99)
    }
    return {"count": len(ordered), **percentiles, "most": ordered[-1]}
