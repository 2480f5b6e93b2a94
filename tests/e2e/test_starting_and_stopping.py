"""A validator's process at its start and end: what it refuses to start with, and what it keeps."""

import asyncio
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from assay.v1 import transactions_pb2
from chain import genesis as genesis_file
from chain.devnet import start_node, stop_devnet
from chain.keys import KeyPair
from chain.node.config import CONFIG_FILE_NAME
from chain.transactions import make_operation
from consensus.wal import WAL_NAME
from tests.e2e.network import (
    COMMAND_BOUND_S,
    Network,
    client_of,
    command,
    create_network,
    kill,
    output_of,
    record_node,
    refusal_of,
    until_at_height,
)

pytestmark = pytest.mark.timeout(600, method="signal")

HEADER_BYTE = 20
"""Of the vote log's first group, which no crash can tear."""


@pytest.fixture
def network(tmp_path: Path) -> Iterator[Network]:
    """A chain of one validator without a runtime, which is not started yet."""
    created = create_network(tmp_path / "devnet", validators=1)
    try:
        yield created
    finally:
        stop_devnet(created.home)


def start(network: Network) -> None:
    """Start the validator, and return when it has executed its first block."""
    record_node(network, start_node(network.home, network.nodes[0]))

    async def answers() -> None:
        async with client_of(network) as client:
            await until_at_height(client, 0)

    asyncio.run(answers())


def home_of(network: Network) -> Path:
    return network.home / network.nodes[0].home


def refusal_to_start(network: Network) -> str:
    refusal = refusal_of(node_start(network))
    assert refusal["reason"] == "CANNOT_START"
    return refusal["detail"]


def node_start(network: Network) -> subprocess.CompletedProcess[str]:
    """`assay node start`, with its log lines taken off standard error."""
    done = command("node", "start", "--home", home_of(network), "--json")
    told = [line for line in done.stderr.splitlines() if line.startswith("{")]
    assert len(told) == 1, done.stderr
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout, told[0])


@contextmanager
def occupied(address: str) -> Iterator[None]:
    host, _, port = address.rpartition(":")
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, int(port)))
        listener.listen()
        yield


@pytest.mark.parametrize("which", ["public", "peer"])
def test_a_port_in_use_is_named(network: Network, which: str) -> None:
    address = getattr(network.nodes[0], which)
    with occupied(address):
        detail = refusal_to_start(network)
    assert address in detail
    assert "port" in detail or "in use" in detail


def test_a_home_of_other_validators_keys_is_refused(network: Network, tmp_path: Path) -> None:
    other = create_network(tmp_path / "other", validators=1)
    shutil.copy(other.home / "genesis.json", network.home / "genesis.json")
    detail = refusal_to_start(network)
    assert "is not that of validator 0" in detail


def test_a_home_of_another_chain_is_refused_by_name(network: Network) -> None:
    start(network)
    stop_devnet(network.home)
    other = genesis_file.make_genesis(
        "another",
        network.genesis.genesis_time_ms,
        network.genesis.parameters,
        network.genesis.validators,
        network.genesis.balances(),
        network.genesis.treasury,
    )
    path = network.home / "genesis.json"
    path.unlink()
    genesis_file.save(other, path)
    detail = refusal_to_start(network)
    assert network.genesis.chain_id in detail
    assert other.chain_id in detail


def test_an_unknown_setting_is_refused_by_name(network: Network) -> None:
    path = home_of(network) / CONFIG_FILE_NAME
    path.write_text('colour = "gold"\n' + path.read_text())
    detail = refusal_to_start(network)
    assert "colour" in detail
    assert str(path) in detail


def test_settings_that_are_no_toml_are_refused(network: Network) -> None:
    (home_of(network) / CONFIG_FILE_NAME).write_text("validator = = 0")
    assert "not valid TOML" in refusal_to_start(network)


def test_a_home_that_is_not_there_is_refused(tmp_path: Path) -> None:
    refusal = refusal_of(command("node", "start", "--home", tmp_path / "nowhere", "--json"))
    assert refusal["reason"] == "CANNOT_START"
    assert "nowhere" in refusal["detail"]


def test_one_home_is_never_run_twice(network: Network) -> None:
    start(network)
    detail = refusal_to_start(network)
    assert "another process" in detail
    status = output_of(command("node", "status", "--node", network.nodes[0].public, "--json"))
    assert status["voting"]


def test_a_devnet_is_stopped_once_and_stopping_it_again_does_no_harm(network: Network) -> None:
    start(network)
    assert output_of(command("devnet", "stop", "--home", network.home, "--json")) == {"stopped": 1}
    assert output_of(command("devnet", "stop", "--home", network.home, "--json")) == {"stopped": 0}
    done = command("devnet", "status", "--home", network.home, "--json")
    assert done.returncode == 1
    assert '"running": false' in done.stdout


def test_a_devnet_that_is_not_there_cannot_be_stopped(tmp_path: Path) -> None:
    refusal = refusal_of(command("devnet", "stop", "--home", tmp_path, "--json"))
    assert refusal["reason"] == "NO_DEVNET"


def test_a_node_told_to_stop_ends_well(network: Network) -> None:
    process = subprocess.Popen(
        [
            str(Path(sys.executable).with_name("assay")),
            *("node", "start", "--home", str(home_of(network))),
        ],
        stderr=subprocess.DEVNULL,
    )
    try:

        async def answers() -> None:
            async with client_of(network) as client:
                await until_at_height(client, 0)

        asyncio.run(answers())
        process.terminate()
        assert process.wait(COMMAND_BOUND_S) == 0
    finally:
        process.kill()
        process.wait()


async def pay(network: Network, receiver: bytes) -> int:
    """Transfer one grain; returns the height that has it."""
    async with client_of(network) as client:
        payment = make_operation(transactions_pb2.Transfer(to=receiver, amount=1))
        signed = await client.sign(network.user, [payment])
        status = await client.wait(await client.submit(signed), COMMAND_BOUND_S)
        assert status.accepted
        return status.height


async def root_and_balance(network: Network, height: int, receiver: bytes) -> tuple[bytes, int]:
    async with client_of(network) as client:
        await until_at_height(client, height)
        block = await client.block(height)
        return block.execution_root, (await client.account(receiver)).balance


def test_a_killed_validator_restarts_to_the_same_root(network: Network) -> None:
    receiver = KeyPair.generate().public_key
    start(network)
    for round_number in range(1, 4):
        height = asyncio.run(pay(network, receiver))
        before = asyncio.run(root_and_balance(network, height, receiver))
        assert before[1] == round_number
        kill(network.nodes[0].process)
        start(network)
        assert asyncio.run(root_and_balance(network, height, receiver)) == before


def test_a_damaged_vote_log_makes_an_observer_that_says_so(network: Network) -> None:
    start(network)
    height = asyncio.run(pay(network, KeyPair.generate().public_key))
    kill(network.nodes[0].process)
    log = home_of(network) / "data" / "votes" / WAL_NAME
    data = bytearray(log.read_bytes())
    data[HEADER_BYTE] ^= 0xFF  # in the header: no torn tail
    log.write_bytes(data)
    start(network)

    async def status() -> tuple[bool, str, int]:
        async with client_of(network) as client:
            await until_at_height(client, height)
            reply = await client.status()
            return reply.voting, reply.detail, reply.height

    voting, detail, reached = asyncio.run(status())
    assert not voting
    assert detail
    assert reached >= height
