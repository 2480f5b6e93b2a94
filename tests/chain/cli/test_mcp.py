"""`assay mcp` as an agent's client meets it: real command, official client, real chain."""

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from mcp import Client, StdioServerParameters, stdio_client

from chain import receipt_files
from chain.addresses import encode_address
from chain.genesis import save
from chain.keys import Role
from chain.keystore import KdfCost, save_key
from tests.builders import key
from tests.chain.cli.test_cli import assay, error_of, output_of
from tests.chain.gateway.tiny_network import BOUND_S, TinyNetwork, tiny_genesis

AGENT, ALICE = key("agent").public_key, key("alice").public_key
TOOLS = ["infer", "verify_receipt", "balance", "job_status"]


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TinyNetwork]:
    network = TinyNetwork(tiny_genesis("alice"))
    with network.running(tmp_path_factory.mktemp("mcp-network")) as running:
        yield running


@pytest.fixture(scope="module")
def files(network: TinyNetwork, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Keys, a genesis, and alice's leave for the agent to spend a little."""
    folder = tmp_path_factory.mktemp("mcp-files")
    cost = KdfCost(passes=1, memory_kib=64, lanes=1)
    for name in ("alice", "agent"):
        save_key(folder / f"{name}.json", key(name), Role.ACCOUNT, b"secret", cost)
    (folder / "pass").write_text("secret\n")
    (folder / "pass").chmod(0o600)
    save(network.genesis, folder / "genesis.json")
    caps = ("--operation-cap", "10000000", "--total-cap", "12000000")
    signing = ("--key", folder / "alice.json", "--passphrase-file", folder / "pass")
    node = ("--node", network.nodes[0], "--json")
    output_of(assay("session", "grant", encode_address(AGENT), *caps, *signing, *node))
    return folder


def with_agent(network: TinyNetwork, files: Path, use: Callable[[Client], Awaitable[None]]) -> None:
    """Run `assay mcp` for the agent, and use it."""
    arguments = ["mcp", "--account", encode_address(ALICE)]
    for node in network.nodes:
        arguments += ["--node", node]
    arguments += ["--key", str(files / "agent.json"), "--passphrase-file", str(files / "pass")]
    arguments += ["--genesis", str(files / "genesis.json")]
    command = StdioServerParameters(
        command=str(Path(sys.executable).with_name("assay")),
        args=arguments,
        env=dict(os.environ),
    )

    async def run() -> None:
        async with asyncio.timeout(2 * BOUND_S), Client(stdio_client(command)) as client:
            await use(client)

    asyncio.run(run())


async def call(client: Client, tool: str, **arguments: Any) -> dict[str, Any]:
    result = await client.call_tool(tool, arguments)
    assert not result.is_error, result
    value = result.structured_content
    assert isinstance(value, dict)
    return value


async def refused(client: Client, tool: str, **arguments: Any) -> dict[str, Any]:
    result = await client.call_tool(tool, arguments)
    assert result.is_error
    text = getattr(result.content[0], "text", "")
    value: dict[str, Any] = json.loads(text[text.index("{") :])
    return value


def test_an_agent_asks_checks_and_is_held_to_its_session(network: TinyNetwork, files: Path) -> None:
    async def use(client: Client) -> None:
        assert [tool.name for tool in (await client.list_tools()).tools] == TOOLS
        before = await call(client, "balance")
        assert before["account"] == encode_address(ALICE)
        assert before["session"]["left"] == 12_000_000

        answer = await call(client, "infer", prompt="to assay", max_tokens=5)
        assert (answer["status"], answer["verdicts"]) == ("VERIFIED", ["PASS"])
        assert answer["text"]
        status = await call(client, "job_status", job=answer["job"])
        assert status["status"] == "VERIFIED"
        proof = await call(client, "verify_receipt", job=answer["job"])
        assert (proof["valid"], proof["text"]) == (True, answer["text"])

        receipt = await asyncio.to_thread(
            network.ask, lambda node: node.receipt(bytes.fromhex(answer["job"]))
        )
        shown = receipt_files.dump_json(receipt_files.from_protobuf(receipt)).decode()
        assert (await call(client, "verify_receipt", receipt=shown))["job"] == answer["job"]
        forged = shown.replace('"status": "VERIFIED"', '"status": "REJECTED"')
        assert forged != shown
        assert (await refused(client, "verify_receipt", receipt=forged))["reason"]

        after = await call(client, "balance")
        spent = 12_000_000 - after["session"]["left"]
        assert answer["paid"] < spent
        dear = await refused(client, "infer", prompt="to assay", max_price=11_000_000)
        assert dear["reason"] == "SESSION_OPERATION_CAP"
        assert "cap" in dear["remedy"]
        assert (await refused(client, "job_status", job="07"))["reason"] == "MALFORMED"
        misspelt = await refused(client, "infer", prompt="to assay", maxprice=1)
        assert misspelt["reason"] == "MALFORMED"
        assert "'maxprice' is no argument; infer takes prompt, " in misspelt["detail"]
        assert await call(client, "balance") == after

    with_agent(network, files, use)


def test_an_agent_without_a_session_key_is_not_started_by_accident(files: Path) -> None:
    signing = ("--key", files / "alice.json", "--passphrase-file", files / "pass")
    node = ("--node", "127.0.0.1:1", "--genesis", files / "genesis.json")
    assert error_of(assay("mcp", *signing, *node), code=2)["reason"] == "NO_SESSION"
    both = ("--account", ALICE.hex(), "--uncapped")
    assert error_of(assay("mcp", *signing, *node, *both), code=2)["reason"] == "NO_SESSION"
