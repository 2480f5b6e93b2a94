"""Providers that cheat on a real devnet: found out, at their own cost, by validators who do not.

Validator 1 is the provider whose runtime each test chooses; the others use an honest one.
"""

import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from assay.v1 import node_pb2
from chain.asking import Answer, ask
from chain.client import NodeClient
from chain.devnet import free_ports, start_node, stop_processes
from chain.keys import KeyPair
from chain.node.config import ProviderSettings, edit_config
from chain.parameters import BASIS_POINTS
from chain.receipts import verify_receipt
from chain.records import JobStatus
from consensus.values import Verdict
from runtime.packages import ModelPackage
from tests.cheats import Cheat
from tests.conftest import REPOSITORY
from tests.e2e.network import (
    COMMAND_BOUND_S,
    POLL_S,
    Network,
    client_of,
    command,
    funded,
    output_of,
    record_node,
    request_for,
    running_network,
    until,
)

pytestmark = pytest.mark.timeout(900, method="signal")

CHEAT = 1
CAPACITY = 1024
SILENCE_MS = 10_000
"""What a silent provider is waited for; the honest one after it needs a fraction of that."""
TRUTH = "truth"
"""Name of the file at which slander ends."""
TEMPERATURE_MILLI = 1_500
"""Hot, so that another seed or greedy choice shows within a few tokens."""


@contextmanager
def cheating_runtime(upstream: str, cheat: Cheat, port: int, folder: Path) -> Iterator[None]:
    """A cheat's process on a port, once it listens."""
    port_file = folder / "cheat.port"
    port_file.unlink(missing_ok=True)
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "tests.cheats", "--upstream", upstream),
            *("--cheat", cheat.value, "--listen", f"127.0.0.1:{port}"),
            *("--port-file", str(port_file)),
            *("--truth-file", str(folder / TRUTH)),
        ],
        cwd=REPOSITORY,
        stdout=subprocess.DEVNULL,
    )
    try:
        deadline_s = time.monotonic() + COMMAND_BOUND_S
        while not port_file.exists():
            assert process.poll() is None
            assert time.monotonic() < deadline_s
            time.sleep(POLL_S)
        yield
    finally:
        process.terminate()
        try:
            process.wait(COMMAND_BOUND_S)
        except subprocess.TimeoutExpired:
            psutil.Process(process.pid).kill()
            raise


@pytest.fixture(scope="module")
def cheat_port() -> int:
    return free_ports(1)[0]


@pytest.fixture(scope="module")
def network(
    smollm2_package: ModelPackage, tmp_path_factory: pytest.TempPathFactory, cheat_port: int
) -> Iterator[Network]:
    """A devnet whose validator 1 asks another runtime than the others, and is much the cheapest."""
    home = tmp_path_factory.mktemp("cheats") / "devnet"
    with running_network(home, smollm2_package.path) as running:
        node = running.nodes[CHEAT]
        assert node.process is not None
        stop_processes([node.process])
        edit_config(
            home / node.home,
            runtimes=(f"127.0.0.1:{cheat_port}",),
            provider=ProviderSettings(input_price=0, output_price=0, capacity=CAPACITY),
        )
        record_node(running, start_node(home, node))
        yield running


@pytest.fixture
def upstream(network: Network) -> str:
    return network.devnet.runtimes[0].address


@pytest.fixture
async def client(network: Network) -> AsyncIterator[NodeClient]:
    async with client_of(network) as client:
        yield client


async def offer_stands(network: Network, client: NodeClient) -> None:
    """Wait until the cheat's offer is the one its configuration says."""

    async def stands() -> bool:
        model = (await client.models())[0].model
        return any(
            offer.capacity == CAPACITY
            for offer in await client.offers(model)
            if offer.provider == network.account(CHEAT)
        )

    await until(stands)


async def check_refunded(client: NodeClient, requester: KeyPair, before: int, job: Answer) -> None:
    """The requester has everything back but the fee of its transaction."""
    fee = (await client.wait(job.receipt.transaction, COMMAND_BOUND_S)).fee
    after = await client.account(requester.public_key)
    assert fee > 0
    assert after.balance == before - fee


async def wealth(client: NodeClient, account: bytes) -> int:
    view = await client.account(account)
    return view.balance + view.stake + view.unbonding


@pytest.mark.parametrize("cheat", [Cheat.TOKENS, Cheat.SEED, Cheat.MODEL])
async def test_a_cheat_is_rejected_slashed_and_its_victim_refunded(
    network: Network,
    client: NodeClient,
    cheat: Cheat,
    upstream: str,
    cheat_port: int,
    tmp_path: Path,
) -> None:
    provider = network.account(CHEAT)
    with cheating_runtime(upstream, cheat, cheat_port, tmp_path):
        await offer_stands(network, client)
        requester = await funded(network, client)
        balance = (await client.account(requester.public_key)).balance
        stake = (await client.account(provider)).stake
        owned = await wealth(client, provider)
        request = await request_for(client, temperature_milli=TEMPERATURE_MILLI, provider=provider)
        answer = await ask(client, requester, request, COMMAND_BOUND_S)
    assert answer.status == "REJECTED"
    verified = verify_receipt(answer.receipt, network.genesis)
    assert verified.status is JobStatus.REJECTED
    ruled = answer.receipt.job_receipt
    assert ruled.provider == provider
    assert {word.validator for word in ruled.verdicts} == {0, 2, 3}
    assert {word.verdict for word in ruled.verdicts} == {Verdict.FAIL}
    await check_refunded(client, requester, balance, answer)
    parameters = network.genesis.parameters
    seat_price = parameters.seat_price(ruled.input_tokens, ruled.output_tokens)
    judging = len(ruled.verdicts) * seat_price
    slashed = (stake - judging) * parameters.slash_bps // BASIS_POINTS
    # What it earns meanwhile as a validator, and pays in fees, is dust beside that.
    assert owned - await wealth(client, provider) > slashed * 99 // 100


async def test_a_silent_provider_of_ones_own_choice_costs_nothing_but_time(
    network: Network, client: NodeClient, upstream: str, cheat_port: int, tmp_path: Path
) -> None:
    with cheating_runtime(upstream, Cheat.SILENT, cheat_port, tmp_path):
        requester = await funded(network, client)
        before = (await client.account(requester.public_key)).balance
        request = await request_for(client, provider=network.account(CHEAT), answer_within_ms=1_000)
        answer = await ask(client, requester, request, COMMAND_BOUND_S)
    assert answer.status == "REFUNDED"
    assert answer.receipt.result is None
    assert verify_receipt(answer.receipt, network.genesis).status is JobStatus.REFUNDED
    await check_refunded(client, requester, before, answer)


async def test_a_job_of_a_silent_provider_is_given_to_another(
    network: Network, client: NodeClient, upstream: str, cheat_port: int, tmp_path: Path
) -> None:
    with cheating_runtime(upstream, Cheat.SILENT, cheat_port, tmp_path):
        await offer_stands(network, client)
        drawn = [0]

        def note(view: node_pb2.JobView) -> None:
            if view.provider == network.account(CHEAT):
                drawn[0] += 1

        # Price and capacity make the silent one all but certain to be drawn first.
        request = await request_for(client, max_tokens=4, answer_within_ms=SILENCE_MS)
        answer = await ask(client, network.user, request, COMMAND_BOUND_S, on_status=note)
    assert drawn[0] > 0
    assert answer.status == "VERIFIED"
    assert answer.attempts >= 2
    assert answer.receipt.job_receipt.provider != network.account(CHEAT)
    assert answer.text


async def runtime_becomes(network: Network, validator: int, address: str) -> None:
    """Start a node anew with another runtime, and wait until it has it."""
    node = network.nodes[validator]
    assert node.process is not None
    stop_processes([node.process])
    edit_config(network.home / node.home, runtimes=(address,))
    record_node(network, start_node(network.home, node))
    async with client_of(network, validator) as client:

        async def ready() -> bool:
            return (await client.status()).runtime_ready

        await until(ready)


async def test_a_provider_that_was_slandered_appeals_and_the_exact_engine_makes_it_whole(
    network: Network, client: NodeClient, upstream: str, cheat_port: int, tmp_path: Path
) -> None:
    provider, (port,) = network.account(CHEAT), free_ports(1)
    liars = (2, 3)  # with validator 0, whose word alone says PASS, two thirds of the committee
    home = network.home / network.nodes[CHEAT].home
    key = ("--key", home / "keys/account.json", "--passphrase-file", home / "keys/passphrase")
    asked = ("--home", network.home, "--json")
    with (
        cheating_runtime(upstream, Cheat.SLANDER, cheat_port, tmp_path),
        cheating_runtime(upstream, Cheat.SLANDER, port, tmp_path),
    ):
        for liar in liars:
            await runtime_becomes(network, liar, f"127.0.0.1:{port}")
        await offer_stands(network, client)
        request = await request_for(client, max_tokens=4, provider=provider)
        answer = await ask(client, network.user, request, COMMAND_BOUND_S)
        assert answer.status == "REJECTED"
        ruled = verify_receipt(answer.receipt, network.genesis)
        assert ruled.status is JobStatus.REJECTED
        job = answer.job.hex()
        (tmp_path / TRUTH).touch()
        output_of(command("tx", "appeal", job, *key, *asked))

        async def is_ruled() -> bool:
            return (await client.appeal(answer.job)).ruled_height > 0

        await until(is_ruled)
        (told,) = output_of(command("query", "appeals", job, *asked))
        assert (told["status"], told["appealed_status"]) == ("WON", "REJECTED")
        assert told["paid"] > 0
        assert output_of(command("query", "job", job, *asked))["appealed"]
        assert output_of(command("query", "appeals", *asked)) == []
        for liar in liars:
            await runtime_becomes(network, liar, upstream)
