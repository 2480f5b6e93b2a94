"""The event loop reads nothing from disk: whoever waits for the disk waits alone."""

import asyncio
import threading
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from rocksdict import Rdict

from assay.v1 import transactions_pb2
from chain.node.streams import TokenStreams
from chain.records import JobStatus
from chain.rocks import Rocks
from chain.runtime_client import RuntimeClient
from chain.transactions import make_operation
from tests.builders import key
from tests.chain.ledger_world import PASS_ALL
from tests.chain.node.agents import JOB, answered_job, assigned_job, store_of
from tests.chain.node.running_node import running_node, solitary_genesis
from tests.chain.node.test_inference import Gateway, following
from tests.chain.node.test_provider import Office, agent_of, idle
from tests.chain.node.test_verifier import Bench, seated
from tests.runtime.serving import serving
from tests.runtime.tiny_engine import TinyEngine

SOON_S = 60.0


class Watch:
    """Notes which tasks touch a database on the thread that made it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seen: list[str] = []
        loop_thread = threading.current_thread()
        use, check_open = Rocks._use, Rocks.check_open

        def note() -> None:
            if threading.current_thread() is loop_thread:
                self.seen.append(str(asyncio.current_task()))

        def watched_use(rocks: Rocks) -> AbstractContextManager[Rdict]:
            note()
            return use(rocks)

        def watched_check(rocks: Rocks) -> None:  # before every lookup of an id
            note()
            check_open(rocks)

        monkeypatch.setattr(Rocks, "_use", watched_use)
        monkeypatch.setattr(Rocks, "check_open", watched_check)


async def test_a_node_serves_and_executes_without_reading_on_the_event_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_node(tmp_path, solitary_genesis("alice")) as (node, client):
        watch = Watch(monkeypatch)
        paid = transactions_pb2.Transfer(to=key("bob").public_key, amount=1)
        signed = await client.sign(key("alice"), [make_operation(paid)])
        assert (await client.wait(await client.submit(signed), SOON_S)).accepted
        status = await client.status()
        assert (await client.block(status.height)).execution_root == status.execution_root
        assert node.store.height  # the watch sees what it is meant to see
        assert watch.seen == []
        node.store.block_by_height(1)
        assert watch.seen


async def test_a_call_follows_its_job_without_reading_on_the_event_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with store_of(tmp_path) as (store, _):
        gateway = Gateway(store)
        source = gateway.flow()
        await following(source)
        watch = Watch(monkeypatch)
        job = gateway.include()
        await following(source)
        gateway.world.block()
        gateway.tell()
        await following(source)
        gateway.world.answer(job)
        gateway.tell()
        assert (await following(source)).status.status == "ANSWERED"
        gateway.world.vote(job, PASS_ALL)
        gateway.tell()
        assert [event.status.status async for event in source] == ["VERIFIED", ""]
        assert watch.seen == []


async def test_agents_work_without_reading_on_the_event_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, office, bench = TinyEngine(), Office(), Bench()
    with store_of(tmp_path) as (store, chain):
        job = assigned_job(chain, engine)
        async with serving(engine) as target, RuntimeClient(target) as runtime:
            watch = Watch(monkeypatch)
            provider = agent_of(runtime, store, TokenStreams(), office)
            provider.on_jobs([(JOB, job)])
            result = (await office.next()).result
            await idle(provider)
            assert watch.seen == []
            job = answered_job(chain, job, result)  # the test's own write
            watch.seen.clear()
            verifier = bench.agent(runtime, store)
            verifier.on_jobs([(JOB, seated(job, JobStatus.COMMITTING))])
            await bench.commit()
            await verifier.stop()
        assert watch.seen == []
