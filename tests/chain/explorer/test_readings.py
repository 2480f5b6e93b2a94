"""However many ask for what everybody asks for, it is read once."""

import asyncio
from pathlib import Path

import pytest

from chain.events import Event, EventKind
from chain.explorer.readings import Kept, changed_jobs
from chain.records import JobStatus
from chain.store import Store
from tests.builders import genesis
from tests.chain.finished_job import Chain


async def test_many_who_ask_at_once_share_one_reading() -> None:
    reads = 0
    now_s = 0.0

    async def read() -> int:
        nonlocal reads
        reads += 1
        await asyncio.sleep(0)
        return reads

    kept = Kept(read, 1.0, lambda: now_s)
    assert await asyncio.gather(*(kept.get() for _ in range(100))) == [1] * 100
    now_s = 0.9
    assert await kept.get() == 1
    now_s = 1.0
    assert await kept.get() == 2


async def test_a_reading_that_fails_is_tried_again_by_the_next_who_asks() -> None:
    reads = 0

    async def read() -> int:
        nonlocal reads
        reads += 1
        if reads == 1:
            raise ValueError("the ledger is busy")
        return reads

    kept = Kept(read, 1.0, lambda: 0.0)
    with pytest.raises(ValueError, match="busy"):
        await kept.get()
    assert await kept.get() == 2


def test_only_changes_of_jobs_are_read_from_a_blocks_events(tmp_path: Path) -> None:
    job = Event(EventKind.JOB_CHANGED, bytes(32), bytes(range(32)), code=JobStatus.ASSIGNED)
    transfer = Event(EventKind.TRANSFERRED, bytes([9]) * 32, bytes([9]) * 32, amount=9)
    with Store(tmp_path / "data", genesis().chain_id, genesis().digest()) as store:
        chain = Chain.start(store)
        chain.commit(events=(transfer.leaf(), job.leaf(), transfer.leaf(), b"E", b""))
        assert [(change["job"], change["status"]) for change in changed_jobs(store, 1)] == [
            (bytes(32).hex(), "ASSIGNED")
        ]
        assert changed_jobs(store, 2) == []
