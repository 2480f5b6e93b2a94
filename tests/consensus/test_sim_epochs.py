"""Worlds in which the validators change every few blocks."""

from dataclasses import replace

import pytest

from consensus.sim.epochs import Calendar
from consensus.sim.invariants import InvariantBroken
from consensus.sim.mutants import MUTANTS
from consensus.sim.play import Run, hunt, play
from consensus.sim.scenario import Misdeed, Scenario, draw
from consensus.sim.world import World

EPOCHS = range(30)


@pytest.mark.parametrize("count", [4, 7])
def test_the_rules_hold_from_epoch_to_epoch_under_every_fault(count: int) -> None:
    for seed in range(10 if count == 4 else 2):
        verdict = play(Run("epochs", seed, count))
        assert verdict.violation is None, verdict.run.command()
        assert verdict.fate is not None
        assert verdict.fate.epochs >= 1


def test_real_keys_rotate_and_the_chain_goes_on() -> None:
    scenario = replace(draw("epochs", 1, 4), calm_at_ms=400, epoch_blocks=2, real_crypto=True)
    assert World(scenario).run().epochs >= 1


def test_many_epochs_end_where_nothing_goes_wrong() -> None:
    world = World(Scenario(seed=1, epoch_blocks=2, seal_every_ms=150, calm_at_ms=0))
    fate = world.run(4_000)
    assert fate.epochs >= 10
    seats = {frozenset(world.calendar.validators(epoch).by_index) for epoch in range(fate.epochs)}
    assert len(seats) > 2
    assert frozenset().union(*seats) == {*world.calendar.ids}


@pytest.mark.parametrize("seed", range(5))
def test_every_epoch_somebody_joins_somebody_leaves_and_keys_change(seed: int) -> None:
    calendar = Calendar(draw("epochs", seed, 4))
    for epoch in EPOCHS:
        before, after = calendar.validators(epoch), calendar.validators(epoch + 1)
        stayed = before.by_index.keys() & after.by_index.keys()
        assert len(before.by_index.keys() - stayed) == len(after.by_index.keys() - stayed) == 1
        byzantine = {index for index, _ in calendar.scenario.byzantine}
        assert 3 * after.weight(byzantine) < after.stake_total
    rotated = {
        index
        for epoch in EPOCHS
        for index, member in calendar.validators(epoch).by_index.items()
        if member.signing_key != calendar.validators(0).by_index.get(index, member).signing_key
    }
    assert rotated
    assert {m.stake for epoch in EPOCHS for m in calendar.validators(epoch).members} == {1, 2, 3}


def test_a_leader_that_names_other_validators_changes_no_set() -> None:
    liar = ((1, frozenset({Misdeed.BAD_SET})),)
    fate = World(Scenario(seed=3, byzantine=liar, epoch_blocks=2, calm_at_ms=800)).run()
    assert fate.epochs >= 1


@pytest.mark.parametrize(
    "name", ["filler-brings-batches", "any-next-set", "old-log-binds", "votes-after-the-end"]
)
def test_a_mistake_at_the_border_of_epochs_is_caught_for_what_it_is(name: str) -> None:
    verdict = hunt(name, range(50))
    assert verdict is not None
    with pytest.raises(InvariantBroken, match=MUTANTS[name].violation):
        raise InvariantBroken(verdict.violation)
