"""A real node goes from epoch to epoch in its process, and comes back into the right one."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from assay.v1 import transactions_pb2
from chain.client import NodeClient
from chain.genesis import Genesis
from chain.node.epochs import engine_epoch, last_height
from chain.node.node import Node
from chain.node.recovery import VOTES_FOLDER
from chain.parameters import GRAIN_PER_ASY, Parameters
from chain.rollback import roll_back
from chain.snapshot_anchor import SnapshotInvalid, build_anchor, verify_anchor
from chain.store import STORE_NAME, Store
from consensus.wal import WAL_NAME, inspect
from tests.builders import key
from tests.chain.node.running_node import running_node, solitary_genesis

EPOCH_BLOCKS = 4
SOON_S = 120.0


def short_epochs() -> Genesis:
    plain = solitary_genesis("alice")
    rules = Parameters(epoch_blocks=EPOCH_BLOCKS, validator_stake_min=1)
    return replace(plain, parameters=rules)


async def pay(client: NodeClient) -> int:
    transfer = transactions_pb2.Transfer(to=key("bob").public_key, amount=GRAIN_PER_ASY // 1000)
    signed = await client.sign(key("alice"), [transactions_pb2.Op(transfer=transfer)])
    outcome = await client.wait(await client.submit(signed), SOON_S)
    assert outcome.accepted
    return outcome.height


async def pay_until_epoch(node: Node, client: NodeClient, epoch: int) -> None:
    async with asyncio.timeout(SOON_S):
        while node.driver.epoch < epoch:
            await pay(client)


def check_anchors(store: Store, genesis: Genesis) -> None:
    """What a snapshot of any height would rest on is believed by who followed the boundaries up to
    that height, and by nobody else."""
    sets = {0: genesis.validator_set()}
    for boundary in store.boundaries(0, 10):
        sets[boundary.block.epoch + 1] = boundary.validators
    crossing = 0
    for height in range(1, 3 * EPOCH_BLOCKS - 1):
        anchor = build_anchor(store, genesis, height)
        epoch = genesis.parameters.epoch_of(height)
        anchored = verify_anchor(anchor, genesis, height, sets[epoch])
        assert anchored.execution_root == store.execution_root_at(height)
        with pytest.raises(SnapshotInvalid):
            verify_anchor(anchor, genesis, height, sets[epoch + 1])
        if anchor.boundaries:
            crossing += 1
            with pytest.raises(SnapshotInvalid):
                verify_anchor(replace(anchor, boundaries=()), genesis, height, sets[epoch])
    assert crossing


def log_epoch(home: Path) -> int | None:
    return inspect((home / VOTES_FOLDER / WAL_NAME).read_bytes()).epoch


@pytest.mark.timeout(300)
async def test_a_node_goes_through_epochs_and_comes_back_into_the_one_it_left(
    tmp_path: Path,
) -> None:
    genesis = short_epochs()
    async with running_node(tmp_path, genesis) as (node, client):
        await pay_until_epoch(node, client, 3)
        status = await client.status()
        assert (status.epoch, status.voting, list(status.members)) == (3, True, [0])
        assert status.epoch_last_height == 4 * EPOCH_BLOCKS
    assert log_epoch(tmp_path) == 3
    with Store(
        tmp_path / STORE_NAME, genesis.chain_id, genesis.digest(), background=False
    ) as store:
        trusted = genesis.validator_set()
        for boundary in store.boundaries(0, 10):
            trusted = boundary.follow(trusted, genesis.chain_id)
        assert trusted.epoch == 3
        check_anchors(store, genesis)
    async with running_node(tmp_path, genesis) as (node, client):
        assert node.driver.epoch == 3
        await pay_until_epoch(node, client, 4)
        assert node.not_voting == ""


@pytest.mark.timeout(300)
async def test_a_ledger_taken_back_over_boundaries_executes_up_to_the_present_and_votes_on(
    tmp_path: Path,
) -> None:
    """Also what a crash leaves: final blocks, boundaries among them, that are not executed."""
    genesis = short_epochs()
    async with running_node(tmp_path, genesis) as (node, client):
        await pay_until_epoch(node, client, 2)
        height = await pay(client)
    roll_back(tmp_path, genesis, 2)
    async with running_node(tmp_path, genesis) as (node, client):
        assert node.driver.epoch == 0
        async with asyncio.timeout(SOON_S):
            while node.height < height:
                await asyncio.sleep(0.05)
        await pay(client)
        assert node.driver.epoch >= 2
        assert node.not_voting == ""


@pytest.mark.timeout(300)
async def test_a_crash_before_the_new_log_was_begun_leads_into_the_new_epoch(
    tmp_path: Path,
) -> None:
    genesis = short_epochs()
    async with running_node(tmp_path, genesis) as (node, client):
        await pay(client)
    old_log = (tmp_path / VOTES_FOLDER / WAL_NAME).read_bytes()
    async with running_node(tmp_path, genesis) as (node, client):
        await pay_until_epoch(node, client, 1)
    (tmp_path / VOTES_FOLDER / WAL_NAME).write_bytes(old_log)
    async with running_node(tmp_path, genesis) as (node, client):
        await pay(client)
        assert node.not_voting == ""
    assert log_epoch(tmp_path) == engine_epoch(genesis, node.height)


def test_a_chain_without_epochs_has_one_for_ever() -> None:
    genesis = solitary_genesis("alice")
    assert [engine_epoch(genesis, height) for height in (0, 1, 10**9)] == [0, 0, 0]
    assert last_height(genesis, 0) is None


def test_heights_and_epochs_fit_each_other() -> None:
    genesis = short_epochs()
    for height in range(50):
        epoch = engine_epoch(genesis, height)
        assert epoch == genesis.parameters.epoch_of(height + 1)
        last = last_height(genesis, epoch)
        assert last is not None
        assert genesis.parameters.is_boundary(last)
        assert last - EPOCH_BLOCKS <= height < last
