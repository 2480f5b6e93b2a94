"""Validators cut off and stopped under load: payments go on, they come back, nothing is lost."""

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
OTHER = 2
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


async def halt(cluster: Cluster) -> int:
    """With f + 1 cut off nothing is final until they are back; then all goes on by itself."""
    for validator in (OTHER, VICTIM):
        cluster.begin(Fault.CUT, validator)
    await asyncio.sleep(2.0)  # what had its votes already may still become final
    halted = await cluster.height()
    await asyncio.sleep(5.0)
    assert await cluster.height() == halted
    for validator in (OTHER, VICTIM):
        cluster.end(Fault.CUT, validator)
    await cluster.grows(BLOCKS)
    for validator in (OTHER, VICTIM):
        await cluster.rejoined(validator)
    return halted


async def test_nothing_final_is_lost_when_validators_are_cut_off_and_stopped_under_load(
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
                    halted = await halt(cluster)
                    load.stop()
                assert load.payments
                assert [payment.refused for payment in load.payments if payment.refused] == []
                found = await compare(cluster.clients, load.payments)
                assert found.height > halted
                assert (found.lost, found.conflicts, found.convicted) == ((), (), ())
        finally:
            stop_devnet(network.home)
