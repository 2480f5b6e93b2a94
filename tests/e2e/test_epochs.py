"""Real processes go from epoch to epoch: all validators are replaced while payments go on."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import pytest
from google.protobuf.message import Message

from assay.v1 import node_pb2, transactions_pb2
from chain.client import NodeClient, NodeUnavailableError
from chain.devnet import (
    VALIDATOR_STAKE,
    NodeRecord,
    create_validator_home,
    free_ports,
    save_devnet,
    start_node,
    stop_devnet,
    stop_processes,
)
from chain.keys import KeyPair, Role
from chain.keystore import KdfCost, read_passphrase, save_key
from chain.node.config import HttpSettings, NodeConfig, edit_config, load_config, save_config
from chain.node.signer import NodeKeys, load_keys
from chain.parameters import GRAIN_PER_ASY, Parameters
from chain.rejections import Rejection
from chain.transactions import make_operation
from chain.validator_home import shown_keys
from tests.e2e.network import CALL_BOUND_S, Network, client_of, create_network, until

EPOCH_BLOCKS = 20
OLD = (0, 1, 2, 3)
NEW = (4, 5, 6, 7)
BOUND_S = 240.0
PAUSES_FILE = "pauses.json"
"""Measured, and not judged: in the test's own folder."""
KDF = KdfCost(passes=1, memory_kib=8 * 1024)


def epoch_rules() -> Parameters:
    return Parameters(epoch_blocks=EPOCH_BLOCKS)


@dataclass
class Payments:
    """Payments one after another through whoever is a member; what was said to be final."""

    network: Network
    final: dict[bytes, int] = field(default_factory=dict)
    """Height by id."""
    _stopping: bool = False

    async def run(self) -> None:
        """Pay until told to stop."""
        receiver = KeyPair.generate().public_key
        transfer = make_operation(transactions_pb2.Transfer(to=receiver, amount=GRAIN_PER_ASY))
        turn = 0
        while not self._stopping:
            turn += 1
            places = [node.index for node in self.network.nodes]
            async with client_of(self.network, places[turn % len(places)]) as client:
                try:
                    status = await client.status()
                    if not status.voting:
                        continue
                    signed = await client.sign(self.network.user, [transfer])
                    identity = await client.submit(signed)
                    outcome = await client.wait(identity, 10.0)
                except (NodeUnavailableError, Rejection, TimeoutError):
                    continue  # nobody was told that it is final
                if outcome.accepted:
                    self.final[identity] = outcome.height

    async def until_more(self, count: int) -> None:
        """Return when so many more payments are final."""
        before = len(self.final)
        async with asyncio.timeout(BOUND_S):
            while len(self.final) < before + count:
                await asyncio.sleep(0.1)

    def stop(self) -> None:
        self._stopping = True


@asynccontextmanager
async def paying(network: Network, payers: int = 3) -> AsyncIterator[Payments]:
    payments = Payments(network)
    tasks = [asyncio.create_task(payments.run()) for _ in range(payers)]
    try:
        yield payments
    finally:
        payments.stop()
        await asyncio.gather(*tasks)


def start_all(network: Network, indices: Sequence[int]) -> None:
    devnet = network.devnet
    nodes = tuple(
        start_node(network.home, node) if node.index in indices else node for node in devnet.nodes
    )
    save_devnet(network.home, devnet.model_copy(update={"nodes": nodes}))


def add_home(network: Network, index: int) -> None:
    """Keys and settings of a validator that is in no genesis."""
    peer, public, http = (f"127.0.0.1:{port}" for port in free_ports(3))
    folder = network.home / f"validator-{index}"
    create_validator_home(folder, index, peer)
    config = NodeConfig(
        validator=index,
        genesis=Path("../genesis.json"),
        public_listen=public,
        peer_listen=peer,
        http=HttpSettings(listen=http),
    )
    save_config(folder, config)
    node = NodeRecord(index=index, home=folder.name, public=public, peer=peer, http=http)
    devnet = network.devnet
    save_devnet(network.home, devnet.model_copy(update={"nodes": (*devnet.nodes, node)}))


def keys_of(network: Network, index: int) -> NodeKeys:
    config = load_config(network.home / f"validator-{index}")
    return load_keys(config.keys, network.genesis, index)


async def say(client: NodeClient, key: KeyPair, *messages: Message) -> None:
    """Send operations and wait until they are final."""
    signed = await client.sign(key, [make_operation(message) for message in messages])
    outcome = await client.wait(await client.submit(signed), BOUND_S)
    assert outcome.accepted, outcome


def registration(network: Network, index: int) -> transactions_pb2.RegisterValidator:
    keys = keys_of(network, index)
    shown = shown_keys(
        network.genesis.chain_id,
        keys.account.public_key,
        keys.signing,
        keys.vrf,
        network.nodes[index].peer,
        keys.tls.certificate_der,
    )
    return transactions_pb2.RegisterValidator(keys=shown, stake=VALIDATOR_STAKE)


async def until_answers(network: Network, index: int) -> None:
    async with client_of(network, index) as client:

        async def answers() -> bool:
            return (await client.status()).validator == index

        await until(answers, BOUND_S)


async def until_votes(network: Network, index: int) -> None:
    async with client_of(network, index) as client:

        async def votes() -> bool:
            return (await client.status()).voting

        await until(votes, BOUND_S)


async def register_all(network: Network, client: NodeClient) -> None:
    """Fund the new validators' accounts, and make candidates of them; ids are given in order."""
    accounts = [keys_of(network, index).account for index in NEW]
    amount = VALIDATOR_STAKE + 100 * GRAIN_PER_ASY
    transfers = [
        transactions_pb2.Transfer(to=account.public_key, amount=amount) for account in accounts
    ]
    await say(client, network.user, *transfers)
    for index, account in zip(NEW, accounts, strict=True):
        await say(client, account, registration(network, index))
    views = {view.account: view.index for view in await client.validators()}
    assert [views[account.public_key] for account in accounts] == list(NEW)


async def check_rotation(network: Network) -> None:
    """A validator's new signing key takes over at an epoch's beginning, in the running node."""
    index = NEW[0]
    folder = network.home / f"validator-{index}"
    keys = keys_of(network, index)
    new = KeyPair.generate()
    passphrase = read_passphrase(folder / "keys" / "passphrase")
    save_key(folder / "keys" / "next.json", new, Role.SIGNING, passphrase, KDF)
    edit_config(folder, keys={"next_signing": "keys/next.json"})
    process = network.nodes[index].process
    assert process is not None
    stop_processes([process])
    start_all(network, (index,))
    await until_votes(network, index)
    shown = shown_keys(
        network.genesis.chain_id,
        keys.account.public_key,
        new,
        keys.vrf,
        network.nodes[index].peer,
        keys.tls.certificate_der,
    )
    async with client_of(network, NEW[1]) as client:
        await say(client, keys.account, transactions_pb2.RotateValidator(keys=shown))
        rotated = (await client.status()).epoch + 2
        await until(lambda: _is_past(client, (rotated + 1) * EPOCH_BLOCKS), BOUND_S)
        led = [await client.block(rotated * EPOCH_BLOCKS + at) for at in range(1, EPOCH_BLOCKS + 1)]
        assert index in {block.proposer for block in led}
        views = {view.index: view for view in await client.validators()}
        assert views[index].signing_key == new.public_key
    await until_votes(network, index)


async def until_members(network: Network, asked: int, members: Sequence[int]) -> None:
    async with client_of(network, asked) as client:

        async def are() -> bool:
            return tuple((await client.status()).members) == tuple(members)

        await until(are, BOUND_S)


async def chain_of(client: NodeClient, height: int) -> list[node_pb2.BlockView]:
    return [await client.block(at) for at in range(1, height + 1)]


@pytest.mark.timeout(600)
async def test_four_validators_are_replaced_by_four_others_under_load(tmp_path: Path) -> None:
    network = create_network(tmp_path / "net", 4, epoch_rules())
    try:
        start_all(network, OLD)
        for index in NEW:
            add_home(network, index)
        async with paying(network) as payments:
            start_all(network, NEW)  # an operator does so before the stake may be elected
            await asyncio.gather(*(until_answers(network, index) for index in (*OLD, *NEW)))
            async with client_of(network) as client:
                await register_all(network, client)
                for index in OLD:
                    leave = transactions_pb2.LeaveValidators()
                    await say(client, keys_of(network, index).account, leave)
            await until_members(network, NEW[0], NEW)
            await asyncio.gather(*(until_votes(network, index) for index in NEW))
            old = [network.nodes[index].process for index in OLD]
            stop_processes([process for process in old if process is not None])
            await payments.until_more(10)
            (tmp_path / PAUSES_FILE).write_text(json.dumps(await pauses(network)))
            await check_rotation(network)
        await check_one_chain(network, payments)
    finally:
        stop_devnet(network.home)


async def check_one_chain(network: Network, payments: Payments) -> None:
    """The new four agree on every block, without a gap, and have every payment said to be final."""
    chains = []
    clients = [NodeClient(network.nodes[index].public, CALL_BOUND_S) for index in NEW]
    height = min([(await client.status()).height for client in clients])
    for client in clients:
        chains.append([block.digest for block in await chain_of(client, height)])
    assert all(chain == chains[0] for chain in chains)
    blocks = await chain_of(clients[0], height)
    assert [block.height for block in blocks] == list(range(1, height + 1))
    assert all(child.parent == block.digest for block, child in pairwise(blocks))
    assert payments.final
    for client in clients:
        for identity, at in payments.final.items():
            if at <= height:
                found = await client.transaction(identity)
                assert (found.accepted, found.height) == (True, at)
        await client.__aexit__(None, None, None)


async def pauses(network: Network) -> dict[str, list[int]]:
    """Milliseconds between blocks: over boundaries, and within epochs."""
    async with client_of(network, NEW[0]) as client:
        height = (await client.status()).height
        times = [block.timestamp_ms for block in await chain_of(client, height)]
    gaps = {at: later - earlier for at, (earlier, later) in enumerate(pairwise(times), 1)}
    return {
        "boundary_ms": [gap for at, gap in gaps.items() if at % EPOCH_BLOCKS == 0],
        "calm_ms": [gap for at, gap in gaps.items() if at % EPOCH_BLOCKS],
    }


async def _is_past(client: NodeClient, height: int) -> bool:
    return (await client.status()).height > height
