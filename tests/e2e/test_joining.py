"""A validator that comes late, or lost its disk, joins by snapshot while others work: it trusts
none of them, goes on after a kill, and votes.

Four validators without a runtime, transfers all the while. Validator CORRUPT gives wrong chunks.
All keep few blocks and forget the others at once. `make soak` plays the same on a longer chain
(ASSAY_SOAK_JOINING).
"""

import asyncio
import os
import re
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from assay.v1 import transactions_pb2
from chain.devnet import ProcessRecord, alive, stop_devnet
from chain.keys import KeyPair
from chain.node.config import CONFIG_FILE_NAME, edit_config
from chain.node.shelf import SHELF_NAME
from chain.rejections import Rejection, RejectionReason
from chain.snapshot_install import INCOMING_NAME
from chain.state_snapshots import MANIFEST_NAME
from chain.transactions import sign_transaction
from tests.conftest import REPOSITORY
from tests.e2e.network import (
    COMMAND_BOUND_S,
    Network,
    client_of,
    create_network,
    kill,
    record_node,
    until,
    until_at_height,
)
from tests.snapshot_cheats import KEEP_BLOCKS

pytestmark = pytest.mark.timeout(
    3_600 if "ASSAY_SOAK_JOINING" in os.environ else 900, method="signal"
)

SOAK = "ASSAY_SOAK_JOINING" in os.environ
EVERY_BLOCKS = 200 if SOAK else 40
JOIN_ABOVE = 800 if SOAK else EVERY_BLOCKS
CHAIN_WITHIN_S = 3_000.0 if SOAK else COMMAND_BOUND_S
LATE, CORRUPT = 3, 2
TRANSFERS = 100 if SOAK else 20
FAST_S, SLOW_S = 0.1, 0.5
"""Between two calls: slow, a snapshot stays long enough to be fetched on a busy machine."""
MAX_FEE = 10**9


def start(network: Network, index: int) -> None:
    """Start one validator as the cheats' module makes it."""
    record = network.nodes[index]
    folder = network.home / record.home
    arguments = ["--home", str(folder), "--gate", str(network.home / "gate")]
    arguments += ["--corrupt"] if index == CORRUPT else []
    with (folder / "node.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.snapshot_cheats", *arguments],
            cwd=REPOSITORY,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    started_s = psutil.Process(process.pid).create_time()
    running = ProcessRecord(pid=process.pid, started_s=started_s)
    record_node(network, record.model_copy(update={"process": running}))


def log_of(network: Network, index: int) -> str:
    return (network.home / network.nodes[index].home / "node.log").read_text()


def data_of(network: Network, index: int) -> Path:
    return network.home / network.nodes[index].home / "data"


def process_of(network: Network, index: int) -> ProcessRecord:
    process = network.nodes[index].process
    assert process is not None
    assert alive(process)
    return process


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    """Three of four validators run."""
    home = tmp_path_factory.mktemp("joining") / "devnet"
    network = create_network(home)
    try:
        for node in network.nodes:
            edit_config(home / node.home, snapshots={"every_blocks": EVERY_BLOCKS})
            path = home / node.home / CONFIG_FILE_NAME
            text = path.read_text()
            assert "[storage]\n" in text
            path.write_text(
                text.replace("[storage]\n", f"[storage]\nkeep_blocks = {KEEP_BLOCKS}\n")
            )
        for index in (0, 1, CORRUPT):
            start(network, index)
        yield network
    finally:
        stop_devnet(home)


@dataclass(slots=True)
class Load:
    pause_s: float


@asynccontextmanager
async def load(network: Network, pause_s: float) -> AsyncIterator[Load]:
    """Transfers to new accounts at validator 0, all the while."""
    load = Load(pause_s)

    async def send() -> None:
        async with client_of(network) as client:
            salt = 0
            while True:
                height = (await client.status()).height
                signed = []
                for _ in range(TRANSFERS):
                    salt += 1
                    to = KeyPair.generate().public_key
                    transfer = transactions_pb2.Transfer(to=to, amount=1_000_000_000)
                    signed.append(
                        sign_transaction(
                            network.user.signing_key,
                            network.genesis.chain_id,
                            [transactions_pb2.Op(transfer=transfer)],
                            valid_until_height=height + 100,
                            max_fee=MAX_FEE,
                            salt=salt,
                        )
                    )
                assert len(await client.submit_many(signed)) == TRANSFERS
                await asyncio.sleep(load.pause_s)

    async with client_of(network) as client:
        await until_at_height(client, 0)
    sending = asyncio.create_task(send())
    try:
        yield load
        assert not sending.done()
    finally:
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)


async def until_nothing_but_a_snapshot_helps(network: Network) -> None:
    """Return when all that run have forgotten the first block and honest ones offer a snapshot."""

    async def so_far() -> bool:
        for index in (0, 1, CORRUPT):
            shelf = data_of(network, index) / SHELF_NAME
            found = {int(path.parent.name) for path in shelf.glob(f"[0-9]*/{MANIFEST_NAME}")}
            if max(found, default=0) < JOIN_ABOVE:
                return False
            async with client_of(network, index) as client:
                try:
                    await client.block(1)
                    return False
                except Rejection as rejection:
                    if rejection.reason is not RejectionReason.PRUNED:
                        raise
        return True

    await until(so_far, CHAIN_WITHIN_S)


async def check_joined(network: Network, index: int) -> None:
    """It has the blocks and roots of the others, votes, and its own blocks become final."""
    async with client_of(network) as other, client_of(network, index) as joined:
        begun = (await other.status()).height

        async def is_level() -> bool:
            height = (await joined.status()).height
            if height <= begun or (await other.status()).height < height:
                return False
            try:
                mine, theirs = await joined.block(height), await other.block(height)
            except Rejection as rejection:
                assert rejection.reason is RejectionReason.PRUNED  # both went on meanwhile
                return False
            assert (mine.digest, mine.state_root) == (theirs.digest, theirs.state_root)
            return True

        async def proposes() -> bool:
            newest = (await other.status()).height
            blocks = [await other.block(at) for at in range(max(begun, newest - 8) + 1, newest)]
            return any(block.proposer == index for block in blocks)

        await until(is_level)
        await until(proposes)
        assert (await joined.status()).voting
        await until(is_level)


async def test_a_late_validator_joins_by_snapshot_under_load_past_a_kill_and_a_corrupt_peer(
    network: Network,
) -> None:
    async with load(network, FAST_S) as transfers:
        await until_nothing_but_a_snapshot_helps(network)
        transfers.pause_s = SLOW_S
        start(network, LATE)
        incoming = data_of(network, LATE) / INCOMING_NAME

        async def has_begun() -> bool:
            return any(
                any(path.read_bytes()) for path in incoming.glob("*/state") if path.stat().st_size
            )

        await until(has_begun)
        kill(process_of(network, LATE))
        assert not (data_of(network, LATE) / "store.incoming").exists()
        (network.home / "gate").touch()
        start(network, LATE)
        await check_joined(network, LATE)
    log = log_of(network, LATE)
    assert "fetching the snapshot of height" in log
    assert "starting anew: snapshot of height" in log
    assert f"peer {CORRUPT} is asked no more: chunk" in log
    missing = re.findall(r"([0-9]+) of ([0-9]+) chunks are missing", log)
    assert any(int(lacking) < int(chunks) for lacking, chunks in missing[1:]), missing
    assert not incoming.exists()
    async with client_of(network, LATE) as client:
        with pytest.raises(Rejection, match="PRUNED"):
            await client.block(1)


async def test_a_validator_whose_disk_was_wiped_comes_back_and_votes(network: Network) -> None:
    wiped = 1
    kill(process_of(network, wiped))
    shutil.rmtree(data_of(network, wiped))
    async with load(network, SLOW_S):
        start(network, wiped)
        await check_joined(network, wiped)
    assert "starting anew: snapshot of height" in log_of(network, wiped)
