"""A question is followed no longer than was asked for, whatever its nodes do."""

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable
from typing import cast

import pytest

from assay.v1 import node_pb2, receipts_pb2, transactions_pb2
from chain.client import NodeClient, NodeUnavailableError
from chain.dapp.following import SILENT_S, STALLED_S, Following, NotSettledInTime
from chain.dapp.nodes import Nodes
from chain.records import JobStatus
from chain.rejections import Rejection, RejectionReason
from tests.builders import key

SOON_S = 0.05


class Clock:
    """Time that goes on by as much as is slept or waited."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


class Stalled:
    """A node that takes a question, and whose ledger then stands still."""

    def __init__(self, clock: Clock, status: JobStatus, knows_outcome: bool = True) -> None:
        self.address = "127.0.0.1:1"
        self.waited_s: list[float] = []
        self.asked = 0
        self._clock = clock
        self._status = status
        self._knows_outcome = knows_outcome

    async def infer(
        self, signed: transactions_pb2.SignedTx, deadline_s: float
    ) -> AsyncGenerator[node_pb2.InferEvent, None]:
        self.asked += 1
        yield node_pb2.InferEvent(accepted=node_pb2.InferEvent().accepted)
        self._clock.now_s += 1
        raise NodeUnavailableError("the connection broke")

    async def status(self, deadline_s: float) -> node_pb2.StatusReply:
        return node_pb2.StatusReply()

    async def wait(self, transaction: bytes, deadline_s: float) -> node_pb2.TransactionStatus:
        self.waited_s.append(deadline_s)
        if not self._knows_outcome:
            self._clock.now_s += deadline_s
            raise NodeUnavailableError("DEADLINE_EXCEEDED")
        return node_pb2.TransactionStatus(id=transaction, accepted=True)

    async def job(self, job: bytes) -> node_pb2.JobView:
        return node_pb2.JobView(job=job, status=self._status.name)

    async def receipt(self, job: bytes) -> receipts_pb2.Receipt:
        raise Rejection(RejectionReason.NOT_READY, "no final block vouches for it")


class Silent(Stalled):
    """One that is stopped, or cut off, as it answers: no connection breaks, nothing comes."""

    def __init__(self, clock: Clock, answers: bool) -> None:
        super().__init__(clock, JobStatus.REQUESTED)
        self._answers = answers

    async def infer(
        self, signed: transactions_pb2.SignedTx, deadline_s: float
    ) -> AsyncGenerator[node_pb2.InferEvent, None]:
        self.asked += 1
        yield node_pb2.InferEvent(accepted=node_pb2.InferEvent().accepted)
        await asyncio.Event().wait()

    async def status(self, deadline_s: float) -> node_pb2.StatusReply:
        self._clock.now_s += STALLED_S / 3
        if not self._answers:
            raise NodeUnavailableError("DEADLINE_EXCEEDED")
        return node_pb2.StatusReply()


class Between(Nodes):
    """Such nodes, in order."""

    def __init__(self, clock: Clock, *clients: Stalled) -> None:
        self.clients = cast(tuple[NodeClient, ...], clients)
        self._clock_s = clock
        self._rested_s = {}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    really: Callable[[float], object] = asyncio.sleep

    here = threading.get_ident()

    async def sleep(delay_s: float) -> None:
        if threading.get_ident() != here:  # of a network that other tests share
            return await really(delay_s)  # type: ignore[no-any-return,misc]
        clock.now_s += delay_s
        return await really(0)  # type: ignore[no-any-return,misc]

    monkeypatch.setattr(asyncio, "sleep", sleep)
    return clock


def follow(clock: Clock, deadline_s: float, *clients: Stalled, silent_s: float = SILENT_S) -> None:
    signed = transactions_pb2.SignedTx(body=b"body", public_key=key("alice").public_key)

    async def run() -> None:
        way = Following(Between(clock, *clients), signed, "chain", clock_s=clock, silent_s=silent_s)
        async for _ in way.run(deadline_s):
            pass

    with pytest.raises(NotSettledInTime):
        asyncio.run(run())


@pytest.mark.parametrize("status", [JobStatus.REQUESTED, JobStatus.VERIFIED])
def test_a_node_that_accepts_and_never_settles_is_followed_until_the_deadline(
    clock: Clock, status: JobStatus
) -> None:
    follow(clock, 10.0, Stalled(clock, status))
    assert 10.0 <= clock.now_s < 11.0


def test_a_node_that_never_tells_the_outcome_has_no_longer_than_is_left(clock: Clock) -> None:
    node = Stalled(clock, JobStatus.REQUESTED, knows_outcome=False)
    follow(clock, 10.0, node)
    assert node.waited_s == [7.5]  # two calls broke, with a pause between them


@pytest.mark.parametrize("status", [JobStatus.REQUESTED, JobStatus.VERIFIED])
@pytest.mark.parametrize("knows_outcome", [True, False])
def test_a_node_that_stands_still_is_left_for_another(
    clock: Clock, status: JobStatus, knows_outcome: bool
) -> None:
    first, second = (Stalled(clock, status, knows_outcome) for _ in range(2))
    follow(clock, 100.0, first, second)
    assert first.asked >= 1
    assert second.asked >= 1


@pytest.mark.parametrize("answers", [False, True])
def test_a_node_that_falls_silent_is_left_for_another(clock: Clock, answers: bool) -> None:
    first, second = (Silent(clock, answers) for _ in range(2))
    follow(clock, 3 * STALLED_S, first, second, silent_s=SOON_S)
    assert first.asked >= 1
    assert second.asked >= 1


def test_a_silent_node_that_answers_is_listened_to_for_a_while(clock: Clock) -> None:
    node = Silent(clock, answers=True)
    follow(clock, STALLED_S / 2, node, silent_s=SOON_S)
    assert node.asked == 1
