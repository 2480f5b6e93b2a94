"""A validator cut off, then stopped, under load: payments go on, it comes back, nothing is lost."""

import asyncio
from pathlib import Path

import pytest

from chain.devnet import start_node, stop_devnet
from tests.e2e.network import Network, create_network, record_node
from tests.faults.cluster import Cluster, Fault, linked, watched
from tests.faults.ledgers import compare
from tests.faults.load import Load

pytestmark = pytest.mark.timeout(900, method="signal")

VICTIM = 3
PER_SECOND = 10.0
BLOCKS = 4
"""What the others finalize without the victim."""


def start(network: Network) -> None:
    for node in network.nodes:
        record_node(network, start_node(network.home, node))


async def suffer(cluster: Cluster, load: Load, fault: Fault) -> None:
    """The chain goes on without the victim, and the victim with the chain when it is over."""
    load.avoided.add(VICTIM)
    cluster.begin(fault, VICTIM)
    await cluster.grows(BLOCKS, VICTIM)
    cluster.end(fault, VICTIM)
    await cluster.rejoined(VICTIM)
    load.avoided.discard(VICTIM)


async def test_a_validator_cut_off_and_then_stopped_under_load_costs_nothing_final(
    tmp_path: Path,
) -> None:
    network = create_network(tmp_path / "devnet")
    async with linked(network) as links:
        try:
            start(network)
            async with watched(network, links) as cluster:
                load = Load(network, cluster.clients, PER_SECOND)
                async with asyncio.TaskGroup() as group:
                    group.create_task(load.run())
                    await cluster.grows(BLOCKS)
                    await suffer(cluster, load, Fault.CUT)
                    await suffer(cluster, load, Fault.STOP)
                    load.stop()
                assert load.payments
                assert [payment.refused for payment in load.payments if payment.refused] == []
                found = await compare(cluster.clients, load.payments)
                assert (found.lost, found.conflicts, found.convicted) == ((), (), ())
        finally:
            stop_devnet(network.home)


async def test_with_f_plus_1_cut_off_nothing_is_final_until_one_is_back(tmp_path: Path) -> None:
    network = create_network(tmp_path / "devnet")
    async with linked(network) as links:
        try:
            start(network)
            async with watched(network, links) as cluster:
                load = Load(network, cluster.clients, PER_SECOND)
                async with asyncio.TaskGroup() as group:
                    group.create_task(load.run())
                    await cluster.grows(BLOCKS)
                    links.cut(2)
                    links.cut(VICTIM)
                    # What had its votes already may still become final.
                    await asyncio.sleep(2.0)
                    halted = await cluster.height()
                    await asyncio.sleep(5.0)
                    assert await cluster.height() == halted
                    links.heal(2)
                    links.heal(VICTIM)
                    for validator in (2, VICTIM):
                        await cluster.rejoined(validator)
                    await cluster.grows(BLOCKS)
                    load.stop()
                found = await compare(cluster.clients, load.payments)
                assert found.height > halted
                assert (found.lost, found.conflicts, found.convicted) == ((), (), ())
        finally:
            stop_devnet(network.home)
