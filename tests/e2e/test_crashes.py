"""Processes that die without a word while questions are under way: nothing is lost or stuck."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from assay.v1 import node_pb2, receipts_pb2
from chain import receipt_files
from chain.asking import Answer, ask
from chain.client import NodeClient
from chain.devnet import RuntimeRecord, save_devnet, spawn, start_node
from chain.node.inference import FINAL_STATUSES
from chain.node.worker import open_ledger
from chain.parameters import Parameters
from chain.receipts import parse_result, verify_receipt
from chain.records import JobStatus
from chain.rejections import Rejection, RejectionReason
from chain.store import Store
from chain.transactions import make_operation
from runtime.packages import ModelPackage
from tests.e2e.network import (
    COMMAND_BOUND_S,
    POLL_S,
    Network,
    check_equal_roots,
    client_of,
    command,
    kill,
    output_of,
    record_node,
    request_for,
    running_network,
    until,
    until_at_height,
)

pytestmark = pytest.mark.timeout(900, method="signal")

VICTIM = 3
PARAMETERS = replace(
    Parameters(), commit_within_ms=20_000, reveal_within_ms=15_000, assign_within_ms=30_000
)
"""A dead validator's seat is waited for as long as these say."""
ANSWER_WITHIN_MS = 30_000
RUNTIME_BACK_WITHIN_MS = 240_000


@pytest.fixture(scope="module")
def network(
    smollm2_package: ModelPackage, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Network]:
    home = tmp_path_factory.mktemp("crashes") / "devnet"
    with running_network(home, smollm2_package.path, parameters=PARAMETERS) as running:
        yield running


async def asked(network: Network, started: asyncio.Event, prompt: str) -> Answer:
    """One question to validator 0; says when a provider is at work."""

    def note(view: node_pb2.JobView) -> None:
        if view.status == JobStatus.ASSIGNED.name:
            started.set()

    async with client_of(network) as client:
        request = await request_for(client, 8, answer_within_ms=ANSWER_WITHIN_MS, prompt=prompt)
        return await ask(client, network.user, request, COMMAND_BOUND_S, on_status=note)


async def test_jobs_finish_though_a_validator_is_killed_and_it_catches_up(
    network: Network,
) -> None:
    started = asyncio.Event()
    questions = [
        asyncio.create_task(asked(network, started, prompt))
        for prompt in ("What is gold?", "What is silver?", "What is copper?")
    ]
    await started.wait()
    victim = network.nodes[VICTIM]
    kill(victim.process)
    answers = await asyncio.gather(*questions)
    assert [answer.status for answer in answers] == ["VERIFIED"] * 3
    for answer in answers:
        verify_receipt(answer.receipt, network.genesis)
    async with client_of(network) as client:
        height = (await client.status()).height
        record_node(network, start_node(network.home, victim))
        async with client_of(network, VICTIM) as returned:
            await until_at_height(returned, height)
            status = await returned.status()
            assert status.voting
            assert (await returned.block(height)).execution_root == (
                await client.block(height)
            ).execution_root
            assert (await returned.job(answers[0].job)).status == "VERIFIED"
    await check_equal_roots(network)


async def test_a_returned_validator_answers_and_judges_again(network: Network) -> None:
    async with client_of(network, VICTIM) as client:
        request = await request_for(client, 4, provider=network.account(VICTIM))
        answer = await ask(client, network.user, request, COMMAND_BOUND_S)
        assert answer.status == "VERIFIED"
        assert answer.receipt.job_receipt.provider == network.account(VICTIM)
        request = await request_for(client, 4, provider=network.account(0))
        answer = await ask(client, network.user, request, COMMAND_BOUND_S)
    assert {word.validator for word in answer.receipt.job_receipt.verdicts} == {1, 2, VICTIM}


def test_a_question_goes_on_when_the_node_it_was_put_to_stops_in_the_middle(
    network: Network, tmp_path: Path
) -> None:
    asked, next_one = network.nodes[0], network.nodes[2]
    assert asked.process is not None
    receipt = tmp_path / "receipt.json"
    words = (
        *("infer", "Tell me of gold.", "--max-tokens", "64", "--receipt", receipt),
        *("--node", asked.public, "--node", next_one.public),
        *("--provider", network.account(1).hex(), "--genesis", network.home / "genesis.json"),
        *("--key", network.home / network.devnet.user_key),
        *("--passphrase-file", network.home / network.devnet.user_passphrase),
    )
    with subprocess.Popen(
        [str(Path(sys.executable).with_name("assay")), *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as asking:
        assert asking.stdout is not None
        begun = os.read(asking.stdout.fileno(), 1)
        os.kill(asked.process.pid, signal.SIGSTOP)
        try:
            rest, beside = asking.communicate(timeout=COMMAND_BOUND_S)
        finally:
            os.kill(asked.process.pid, signal.SIGCONT)
    assert asking.returncode == 0, beside
    assert f"node {asked.public} is lost: going on with {next_one.public}" in beside.decode()
    proven = receipt_files.load(receipt.read_bytes())
    assert proven.result is not None
    told, _, _ = (begun + rest).decode().partition("\nVERIFIED by ")
    assert told == parse_result(proven.result).text


def restart_runtime(network: Network, model: Path) -> None:
    """A runtime at the address of the one that was killed."""
    devnet = network.devnet
    old = devnet.runtimes[0]
    arguments = ["runtime", "serve", "--model", str(model), "--listen", old.address]
    process = spawn(arguments, network.home / old.log)
    new = RuntimeRecord(address=old.address, log=old.log, process=process)
    save_devnet(network.home, devnet.model_copy(update={"runtimes": (new,)}))


async def test_a_runtime_killed_in_the_middle_of_an_answer_leaves_nothing_stuck(
    network: Network, smollm2_package: ModelPackage
) -> None:
    texts: list[str] = []
    speaking = asyncio.Event()

    def hear(text: str) -> None:
        texts.append(text)
        speaking.set()

    async with client_of(network) as client:
        request = await request_for(
            client, 64, provider=network.account(2), answer_within_ms=RUNTIME_BACK_WITHIN_MS
        )
        question = asyncio.create_task(
            ask(client, network.user, request, COMMAND_BOUND_S * 2, on_text=hear)
        )
        await speaking.wait()
        kill(network.devnet.runtimes[0].process)
        heard = len("".join(texts))
        restart_runtime(network, smollm2_package.path)
        answer = await question
        assert answer.status == "VERIFIED"
        # The stream went on where it broke off: no word is missing, none comes twice.
        assert 0 < heard < len(answer.text)
        assert "".join(texts) == answer.text

        async def nothing_open() -> bool:
            return (await client.status()).open_jobs == 0

        await until(nothing_open)
    await check_equal_roots(network)


async def job_under_way(network: Network) -> bytes:
    """A job that a provider works on; its caller has hung up."""
    async with client_of(network) as client:
        request = await request_for(client, 32, answer_within_ms=ANSWER_WITHIN_MS)
        signed = await client.sign(network.user, [make_operation(request)])
        async for event in client.infer(signed, COMMAND_BOUND_S):
            if event.status.status == JobStatus.ASSIGNED.name:
                return event.status.job
    raise AssertionError("the call ended before the job was assigned")


async def receipt_of(client: NodeClient, job: bytes) -> receipts_pb2.Receipt:
    """The receipt, once a certified block vouches for it; the chain sees to that by itself."""
    async with asyncio.timeout(COMMAND_BOUND_S):
        while True:
            try:
                return await client.receipt(job)
            except Rejection as rejection:
                if rejection.reason is not RejectionReason.NOT_READY:
                    raise
            await asyncio.sleep(POLL_S)


def check_stored_ledger(network: Network, validator: int) -> tuple[int, bytes]:
    """The ledger on a dead validator's disk adds up; returns its height and root."""
    data = network.home / network.nodes[validator].home / "data" / "store"
    with Store(data, network.genesis.chain_id, network.genesis.digest()) as store:
        ledger = open_ledger(network.genesis, store)
        held = sum(
            account.balance + account.stake + account.unbonding for _, account in ledger.accounts()
        )
        escrowed = sum(job.escrow for _, job in ledger.jobs())
        supply = ledger.supply()
        assert held + escrowed + supply.burned == supply.issued
        return ledger.height, ledger.execution_root


async def test_when_all_are_killed_at_once_the_ledgers_add_up_and_the_job_goes_on(
    network: Network, smollm2_package: ModelPackage
) -> None:
    job = await job_under_way(network)
    devnet = network.devnet
    for record in [*(node.process for node in devnet.nodes), devnet.runtimes[0].process]:
        kill(record)
    ledgers = dict(check_stored_ledger(network, node.index) for node in devnet.nodes)
    done = command(
        *("devnet", "start", "--home", network.home, "--model", smollm2_package.path),
        *("--detach", "--json"),
    )
    assert output_of(done)["chain_id"] == network.genesis.chain_id
    async with client_of(network) as client:
        await until_at_height(client, max(ledgers))
        for height, root in ledgers.items():
            assert (await client.block(height)).execution_root == root

        async def settled() -> bool:
            view = await client.job(job)
            return view.escrow == 0 and JobStatus[view.status] in FINAL_STATUSES

        await until(settled)
        # A provider that is back before its deadline answers; if none is, nobody pays.
        assert (await client.job(job)).status in {"VERIFIED", "REFUNDED"}
        receipt = receipt_files.from_protobuf(await receipt_of(client, job))
        assert verify_receipt(receipt, network.genesis).job == job
    answer = output_of(
        command("infer", "--home", network.home, "Go on.", "--max-tokens", "4", "--json")
    )
    assert answer["verdict"] == "VERIFIED"
    await check_equal_roots(network)
