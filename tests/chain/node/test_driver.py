"""What a peer makes the driver do is bounded, and holds up nobody."""

import asyncio
from pathlib import Path

import pytest

from chain.node.driver import ANSWERS_WAITING_MAX
from consensus.events import LoadBatch
from consensus.messages import BatchRequest, encode_message
from consensus.values import Tip
from tests.chain.node.running_node import running_node, solitary_genesis

PEER = 1
SOON_S = 60.0


async def test_a_peer_that_asks_without_end_is_read_on_and_has_few_answers_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Were it not read, two peers that wait for each other's answers would read no acks either."""
    genesis = solitary_genesis("alice", validators=4)
    asked = BatchRequest(Tip(0, 1, bytes(32)), 1)
    size = len(encode_message(asked))
    async with running_node(tmp_path, genesis) as (node, client), asyncio.timeout(SOON_S):
        driver = node.driver
        held = asyncio.Event()
        begun = 0

        async def answer(_: LoadBatch) -> None:
            nonlocal begun
            begun += 1
            await held.wait()

        monkeypatch.setattr(driver, "_serve_batches", answer)
        for _ in range(3 * ANSWERS_WAITING_MAX):
            await driver.receive(PEER, asked, size)
        while driver._arrivals or begun < ANSWERS_WAITING_MAX:
            await asyncio.sleep(0.01)
        assert (await client.status()).validator == 0
        assert begun == ANSWERS_WAITING_MAX
        held.set()
        while driver._answers[PEER]:
            await asyncio.sleep(0.01)
        await driver.receive(PEER, asked, size)
        while begun == ANSWERS_WAITING_MAX:
            await asyncio.sleep(0.01)
