"""The ledger's thread: a block waits for a few reads, whoever asks for how many."""

import asyncio
import threading
from pathlib import Path

import pytest

from chain.execution import Ledger
from chain.node.worker import READS_MAX, LedgerWorker
from chain.store import Store
from consensus.events import Deliver
from tests.builders import block, genesis

SOON_S = 60.0


async def test_a_flood_of_reads_does_not_hold_up_a_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    held = threading.Event()

    def read(ledger: Ledger) -> int:
        assert held.wait(SOON_S)
        order.append("read")
        return ledger.height

    def execute(_: Deliver) -> None:
        order.append("block")

    with Store(tmp_path / "store", genesis().chain_id, genesis().digest()) as store:
        worker = LedgerWorker(genesis(), store)
        monkeypatch.setattr(worker, "_execute", execute)
        flood = [asyncio.create_task(worker.read(read)) for _ in range(1000)]
        await asyncio.sleep(0)
        deliver = Deliver(block(1, bytes(32), (0, bytes(32))), bytes(32), None, ())
        executing = asyncio.create_task(worker.execute(deliver))
        await asyncio.sleep(0)
        held.set()
        async with asyncio.timeout(SOON_S):
            await executing
            assert await asyncio.gather(*flood) == [0] * 1000
        worker.close()
    assert order.index("block") <= READS_MAX
    assert len(order) == 1001


async def test_a_read_that_is_given_up_makes_room_for_the_next(tmp_path: Path) -> None:
    held = threading.Event()
    with Store(tmp_path / "store", genesis().chain_id, genesis().digest()) as store:
        worker = LedgerWorker(genesis(), store)
        given_up = [
            asyncio.create_task(worker.read(lambda _: held.wait(SOON_S))) for _ in range(READS_MAX)
        ]
        await asyncio.sleep(0)
        for task in given_up:
            task.cancel()
        await asyncio.gather(*given_up, return_exceptions=True)
        held.set()
        async with asyncio.timeout(SOON_S):
            assert await worker.read(lambda ledger: ledger.height) == 0
        worker.close()
