"""What one world is like: its validators, what goes wrong in it, and for how long.

A scenario is drawn from a profile and a seed (`draw`), so the two name a world completely. Each
thing that may go wrong has a name; `without` takes one out and leaves the rest as it was drawn,
which is how a failing seed is reduced.
"""

import enum
from dataclasses import dataclass, replace
from random import Random
from typing import Final

from consensus.events import Timing

VALIDATORS_LEAST: Final = 4
VALIDATORS_MOST: Final = 31
FAST: Final = Timing(
    leader_timeout_ms=200,
    leader_timeout_least_ms=60,
    certificate_timeout_ms=300,
    block_interval_ms=50,
    heartbeat_ms=2_000,
)
"""Delta is 100 ms; links are faster than that once the faults have ended."""
MISDEEDS_EACH_MAX: Final = 4
SEALS_A_VALIDATOR: Final = 4
"""Seal intervals are for this many validators; more of them seal less often each."""


class Hazard(enum.StrEnum):
    """What may befall honest validators."""

    LOSS = "loss"
    DELAY = "delay"
    DUPLICATION = "duplication"
    REORDERING = "reordering"
    PARTITION = "partition"
    SKEW = "skew"
    CRASH = "crash"
    SLOW_DISK = "slow-disk"
    FULL_DISK = "full-disk"
    LOST_LOG = "lost-log"


class Misdeed(enum.StrEnum):
    """What a Byzantine validator may do."""

    TWINS = "twins"
    """Two honest programs with one key, which contradict each other as soon as links let them."""
    EQUIVOCATE = "equivocate"
    """Other proposals and votes for half of the peers; nullify and finalize for one view."""
    STALE_PARENT = "stale-parent"
    """Proposes on its parent's parent, and never helps to finalize."""
    BAD_CUT = "bad-cut"
    """Proposes a tip of its own lane that does not exist."""
    BAD_ROOT = "bad-root"
    BAD_VRF = "bad-vrf"
    BAD_SET = "bad-set"
    """Proposes blocks that name other validators for the next epoch."""
    FORK_LANE = "fork-lane"
    """Other batches for half of the peers."""
    BAD_BATCH = "bad-batch"
    """Seals batches that fail their check."""
    HIDE_BATCH = "hide-batch"
    """Keeps its batches and sends their proofs only; acks what it was never sent."""
    CONTRADICT = "contradict"
    """Attests both verdicts on the same job."""
    WITHHOLD = "withhold"
    """Leads in silence, and keeps certificates to itself."""
    SELECTIVE = "selective"
    """Speaks to a changing half of its peers."""
    FLOOD = "flood"
    """Bad signatures, certificates of one signer counted many times, nonsense."""


Name = Hazard | Misdeed


@dataclass(frozen=True, slots=True)
class Scenario:
    """One world. Everything else follows from the seed."""

    seed: int
    stakes: tuple[int, ...] = (1, 1, 1, 1)
    byzantine: tuple[tuple[int, frozenset[Misdeed]], ...] = ()
    """Byzantine validators, with less than a third of the stake together."""
    loss_max: float = 0.0
    """Each link, in each direction, loses a share of its messages from 0 to this."""
    delay_ms_max: int = 20
    duplication: float = 0.0
    """Share of messages that come twice."""
    reordering: bool = True
    """Whether a message may overtake another on the same link."""
    partitions_every_ms: int = 0
    """Mean time between two partitions; 0 for none."""
    skew_ms_max: int = 0
    """How far a clock may be off; clocks jump within that now and then."""
    crashes_every_ms: int = 0
    """Mean time between two crashes anywhere; 0 for none."""
    crash_at_write: tuple[int, int] | None = None
    """A validator and the write of its disk (from 1) in which it crashes first."""
    slow_disk_ms_max: int = 0
    """What one sync of a slow disk may take; every second disk is slow."""
    full_disks_every_ms: int = 0
    """Mean time between two disks running full; 0 for none."""
    lost_logs_every_ms: int = 0
    """Mean time between two lost vote logs, of less than a third of the stake at any time (with the
    Byzantine); 0 for none. With it every log begins as one whose key may have been used."""
    amnesia_at_ms: int = 0
    """When more than that lose their logs at once. They get them back when the faults end; 0 for
    never."""
    seal_every_ms: int = 300
    """Mean time between two batches of one validator; 0 for none."""
    payload_bytes: int = 24
    """Of one batch, about."""
    calm_at_ms: int = 2_500
    """From here on links, disks and clocks behave; Byzantine validators do not."""
    live_within_ms: int = 30_000
    """How long after that everything must go on again, at the latest."""
    epoch_blocks: int = 0
    """Blocks of an epoch, each with another set of validators; 0: one epoch for ever."""
    compact_after_records: int = 12
    """How soon replicas compact their logs."""
    real_crypto: bool = False
    timing: Timing = FAST

    def misdeeds(self, index: int) -> frozenset[Misdeed]:
        """What a validator does wrong."""
        return dict(self.byzantine).get(index, frozenset())

    def hazards(self) -> tuple[Name, ...]:
        """What goes wrong here, in a fixed order."""
        done = {misdeed for _, misdeeds in self.byzantine for misdeed in misdeeds}
        active: list[Name] = [name for name in Hazard if getattr(self, _FIELDS[name][0])]
        if self.delay_ms_max <= CALM_DELAY_MS_MAX:
            active.remove(Hazard.DELAY)
        return (*active, *(misdeed for misdeed in Misdeed if misdeed in done))

    def without(self, name: Name) -> "Scenario":
        """The same world with one thing less going wrong."""
        if isinstance(name, Misdeed):
            kept = tuple((index, misdeeds - {name}) for index, misdeeds in self.byzantine)
            return replace(self, byzantine=tuple(entry for entry in kept if entry[1]))
        field, neutral = _FIELDS[name]
        changed = replace(self, **{field: neutral})  # type: ignore[arg-type]
        return replace(changed, crash_at_write=None) if name is Hazard.CRASH else changed


CALM_DELAY_MS_MAX: Final = 20
_FIELDS: Final[dict[Hazard, tuple[str, float]]] = {
    Hazard.LOSS: ("loss_max", 0.0),
    Hazard.DELAY: ("delay_ms_max", CALM_DELAY_MS_MAX),
    Hazard.DUPLICATION: ("duplication", 0.0),
    Hazard.REORDERING: ("reordering", False),
    Hazard.PARTITION: ("partitions_every_ms", 0),
    Hazard.SKEW: ("skew_ms_max", 0),
    Hazard.CRASH: ("crashes_every_ms", 0),
    Hazard.SLOW_DISK: ("slow_disk_ms_max", 0),
    Hazard.FULL_DISK: ("full_disks_every_ms", 0),
    Hazard.LOST_LOG: ("lost_logs_every_ms", 0),
}
"""Field and the value that stands for none of it."""

_LINKS: Final = (
    Hazard.LOSS,
    Hazard.DELAY,
    Hazard.DUPLICATION,
    Hazard.REORDERING,
    Hazard.PARTITION,
    Hazard.SKEW,
)
_LOST_LOGS: Final = (0, 1_500, 500)
"""For profiles with lost logs; drawn apart, so that the other worlds stay what they were."""
_DISKS: Final = (Hazard.CRASH, Hazard.SLOW_DISK, Hazard.FULL_DISK)
Strengths = dict[Hazard, tuple[float, ...]]
"""For each hazard that may occur, how bad it may be."""
_MILD: Final[Strengths] = {
    Hazard.LOSS: (0.0, 0.05, 0.1, 0.2),
    Hazard.DELAY: (20, 60, 200),
    Hazard.DUPLICATION: (0.0, 0.03, 0.1),
    Hazard.REORDERING: (False, True),
    Hazard.PARTITION: (0, 1_500, 700),
    Hazard.SKEW: (0, 150, 800),
    Hazard.CRASH: (0, 1_200, 400),
    Hazard.SLOW_DISK: (0, 10, 60),
    Hazard.FULL_DISK: (0, 0, 1_500),
}
_HARSH: Final[Strengths] = {
    Hazard.LOSS: (0.1, 0.2),
    Hazard.DELAY: (100,),
    Hazard.DUPLICATION: (0.1,),
    Hazard.REORDERING: (True,),
    Hazard.PARTITION: (1_200,),
    Hazard.SKEW: (800,),
    Hazard.CRASH: (500,),
    Hazard.SLOW_DISK: (40,),
    Hazard.FULL_DISK: (1_500,),
}
_AMNESIA: Final[Strengths] = {
    Hazard.LOSS: (0.2, 0.5),
    Hazard.DELAY: (60, 200),
    Hazard.PARTITION: (700, 300),
}
"""So bad that several views pass without a final block: what a store shows is old then."""


@dataclass(frozen=True, slots=True)
class Profile:
    """What the scenarios of one name may contain."""

    help: str
    strengths: Strengths
    byzantine: float = 0.0
    """How often a world has Byzantine validators."""
    misdeeds: tuple[Misdeed, ...] = tuple(m for m in Misdeed if m is not Misdeed.BAD_SET)
    misdeeds_each_max: int = MISDEEDS_EACH_MAX
    lost_logs: tuple[int, ...] = (0,)
    amnesia: bool = False
    sweep: bool = False
    """Whether the seed names the write in which a validator crashes."""
    epochs: tuple[int, ...] = ()
    """How many blocks an epoch may have, if there is more than one."""


def _only(strengths: Strengths, *hazards: Hazard) -> Strengths:
    return {hazard: strengths[hazard] for hazard in hazards}


PROFILES: Final[dict[str, Profile]] = {
    "all": Profile(
        "every fault, each seed its own mixture", _MILD, byzantine=0.8, lost_logs=_LOST_LOGS
    ),
    "harsh": Profile("every fault of links and disks at once", _HARSH, byzantine=0.5),
    "forgetful": Profile(
        "lost vote logs, on bad links and disks",
        _only(_MILD, *_LINKS, Hazard.CRASH),
        byzantine=0.3,
        lost_logs=(1_000, 400, 150),
    ),
    "amnesia": Profile(
        "more than a third lose their vote logs at once",
        _AMNESIA,
        amnesia=True,
    ),
    "links": Profile("links and clocks only", _only(_MILD, *_LINKS)),
    "disks": Profile("crashes, slow and full disks", _only(_HARSH, *_DISKS)),
    "byzantine": Profile(
        "Byzantine validators on slow links", _only(_MILD, Hazard.DELAY), byzantine=1.0
    ),
    "twins": Profile(
        "twins on bad links",
        _only(_MILD, Hazard.DELAY, Hazard.PARTITION, Hazard.LOSS),
        byzantine=1.0,
        misdeeds=(Misdeed.TWINS,),
    ),
    "leaders": Profile(
        "leaders that each do one thing wrong, on bad links",
        _only(_MILD, Hazard.DELAY, Hazard.LOSS, Hazard.REORDERING),
        byzantine=1.0,
        misdeeds=(
            Misdeed.EQUIVOCATE,
            Misdeed.STALE_PARENT,
            Misdeed.BAD_CUT,
            Misdeed.BAD_ROOT,
            Misdeed.BAD_VRF,
            Misdeed.WITHHOLD,
        ),
        misdeeds_each_max=1,
    ),
    "stale": Profile(
        "leaders that build on an older block, on bad links",
        _only(_MILD, Hazard.DELAY, Hazard.LOSS),
        byzantine=1.0,
        misdeeds=(Misdeed.STALE_PARENT,),
    ),
    "epochs": Profile(
        "every fault, and other validators every few blocks",
        _MILD,
        byzantine=0.8,
        misdeeds=tuple(Misdeed),
        epochs=(2, 4, 7),
    ),
    "sweep": Profile("a crash in write number SEED / N of validator SEED % N", {}, sweep=True),
    "calm": Profile("nothing goes wrong", {}),
}


def draw(profile: str, seed: int, count: int, stakes: tuple[int, ...] | None = None) -> Scenario:
    """The world that a profile, a seed and a number of validators name.

    Without `stakes` half of the worlds weigh all validators alike. Raises KeyError for an unknown
    profile, ValueError for a number out of bounds.
    """
    if not VALIDATORS_LEAST <= count <= VALIDATORS_MOST:
        raise ValueError(f"{count} validators, allowed are {VALIDATORS_LEAST} to {VALIDATORS_MOST}")
    if stakes is not None and len(stakes) != count:
        raise ValueError(f"{len(stakes)} stakes for {count} validators")
    kind = PROFILES[profile]
    random = Random(f"{profile} {seed} {count}")
    drawn = tuple(random.choice((1, 1, 2, 3)) for _ in range(count))
    weighted = random.random() < 0.5
    chosen = stakes or (drawn if weighted else (1,) * count)
    fields = {_FIELDS[hazard][0]: random.choice(s) for hazard, s in kind.strengths.items()}
    byzantine = random.random() < kind.byzantine
    scenario = Scenario(
        seed=seed,
        stakes=chosen,
        byzantine=_byzantine(random, chosen, kind) if byzantine else (),
        seal_every_ms=random.choice((150, 500, 500, 3_000)) * count // SEALS_A_VALIDATOR,
        compact_after_records=random.choice((12, 60)),
        crash_at_write=(seed % count, 1 + seed // count) if kind.sweep else None,
        epoch_blocks=random.choice(kind.epochs) if kind.epochs else 0,
    )
    apart = Random(f"logs {profile} {seed} {count}")
    return replace(
        scenario,
        **fields,  # type: ignore[arg-type]
        lost_logs_every_ms=apart.choice(kind.lost_logs),
        amnesia_at_ms=apart.randint(200, 2_000) if kind.amnesia else 0,
    )


def _byzantine(
    random: Random, stakes: tuple[int, ...], kind: Profile
) -> tuple[tuple[int, frozenset[Misdeed]], ...]:
    """Validators chosen at random with less than a third of the stake, and what each does."""
    chosen: dict[int, frozenset[Misdeed]] = {}
    for index in random.sample(range(len(stakes)), len(stakes)):
        weight = sum(stakes[other] for other in chosen) + stakes[index]
        if 3 * weight < sum(stakes):
            many = min(len(kind.misdeeds), random.randint(1, kind.misdeeds_each_max))
            chosen[index] = frozenset(random.sample(kind.misdeeds, many))
    return tuple(sorted(chosen.items()))
