"""What end-to-end tests stand on: real commands, real devnets, and what is asked of them."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from assay.v1 import inference_pb2, node_pb2, transactions_pb2
from chain import genesis as genesis_file
from chain.asking import pick_model, price_ceiling
from chain.cli.main import build_app
from chain.client import NodeClient, NodeUnavailableError
from chain.devnet import (
    Devnet,
    NodeRecord,
    ProcessRecord,
    alive,
    create_devnet,
    load_devnet,
    save_devnet,
    stop_devnet,
)
from chain.devnet_start import user_key
from chain.genesis import Genesis
from chain.keys import KeyPair
from chain.parameters import GRAIN_PER_ASY, Parameters

COMMAND_BOUND_S = 240.0
"""No command takes nearly as long on a quiet machine; a test that waits longer has failed."""
CALL_BOUND_S = 60.0
"""Of a call that names no deadline of its own."""
POLL_S = 0.1
QUESTION = "What is gold? Answer in one sentence."


@dataclass(frozen=True, slots=True)
class Network:
    """A devnet on this machine."""

    home: Path
    genesis: Genesis
    user: KeyPair

    @property
    def devnet(self) -> Devnet:
        return load_devnet(self.home)

    @property
    def nodes(self) -> tuple[NodeRecord, ...]:
        return self.devnet.nodes

    def account(self, validator: int) -> bytes:
        """The account of a validator, which is also its provider's."""
        return self.genesis.validators[validator].account


def command(*arguments: str | Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run `assay …` to its end."""
    return subprocess.run(
        [str(Path(sys.executable).with_name("assay")), *(str(item) for item in arguments)],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=COMMAND_BOUND_S,
        check=False,
        env={**os.environ, "COLUMNS": "200"},
    )


def in_process(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """What `assay …` says and how it ends, without a process of its own, which takes a second of
    CPU: for verbs of which other tests run the command."""
    words = ["assay", *(str(item) for item in arguments)]
    done = CliRunner().invoke(build_app(), words[1:], catch_exceptions=False)
    return subprocess.CompletedProcess(words, done.exit_code, done.stdout, done.stderr)


def output_of(done: subprocess.CompletedProcess[str]) -> Any:
    """The JSON value of a command that succeeded."""
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


def refusal_of(done: subprocess.CompletedProcess[str], code: int = 1) -> dict[str, str]:
    """Reason and detail of a command that was refused: one JSON line, and nothing beside it."""
    assert done.returncode == code, done.stdout + done.stderr
    assert done.stdout == ""
    report: dict[str, str] = json.loads(done.stderr)
    assert set(report) == {"reason", "detail"}
    return report


def create_network(
    home: Path, validators: int = 4, parameters: Parameters | None = None
) -> Network:
    """Keys, genesis and homes; nothing runs yet."""
    devnet = create_devnet(home, validators, parameters)
    genesis = genesis_file.load(home / devnet.genesis)
    return Network(home, genesis, user_key(home, devnet))


@contextmanager
def running_network(
    home: Path,
    model: Path,
    validators: int = 4,
    parameters: Parameters | None = None,
    options: Sequence[str | Path] = (),
) -> Iterator[Network]:
    """A devnet that answers questions, started by its own command and stopped in any case."""
    network = create_network(home, validators, parameters)
    try:
        start = ("devnet", "start", "--home", home, "--model", model, "--detach", "--json")
        done = command(*start, *options)
        assert len(output_of(done)["nodes"]) == validators
        yield network
    finally:
        stop_devnet(home)


def kill(record: ProcessRecord | None) -> None:
    """SIGKILL one process of ours, and wait until it is gone."""
    assert record is not None
    assert alive(record)
    os.kill(record.pid, signal.SIGKILL)
    deadline_s = time.monotonic() + COMMAND_BOUND_S
    while alive(record):
        assert time.monotonic() < deadline_s
        time.sleep(POLL_S)


def record_node(network: Network, node: NodeRecord) -> None:
    """Write a node's new process into devnet.json, so that it is stopped with the others."""
    devnet = network.devnet
    nodes = tuple(node if node.index == other.index else other for other in devnet.nodes)
    save_devnet(network.home, devnet.model_copy(update={"nodes": nodes}))


def client_of(network: Network, validator: int = 0) -> NodeClient:
    return NodeClient(network.nodes[validator].public, CALL_BOUND_S)


async def request_for(
    client: NodeClient,
    max_tokens: int = 12,
    temperature_milli: int = 0,
    provider: bytes = b"",
    seed: bytes = b"",
    answer_within_ms: int = 0,
    prompt: str = QUESTION,
) -> transactions_pb2.RequestInference:
    """A request that the chain accepts, unless the caller asked for something else."""
    chat = inference_pb2.Chat()
    chat.messages.add(role=inference_pb2.ROLE_USER, content=prompt)
    model = await pick_model(client, "")
    request = transactions_pb2.RequestInference(
        model=model.model,
        input=inference_pb2.InferenceInput(chat=chat),
        sampling=inference_pb2.Sampling(
            temperature_milli=temperature_milli, max_output_tokens=max_tokens
        ),
        provider=provider,
        seed=seed,
        answer_within_ms=answer_within_ms,
    )
    request.max_price = await price_ceiling(client, await client.parameters(), model, request)
    return request


async def funded(network: Network, client: NodeClient, asy: int = 100) -> KeyPair:
    """A new account that owns something: neither a validator's nor the treasury's."""
    key = KeyPair.generate()
    transfer = transactions_pb2.Transfer(to=key.public_key, amount=asy * GRAIN_PER_ASY)
    signed = await client.sign(network.user, [transactions_pb2.Op(transfer=transfer)])
    status = await client.wait(await client.submit(signed), COMMAND_BOUND_S)
    assert status.accepted
    return key


@asynccontextmanager
async def clients_of(network: Network) -> AsyncIterator[list[NodeClient]]:
    """A client of every node."""
    clients = [NodeClient(node.public, CALL_BOUND_S) for node in network.nodes]
    try:
        yield clients
    finally:
        await asyncio.gather(*(client.__aexit__(None, None, None) for client in clients))


async def until(holds: Callable[[], Awaitable[bool]], bound_s: float = COMMAND_BOUND_S) -> None:
    """Return when something holds; a node that does not answer is asked again."""
    async with asyncio.timeout(bound_s):
        while True:
            try:
                if await holds():
                    return
            except NodeUnavailableError:
                pass
            await asyncio.sleep(POLL_S)


async def until_at_height(client: NodeClient, height: int) -> None:
    """Return when the node answers and has executed the block."""

    async def reached() -> bool:
        return (await client.status()).height >= height

    await until(reached)


async def check_equal_roots(network: Network) -> node_pb2.BlockView:
    """Every node has the same block and root at the height that all of them have reached."""
    async with clients_of(network) as clients:
        heights = [(await client.status()).height for client in clients]
        for client in clients:
            await until_at_height(client, max(heights))
        blocks = [await client.block(max(heights)) for client in clients]
    assert len({(block.digest, block.execution_root) for block in blocks}) == 1
    return blocks[0]
