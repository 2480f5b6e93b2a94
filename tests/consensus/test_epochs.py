"""From one epoch to the next: another set, one chain, and proofs that can be followed."""

from dataclasses import replace

import pytest

from consensus.epochs import BoundaryInvalid, EpochBoundary
from consensus.messages import Certificates, Message
from consensus.values import ValidatorSet, Vote, VoteKind
from tests.consensus.epoch_world import CHAIN_ID, CHECKS, World, members

E = 5


def moving(epoch: int) -> ValidatorSet:
    """Each epoch one of four leaves and the next of the pool comes."""
    first = min(epoch, 6)
    return members(epoch, first, first + 1, first + 2, first + 3)


def check_one_chain(world: World) -> None:
    longest = max(world.machines, key=lambda machine: machine.height)
    for machine in world.machines:
        assert machine.roots == longest.roots[: machine.height]
    blocks = [final.block for final, _ in longest.blocks]
    assert [block.height for block in blocks] == list(range(1, len(blocks) + 1))
    for block in blocks:
        assert block.epoch == (block.height - 1) // E
        assert block.proposer in moving(block.epoch).by_index
        named = moving(block.epoch + 1).digest() if block.height % E == 0 else bytes(32)
        assert block.next_validators == named


@pytest.mark.parametrize(("seed", "loss"), [(1, 0.0), (2, 0.1), (3, 0.2)])
def test_all_validators_are_replaced_while_the_chain_goes_on(seed: int, loss: float) -> None:
    world = World(moving, E, seed, loss)
    world.run_until(lambda: min(machine.height for machine in world.machines) >= 7 * E)
    check_one_chain(world)
    assert moving(0).by_index.keys().isdisjoint(moving(4).by_index)


def test_what_a_member_seals_is_executed_by_all_in_every_epoch() -> None:
    world = World(moving, E)
    expected = set()
    for epoch in range(4):
        world.run_until(lambda at=epoch: min(m.height for m in world.machines) > at * E)  # type: ignore[misc]
        lane = max(moving(epoch).by_index)
        payload = f"payload of epoch {epoch}".encode()
        world.seal(lane, payload)
        expected.add(payload)
        world.run_until(lambda p=payload: all(p in m.payloads for m in world.machines))  # type: ignore[misc]
    check_one_chain(world)
    assert all(sorted(machine.payloads) == sorted(expected) for machine in world.machines)


def test_who_was_away_for_epochs_follows_from_boundary_to_boundary() -> None:
    world = World(moving, E)
    away = world.machines[8]
    away.deaf = True
    others = [machine for machine in world.machines if machine is not away]
    world.run_until(lambda: min(machine.height for machine in others) >= 4 * E)
    assert away.height == 0
    away.deaf = False
    world.run_until(lambda: away.height >= 4 * E)
    check_one_chain(world)


def test_a_boundary_whose_own_view_is_given_up_becomes_final_under_a_filler() -> None:
    world = World(moving, E)

    def finalizes_boundary(sender: int, to: int, message: Message) -> bool:
        """Nobody hears a vote to finalize the first block of a boundary's height."""
        if isinstance(message, Certificates):
            return any(finalizes_boundary(sender, to, vote) for vote in _votes(message))
        return (
            isinstance(message, Vote)
            and message.body.kind is VoteKind.FINALIZE
            and message.body.view in boundary_views
        )

    boundary_views: set[int] = set()
    world.run_until(lambda: max(machine.height for machine in world.machines) >= E - 1)
    final = max(machine.blocks[-1][0].block.view for machine in world.machines if machine.blocks)
    boundary_views.update({final + 1})
    world.dropped = finalizes_boundary
    world.run_until(lambda: min(machine.height for machine in world.machines) >= 2 * E)
    check_one_chain(world)
    proofs = [machine.boundaries[0] for machine in world.machines]
    assert any(proof.descendants for proof in proofs)
    for proof in proofs:
        assert proof.follow(moving(0), CHAIN_ID, CHECKS.verify_many) == moving(1)


def _votes(message: Certificates) -> list[Vote]:
    return [Vote(item.body, 0, bytes(64)) for item in message.items]


@pytest.fixture(scope="module")
def ended() -> EpochBoundary:
    world = World(moving, E)
    world.run_until(lambda: min(machine.height for machine in world.machines) >= E)
    return world.machines[0].boundaries[0]


def test_a_boundary_leads_who_trusts_its_set_to_the_next(ended: EpochBoundary) -> None:
    assert ended.follow(moving(0), CHAIN_ID, CHECKS.verify_many) == moving(1)


def test_no_other_boundary_is_followed(ended: EpochBoundary) -> None:
    wrong = [
        replace(ended, members=moving(2).members),
        replace(ended, members=()),
        replace(ended, block=replace(ended.block, next_validators=moving(2).digest())),
        replace(ended, block=replace(ended.block, next_validators=bytes(32))),
        replace(ended, certificate=replace(ended.certificate, signers=(0, 1))),
        replace(ended, descendants=(replace(ended.block, height=E + 1),)),
        replace(
            ended,
            certificate=replace(
                ended.certificate, body=replace(ended.certificate.body, kind=VoteKind.NOTARIZE)
            ),
        ),
    ]
    for boundary in wrong:
        with pytest.raises(BoundaryInvalid):
            boundary.follow(moving(0), CHAIN_ID, CHECKS.verify_many)
    for trusted in (moving(1), members(0, 4, 5, 6, 7)):
        with pytest.raises(BoundaryInvalid):
            ended.follow(trusted, CHAIN_ID, CHECKS.verify_many)
