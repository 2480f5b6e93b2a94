"""The verifier's agent: it recomputes, binds itself to a verdict, and opens just that."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from assay.v1 import inference_pb2
from chain.execution import Ledger
from chain.node.provider import generate_request
from chain.node.verifier import VerifierAgent
from chain.records import CommitteeSeat, Job, JobStatus, Model
from chain.runtime_client import RuntimeClient
from chain.runtime_replies import Finished
from chain.store import Store
from consensus.values import AttestationKind, JobCommit, JobReveal, Verdict
from consensus.verdicts import NO_SCORES
from consensus.wire import decode
from tests.builders import key
from tests.chain.ledger_world import MODEL, World, a_pair
from tests.chain.node.agents import (
    JOB,
    NOW_MS,
    PROFILE,
    SOON_S,
    answered_job,
    assigned_job,
    store_of,
)
from tests.runtime.serving import serving
from tests.runtime.tiny_engine import TinyEngine

ABSENT = "127.0.0.1:1"
OWN_INDEX = 2
ACCOUNT = key("account-2").public_key
POSITIONS = (0, 3)


def a_model() -> Model:
    world = World()
    world.open_market(pairs=[a_pair(PROFILE, PROFILE)], profiles=[PROFILE])
    model = world.ledger.model(MODEL)
    assert model is not None
    return model


class Bench:
    """One validator's seat: what its agent attests, in order."""

    def __init__(self) -> None:
        self.attested: asyncio.Queue[bytes] = asyncio.Queue()

    def agent(self, runtime: RuntimeClient, store: Store) -> VerifierAgent:
        return VerifierAgent(
            OWN_INDEX,
            key("signing-2"),
            ACCOUNT,
            runtime,
            store,
            self._read,
            self.attested.put_nowait,
            lambda: NOW_MS,
        )

    async def _read(
        self, _: Callable[[Ledger], tuple[Model, tuple[int, ...]]]
    ) -> tuple[Model, tuple[int, ...]]:
        return a_model(), POSITIONS

    async def commit(self) -> JobCommit:
        async with asyncio.timeout(SOON_S):
            return decode(JobCommit, await self.attested.get())

    async def reveal(self) -> JobReveal:
        async with asyncio.timeout(SOON_S):
            return decode(JobReveal, await self.attested.get())


def a_seat(validator: int, profile: str = PROFILE) -> CommitteeSeat:
    return CommitteeSeat(validator, profile, 0, None, None, None, None, None)


def seated(job: Job, status: JobStatus, commitment: bytes | None = None) -> Job:
    """The job with this validator and another on its committee."""
    seats = tuple(
        a_seat(index)._replace(commitment=commitment if index == OWN_INDEX else None)
        for index in (0, OWN_INDEX)
    )
    return job._replace(status=status, committee=seats, deadline_ms=NOW_MS + 30_000)


async def honest_result(
    runtime: RuntimeClient, job: Job, store: Store
) -> inference_pb2.InferenceResult:
    events = [event async for event in runtime.generate(generate_request(job, store), SOON_S)]
    assert isinstance(events[-1], Finished)
    return events[-1].result


@pytest.mark.parametrize("honest", [True, False])
async def test_it_commits_to_what_it_then_reveals(tmp_path: Path, honest: bool) -> None:
    engine, bench = TinyEngine(), Bench()
    with store_of(tmp_path) as (store, chain):
        job = assigned_job(chain, engine)
        async with serving(engine) as target, RuntimeClient(target) as runtime:
            result = await honest_result(runtime, job, store)
            if not honest:
                result.token_ids[2] = (result.token_ids[2] + 1) % engine.vocabulary
            job = answered_job(chain, job, result)
            agent = bench.agent(runtime, store)
            agent.on_jobs([(JOB, seated(job, JobStatus.COMMITTING))])
            commit = await bench.commit()
            agent.on_jobs([(JOB, seated(job, JobStatus.REVEALING, commit.commitment))])
            reveal = await bench.reveal()
            agent.on_jobs([(JOB, seated(job, JobStatus.REVEALING, commit.commitment))])
            await agent.stop()
    assert (commit.kind, commit.job, commit.round) == (AttestationKind.COMMIT, JOB, 0)
    assert reveal.commitment(ACCOUNT) == commit.commitment
    assert reveal.verdict is (Verdict.PASS if honest else Verdict.FAIL)
    assert reveal.scores.positions == 8
    assert (reveal.scores.replay_mismatches == 0) == honest
    assert len(reveal.fingerprint) == len(POSITIONS)
    assert bench.attested.empty()


async def test_after_a_restart_it_opens_the_same_commitment(tmp_path: Path) -> None:
    engine, bench = TinyEngine(), Bench()
    with store_of(tmp_path) as (store, chain):
        job = assigned_job(chain, engine)
        async with serving(engine) as target, RuntimeClient(target) as runtime:
            job = answered_job(chain, job, await honest_result(runtime, job, store))
            bench.agent(runtime, store).on_jobs([(JOB, seated(job, JobStatus.COMMITTING))])
            commit = await bench.commit()
            restarted = bench.agent(runtime, store)
            restarted.on_jobs([(JOB, seated(job, JobStatus.REVEALING, commit.commitment))])
            reveal = await bench.reveal()
    assert reveal.commitment(ACCOUNT) == commit.commitment
    assert reveal.verdict is Verdict.PASS


async def test_without_a_runtime_it_abstains_and_never_says_fail(tmp_path: Path) -> None:
    engine, bench = TinyEngine(), Bench()
    with store_of(tmp_path) as (store, chain):
        job = assigned_job(chain, engine)
        async with serving(engine) as target, RuntimeClient(target) as runtime:
            job = answered_job(chain, job, await honest_result(runtime, job, store))
        job = seated(job, JobStatus.COMMITTING)
        async with RuntimeClient(ABSENT) as runtime:
            agent = bench.agent(runtime, store)
            soon = job._replace(deadline_ms=NOW_MS + 500)
            agent.on_jobs([(JOB, soon)])
            commit = await bench.commit()
            agent.on_jobs([(JOB, seated(job, JobStatus.REVEALING, commit.commitment))])
            reveal = await bench.reveal()
    assert reveal.commitment(ACCOUNT) == commit.commitment
    assert (reveal.verdict, reveal.scores) == (Verdict.ABSTAIN, NO_SCORES)
    assert reveal.fingerprint == ()


async def test_with_another_profile_than_the_seat_was_drawn_for_it_abstains(
    tmp_path: Path,
) -> None:
    engine, bench = TinyEngine(), Bench()
    with store_of(tmp_path) as (store, chain):
        job = assigned_job(chain, engine)
        async with serving(engine) as target, RuntimeClient(target) as runtime:
            job = answered_job(chain, job, await honest_result(runtime, job, store))
            job = seated(job, JobStatus.COMMITTING)
            drawn = tuple(seat._replace(engine_profile="another") for seat in job.committee)
            agent = bench.agent(runtime, store)
            agent.on_jobs([(JOB, job._replace(committee=drawn))])
            commit = await bench.commit()
            bound = tuple(seat._replace(commitment=commit.commitment) for seat in drawn)
            agent.on_jobs([(JOB, job._replace(status=JobStatus.REVEALING, committee=bound))])
            reveal = await bench.reveal()
            await agent.stop()
    assert reveal.commitment(ACCOUNT) == commit.commitment
    assert (reveal.verdict, reveal.scores) == (Verdict.ABSTAIN, NO_SCORES)
    assert reveal.fingerprint == ()


async def test_it_does_nothing_about_seats_that_are_not_its_own(tmp_path: Path) -> None:
    engine, bench = TinyEngine(), Bench()
    with store_of(tmp_path) as (store, chain):
        job = assigned_job(chain, engine)
        async with RuntimeClient(ABSENT) as runtime:
            agent = bench.agent(runtime, store)
            other, earlier = a_seat(0), a_seat(OWN_INDEX)
            spoken = earlier._replace(commitment=bytes(32), verdict=Verdict.PASS)
            committing = job._replace(status=JobStatus.COMMITTING)
            agent.on_jobs(
                [
                    (JOB, committing._replace(committee=(other,))),
                    (JOB, committing._replace(committee=(earlier,), round=1)),
                    (JOB, job._replace(status=JobStatus.REVEALING, committee=(spoken,))),
                    (JOB, job._replace(status=JobStatus.VERIFIED, committee=(earlier,))),
                ]
            )
            assert not agent._running
    assert bench.attested.empty()


async def test_a_commitment_that_is_not_its_own_is_not_opened(tmp_path: Path) -> None:
    engine, bench = TinyEngine(), Bench()
    with store_of(tmp_path) as (store, chain):
        job = assigned_job(chain, engine)
        async with serving(engine) as target, RuntimeClient(target) as runtime:
            job = answered_job(chain, job, await honest_result(runtime, job, store))
            agent = bench.agent(runtime, store)
            agent.on_jobs([(JOB, seated(job, JobStatus.REVEALING, b"other" * 6 + b"!!"))])
            async with asyncio.timeout(SOON_S):
                while agent._running:
                    await asyncio.sleep(0.01)
    assert bench.attested.empty()
