"""An appeal played by verifiers' agents with a real model: the exact engine says what was true,
whatever the committee had said."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from assay.v1 import inference_pb2
from assay.v1 import transactions_pb2 as pb
from chain.events import EventKind
from chain.execution import BlockOutcome, Ledger
from chain.execution.appeals import AppealRuling
from chain.node.provider import generate_request
from chain.node.verifier import VerifierAgent
from chain.pairs import ARBITER_PROFILE
from chain.records import JobStatus
from chain.runtime_client import RuntimeClient
from chain.runtime_replies import Finished
from chain.transactions import job_id
from consensus.bets import OPENING_TOKENS
from runtime.packages import REFERENCE_PROFILE, ModelPackage
from runtime.reference.engine import ReferenceEngine
from tests.builders import key
from tests.chain.finished_job import Chain
from tests.chain.ledger_world import (
    ALICE,
    BOND,
    FAIL,
    OWNER,
    PROVIDERS,
    World,
    a_pair,
    a_registration,
    a_request,
    an_offer,
    events_in,
    total_value,
)
from tests.chain.ledger_world import (
    serving as says_it_serves,
)
from tests.chain.node.agents import SOON_S, store_of
from tests.runtime.serving import serving

PROVIDER = PROVIDERS[0]
ARBITERS = (1, 2, 3)
TOKENS = OPENING_TOKENS + 4


def test_arbiters_run_the_engine_whose_bits_are_pinned() -> None:
    assert ARBITER_PROFILE == REFERENCE_PROFILE


class Court:
    """A ledger, a store that follows it, and what agents attest."""

    def __init__(self, chain: Chain, package: ModelPackage) -> None:
        self.world = World(validators=4)
        self.chain = chain
        self.model = package.model_id
        self.attested: asyncio.Queue[tuple[int, bytes]] = asyncio.Queue()

    def block(self) -> BlockOutcome:
        outcome = self.world.block()
        self.chain.commit(payloads=outcome.payloads)
        return outcome

    def open(self) -> None:
        model = a_registration(a_pair(ARBITER_PROFILE, ARBITER_PROFILE))
        offer, word = an_offer(profile=ARBITER_PROFILE), says_it_serves(ARBITER_PROFILE)
        for message in (model, offer, word):
            message.model = self.model
        model.context_tokens = 2048
        self.world.send(OWNER, model)
        for member in self.world.set.members:
            self.world.send(member.account, BOND, word)
        stake = pb.Stake(amount=self.world.parameters.stake_min_per_offer)
        self.world.send(PROVIDER, stake, offer)
        for _ in range(3):
            self.block()

    async def answered(self, runtime: RuntimeClient, false: bool) -> bytes:
        """A job that the real model has answered."""
        request = a_request("Why is the sky blue?", TOKENS)
        request.model = self.model
        request.sampling.temperature_milli = 800
        request.sampling.min_tokens = TOKENS
        job = job_id(self.world.send(ALICE, request).id, 0)
        self.block()
        self.block()
        asked = generate_request(self.world.job(job), self.chain.store)
        events = [event async for event in runtime.generate(asked, SOON_S)]
        assert isinstance(events[-1], Finished)
        result = inference_pb2.InferenceResult()
        result.CopyFrom(events[-1].result)
        if false:
            result.token_ids[5] += 1
        self.world.send(PROVIDER, pb.SubmitResult(job=job, result=result))
        self.block()
        return job

    def agent(self, validator: int, runtime: RuntimeClient) -> VerifierAgent:
        async def read(look: Callable[[Ledger], Any]) -> Any:
            return look(self.world.ledger)

        return VerifierAgent(
            validator,
            key(f"signing-{validator}"),
            self.world.set.members[validator].account,
            runtime,
            self.chain.store,
            read,
            lambda data: self.attested.put_nowait((validator, data)),
            lambda: self.world.ledger.timestamp_ms,
        )

    async def all_attest(self) -> BlockOutcome:
        """The block with one attestation of each arbiter."""
        async with asyncio.timeout(SOON_S):
            for _ in ARBITERS:
                self.world.attest(*await self.attested.get())
        return self.block()


@pytest.fixture(scope="module")
def engine(smollm2_package: ModelPackage) -> Any:
    loaded: Any = ReferenceEngine.load(smollm2_package)
    loaded.release = lambda: None  # what `serving` asks of engines that wait
    return loaded


@pytest.mark.parametrize("false", [False, True])
async def test_agents_with_the_real_model_rule_on_an_appeal_by_what_is_true(
    engine: Any, smollm2_package: ModelPackage, tmp_path: Path, false: bool
) -> None:
    with store_of(tmp_path) as (_, chain):
        court = Court(chain, smollm2_package)
        court.open()
        async with serving(engine) as target, RuntimeClient(target) as runtime:
            job = await court.answered(runtime, false)
            court.world.vote(job, (FAIL,) * 3)
            assert court.world.job(job).status is JobStatus.REJECTED
            stake = court.world.ledger.account(PROVIDER).stake
            court.world.send(PROVIDER, pb.Appeal(job=job))
            outcome = court.block()
            agents = [court.agent(validator, runtime) for validator in ARBITERS]
            for _ in range(2):  # all commit, then all reveal
                for agent in agents:
                    agent.on_jobs(outcome.changed_appeals)
                outcome = await court.all_attest()
            for agent in agents:
                await agent.stop()
    (event,) = [event for event in events_in(outcome) if event.kind is EventKind.APPEAL_RULED]
    assert event.code == (AppealRuling.LOST if false else AppealRuling.WON)
    assert (event.amount > 0) is not false
    assert court.world.ledger.account(PROVIDER).stake == stake
    assert total_value(court.world.ledger) == court.world.ledger.supply().issued
