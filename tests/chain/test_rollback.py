"""A ledger is taken back by executing the chain again, and goes on to the same roots."""

import asyncio
from pathlib import Path

import pytest

from assay.v1 import transactions_pb2
from chain.client import NodeClient
from chain.genesis import Genesis
from chain.rollback import KEPT_NAME, put_back, roll_back
from chain.store import STORE_NAME, Store, StoreError
from tests.builders import key
from tests.chain.node.running_node import running_node, solitary_genesis

PAYMENTS = 6


async def pay(client: NodeClient) -> None:
    transfer = transactions_pb2.Transfer(to=key("bob").public_key, amount=7)
    signed = await client.sign(key("alice"), [transactions_pb2.Op(transfer=transfer)])
    assert (await client.wait(await client.submit(signed), 120.0)).accepted


async def run_chain(home: Path) -> Genesis:
    """A node that has executed some blocks with payments, and was stopped."""
    genesis = solitary_genesis("alice")
    async with running_node(home, genesis) as (_, client):
        for _ in range(PAYMENTS):
            await pay(client)
    return genesis


def open_store(home: Path, genesis: Genesis) -> Store:
    return Store(home / STORE_NAME, genesis.chain_id, genesis.digest(), background=False)


def roots(home: Path, genesis: Genesis) -> dict[int, bytes]:
    with open_store(home, genesis) as store:
        return dict(store.execution_roots(1_000))


@pytest.mark.timeout(300)
async def test_a_node_goes_on_from_where_it_was_taken_back_to(tmp_path: Path) -> None:
    genesis = await run_chain(tmp_path)
    before = roots(tmp_path, genesis)
    assert max(before) >= PAYMENTS
    done = roll_back(tmp_path, genesis, 2)
    assert (done.from_height, done.to_height, done.differs_at) == (max(before), 2, None)
    assert done.final_height >= max(before)
    assert roots(tmp_path, genesis) == {at: before[at] for at in (1, 2)}
    async with running_node(tmp_path, genesis) as (node, client):
        async with asyncio.timeout(120):
            while node.height < max(before):
                await asyncio.sleep(0.05)
        await pay(client)  # it votes: its log was left alone
        assert node.not_voting == ""
    after = roots(tmp_path, genesis)
    assert {at: after[at] for at in before} == before


@pytest.mark.timeout(300)
async def test_a_store_is_left_as_it_was_when_it_cannot_be_taken_back(tmp_path: Path) -> None:
    genesis = await run_chain(tmp_path)
    before = roots(tmp_path, genesis)
    with pytest.raises(StoreError, match="not above it"):
        roll_back(tmp_path, genesis, max(before) + 1)
    with (
        open_store(tmp_path, genesis),
        pytest.raises(StoreError, match="in use by another process"),
    ):
        roll_back(tmp_path, genesis, 1)
    (tmp_path / KEPT_NAME).mkdir()
    with pytest.raises(StoreError, match="earlier rollback"):
        roll_back(tmp_path, genesis, 1)
    assert roots(tmp_path, genesis) == before


@pytest.mark.timeout(300)
async def test_a_rollback_that_ends_between_the_renames_leaves_the_store_and_can_be_done_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    genesis = await run_chain(tmp_path)
    before = roots(tmp_path, genesis)
    rename = Path.rename

    def refuse(path: Path, target: Path) -> Path:
        if path.name.endswith("unfinished"):
            raise OSError("no space left")
        return rename(path, target)

    with monkeypatch.context() as patched, pytest.raises(OSError, match="no space"):
        patched.setattr(Path, "rename", refuse)
        roll_back(tmp_path, genesis, 1)
    assert roots(tmp_path, genesis) == before
    (tmp_path / STORE_NAME).rename(tmp_path / KEPT_NAME)  # as if it had been killed there
    put_back(tmp_path)
    assert roots(tmp_path, genesis) == before
    (tmp_path / STORE_NAME).rename(tmp_path / KEPT_NAME)
    assert roll_back(tmp_path, genesis, 1).from_height == max(before)


@pytest.mark.timeout(300)
async def test_a_pruned_store_says_that_a_snapshot_is_the_way_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    genesis = await run_chain(tmp_path)
    monkeypatch.setattr(Store, "pruned_through", property(lambda store: 3))
    with pytest.raises(StoreError, match="restore a snapshot"):
        roll_back(tmp_path, genesis, 1)
