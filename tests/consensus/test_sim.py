"""Whole worlds: whatever the links, disks and twins do, the rules hold and the chain goes on."""

from random import Random

import pytest

from consensus.ballots import Ballots
from consensus.context import Context
from consensus.sim.invariants import InvariantBroken
from consensus.sim.machine import Machine
from consensus.sim.world import Scenario, World
from consensus.simplex import Simplex
from consensus.values import Certificate, ValidatorSet, VoteBody, VoteKind

SEEDS = range(40)
LAG_BLOCKS_MAX = 3
"""At a moment chosen at random, somebody may be a few blocks behind."""


def scenario(seed: int) -> Scenario:
    """A different kind of world for each seed."""
    random = Random(seed)
    count = random.choice([4, 4, 4, 5, 7])
    stakes = tuple(random.choice([1, 1, 2]) for _ in range(count))
    suspects = [index for index in range(count) if 3 * stakes[index] < sum(stakes)]
    twins = frozenset({random.choice(suspects)} if count < 7 and random.random() < 0.4 else ())
    sealers = frozenset({random.randrange(count)} if random.random() < 0.2 else ())
    return Scenario(
        seed=seed,
        stakes=stakes,
        twins=twins,
        drop=random.choice([0.0, 0.02, 0.1, 0.25]),
        delay_ms_max=random.choice([20, 60, 300]),
        crashes_every_ms=random.choice([0, 300, 1_500]),
        partitions_every_ms=random.choice([0, 1_500, 4_000]),
        seal_every_ms=random.choice([150, 600]),
        bad_sealers=sealers,
        calm_at_ms=2_500,
        end_at_ms=4_500,
    )


def assert_alive(world: World) -> None:
    """After the faults everybody went on, together."""
    heights = world.heights()
    assert world.invariants.height >= world.height_at_calm + 3
    assert min(heights) >= world.invariants.height - LAG_BLOCKS_MAX, heights


@pytest.mark.parametrize("seed", SEEDS)
def test_safety_holds_under_faults_and_the_chain_goes_on_after_them(seed: int) -> None:
    world = World(scenario(seed))
    world.run()
    assert_alive(world)


def test_real_signatures_and_vrf_change_nothing() -> None:
    world = World(
        Scenario(seed=3, real_crypto=True, seal_every_ms=500, calm_at_ms=1_500, end_at_ms=3_000)
    )
    world.run()
    assert_alive(world)


def test_the_same_seed_gives_the_same_trace_and_another_seed_another() -> None:
    first, again, other = (World(scenario(seed)).run() for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_twins_are_convicted_and_nobody_else_is() -> None:
    world = World(
        Scenario(seed=5, twins=frozenset({2}), calm_at_ms=2_000, end_at_ms=5_000, drop=0.0)
    )
    world.run()
    assert_alive(world)
    culprits = {effect.evidence.culprit for m in world.machines for effect in m.evidence}
    assert culprits == {2}


def test_a_chain_without_work_is_quiet_between_heartbeats() -> None:
    def messages(end_at_ms: int) -> int:
        world = World(
            Scenario(
                seed=1,
                seal_every_ms=0,
                drop=0.0,
                crashes_every_ms=0,
                partitions_every_ms=0,
                delay_ms_max=5,
                calm_at_ms=0,
                end_at_ms=end_at_ms,
            )
        )
        world.run()
        return world.messages

    # The heartbeat is 2,000 ms: blocks fall at about 2.0 and 4.0 s.
    assert messages(1_800) == messages(200)
    assert messages(3_800) == messages(2_500) > messages(1_800)


# --- mutants: a simulator that cannot find planted faults proves nothing ------------------------


def caught(scenarios: list[Scenario]) -> str:
    """What the invariants said of the first world that broke one."""
    for each in scenarios:
        try:
            World(each).run()
        except InvariantBroken as broken:
            return str(broken)
    return "nothing"


def hard(seed: int, **changes: object) -> Scenario:
    """A world with many crashes and lost messages."""
    fields = {
        "drop": 0.2,
        "delay_ms_max": 150,
        "crashes_every_ms": 300,
        "partitions_every_ms": 1_000,
        "calm_at_ms": 6_000,
        "end_at_ms": 6_500,
    }
    return Scenario(seed=seed, **{**fields, **changes})  # type: ignore[arg-type]


def test_validators_that_forget_their_votes_are_caught() -> None:
    worlds = [hard(seed, forgetful=frozenset({0, 1, 2, 3})) for seed in range(20)]
    assert "voted twice" in caught(worlds) or "nullified and finalized" in caught(worlds)


def test_sending_before_flushing_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Machine, "_flush", lambda machine: None)
    assert "before it was durable" in caught([hard(1)])


def test_finalizing_a_view_that_was_given_up_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = Simplex._vote_to_finalize

    def mutant(simplex: Simplex, notarization: Certificate) -> None:
        simplex._own(notarization.body.view).nullified = False
        honest(simplex, notarization)

    monkeypatch.setattr(Simplex, "_vote_to_finalize", mutant)
    assert "nullified and finalized view" in caught([hard(seed) for seed in range(20)])


def test_voting_for_every_proposal_of_a_view_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = Simplex._vote

    def mutant(simplex: Simplex) -> bool:
        own = simplex.own_votes.get(simplex.view)
        offered = len(simplex.proposals.of_view(simplex.view))
        if own is not None and own.notarized is not None and offered > 1:
            votes = simplex.own_votes.pop(simplex.view)
            for digest, proposal in simplex.proposals.of_view(simplex.view):
                if votes.notarized is not None and digest != votes.notarized.digest:
                    simplex._notarize(digest, proposal)
        return honest(simplex)

    monkeypatch.setattr(Simplex, "_vote", mutant)
    worlds = [hard(seed, twins=frozenset({1}), drop=0.0) for seed in range(10)]
    assert "voted twice" in caught(worlds)


def test_counting_half_the_stake_as_a_quorum_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = Ballots._complete

    def mutant(ballots: Ballots, body: VoteBody, slots: dict[int, object]) -> Certificate | None:
        validators = ballots._context.validators
        lax = LaxValidators(validators.epoch, validators.members)
        real = Context.validators
        monkeypatch.setattr(Context, "validators", property(lambda context: lax))
        try:
            return honest(ballots, body, slots)  # type: ignore[arg-type]
        finally:
            monkeypatch.setattr(Context, "validators", real)

    monkeypatch.setattr(Ballots, "_complete", mutant)
    assert "a certificate is bad: signers hold 2 of the stake" in caught([hard(1)])


class LaxValidators(ValidatorSet):
    """Half is enough."""

    @property
    def quorum_stake(self) -> int:
        return self.stake_total // 2


def test_a_finalization_quorum_implies_honest_notarize_votes() -> None:
    world = World(scenario(1))
    world.run()
    invariants = world.invariants
    body = VoteBody(VoteKind.FINALIZE, 0, 10_000, 9_999, b"x" * 32)
    with pytest.raises(InvariantBroken, match="signers hold 0 of the stake"):
        invariants._certificate(Certificate(body, (), ()))
