"""What a peer makes the driver do counts against the peer until it is done."""

import asyncio
from pathlib import Path

import pytest

from chain.node.backlog import BACKLOG_BYTES_MAX, MESSAGE_BYTES_LEAST
from chain.node.driver import SERVED_BYTES
from consensus.events import LoadBatch
from consensus.messages import BatchRequest, encode_message
from consensus.values import Tip
from tests.chain.node.running_node import running_node, solitary_genesis

PEER = 1
SOON_S = 60.0


async def test_a_peer_that_asks_without_end_is_read_no_further_than_its_answers_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    genesis = solitary_genesis("alice", validators=4)
    asked = BatchRequest(Tip(0, 1, bytes(32)), 1)
    size = len(encode_message(asked))
    async with running_node(tmp_path, genesis) as (node, client):
        driver = node.driver
        held = asyncio.Event()

        async def answer(_: LoadBatch) -> None:
            await held.wait()

        monkeypatch.setattr(driver, "_serve_batches", answer)

        async def ask_without_end() -> None:
            while True:
                await driver.receive(PEER, asked, size)

        asking = asyncio.create_task(ask_without_end())
        async with asyncio.timeout(SOON_S):
            while driver._arrivals or len(driver._checks) <= BACKLOG_BYTES_MAX // SERVED_BYTES:
                await asyncio.sleep(0.01)
        under_way = len(driver._checks)
        assert under_way <= BACKLOG_BYTES_MAX // MESSAGE_BYTES_LEAST + 1
        await asyncio.sleep(0.1)
        assert len(driver._checks) == under_way
        assert (await client.status()).validator == 0
        asking.cancel()
        held.set()
        async with asyncio.timeout(SOON_S):
            await driver.receive(PEER, asked, size)
