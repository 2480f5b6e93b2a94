"""Evidence is reported until the chain has it, and no more than that."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar, cast

from assay.v1 import transactions_pb2
from chain.execution import Ledger
from chain.keys import KeyPair
from chain.node.accusations import REPEAT_AFTER_MS, Accusations
from chain.node.worker import LedgerWorker
from chain.rejections import Rejection, RejectionReason
from consensus.events import Effect, Event, Misbehaviour
from consensus.evidence import Evidence
from consensus.replica import Replica
from tests.builders import key
from tests.chain.ledger_world import ALICE, World, double_vote
from tests.chain.node.running_node import CALL_BOUND_S, running_node, solitary_genesis

T = TypeVar("T")
REPORTER = key("account-1")


class Town:
    """A ledger in memory; reports go into its next block, unless they are lost or refused."""

    def __init__(self) -> None:
        self.world = World()
        self.now_ms = 5_000_000
        self.sent = 0
        self.lost = False
        self.refused = False

    async def read(self, function: Callable[[Ledger], T]) -> T:
        return function(self.world.ledger)

    async def submit(self, signer: KeyPair, operations: list[transactions_pb2.Op]) -> None:
        assert signer is REPORTER
        self.sent += 1
        if self.refused:
            raise Rejection(RejectionReason.INSUFFICIENT_BALANCE, "poor")
        if not self.lost:
            (operation,) = operations
            assert self.world.do(ALICE, operation.report_fault).accepted

    def accusations(self) -> Accusations:
        worker = cast(LedgerWorker, self)
        return Accusations(REPORTER, worker, self.submit, lambda: self.now_ms)

    async def check(self, accusations: Accusations, times: int) -> None:
        for _ in range(times):
            await accusations.check()
            self.now_ms += REPEAT_AFTER_MS


async def test_what_was_seen_is_reported_once() -> None:
    town = Town()
    accusations = town.accusations()
    await town.check(accusations, 2)
    assert town.sent == 0
    for _ in range(3):
        accusations.note(double_vote(2))
    await town.check(accusations, 3)
    assert town.sent == 1
    assert set(town.world.ledger.convictions()) == {2}


async def test_a_lost_or_refused_report_is_sent_again_after_a_while() -> None:
    town = Town()
    accusations = town.accusations()
    accusations.note(double_vote(2))
    town.lost = True
    await accusations.check()
    await accusations.check()
    assert town.sent == 1
    town.now_ms += REPEAT_AFTER_MS
    town.refused = True
    await town.check(accusations, 1)
    town.lost = town.refused = False
    await town.check(accusations, 2)
    assert town.sent == 3
    assert set(town.world.ledger.convictions()) == {2}


async def test_each_culprit_is_reported() -> None:
    town = Town()
    accusations = town.accusations()
    accusations.note(double_vote(2))
    accusations.note(double_vote(4))
    await town.check(accusations, 2)
    assert set(town.world.ledger.convictions()) == {2, 4}


async def test_a_fault_that_is_seen_while_another_is_reported_waits_its_turn() -> None:
    town = Town()

    async def submit(signer: KeyPair, operations: list[transactions_pb2.Op]) -> None:
        accusations.note(double_vote(4))
        await town.submit(signer, operations)

    accusations = Accusations(REPORTER, cast(LedgerWorker, town), submit, lambda: town.now_ms)
    accusations.note(double_vote(2))
    await town.check(accusations, 3)
    assert set(town.world.ledger.convictions()) == {2, 4}


async def test_a_node_reports_what_its_core_saw_and_shows_it(tmp_path: Path) -> None:
    genesis = solitary_genesis("account-0")
    async with running_node(tmp_path, genesis) as (node, client):
        evidence = double_vote(0, genesis.chain_id, "signing-0")
        node.driver.replica = cast("Replica", Seeing(node.driver.replica, evidence))
        shown = await client.validators()
        async with asyncio.timeout(CALL_BOUND_S):
            while not shown[0].fault:
                await asyncio.sleep(0.05)
                shown = await client.validators()
        assert shown[0].fault == "CONFLICTING_VOTES"
        assert 0 < shown[0].convicted_height <= node.height


class Seeing:
    """A replica whose core sees the same misbehaviour at every step."""

    def __init__(self, replica: Replica, evidence: Evidence) -> None:
        self._replica = replica
        self._evidence = evidence

    def __getattr__(self, name: str) -> object:
        return getattr(self._replica, name)

    def step(self, event: Event, now_ms: int) -> list[Effect]:
        return [Misbehaviour(self._evidence), *self._replica.step(event, now_ms)]
