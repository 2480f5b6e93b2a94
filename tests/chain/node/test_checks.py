"""Batches that wait are checked together, each judged for itself."""

import asyncio
import itertools
import threading
from collections.abc import Sequence
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assay.v1 import transactions_pb2
from chain.node import driver as driver_module
from chain.node.backlog import BACKLOG_BYTES_MAX
from chain.node.driver import CHECKED_BYTES
from chain.node.worker import check_payloads
from chain.transactions import make_operation, sign_transaction
from consensus.events import BatchChecked, CheckBatch, Effect, Event, MessageReceived
from consensus.messages import BatchMessage
from consensus.values import Batch, BatchHeader
from ext.hashing import sha256
from tests.builders import key
from tests.chain.node.test_flood import Wires, driving

SOON_S = 60.0
CHAIN_ID = "chain"


def a_batch(payload: bytes, lane: int = 1, sequence: int = 1) -> Batch:
    return Batch(BatchHeader(0, lane, sequence, bytes(32), sha256(payload)), bytes(64), payload)


@cache
def signed(salt: int, chain_id: str = CHAIN_ID) -> transactions_pb2.SignedTx:
    transfer = transactions_pb2.Transfer(to=key("bob").public_key, amount=1)
    operations = [make_operation(transfer)]
    return sign_transaction(key(f"sender-{salt % 3}").signing_key, chain_id, operations, 9, 9, salt)


def forged(salt: int) -> transactions_pb2.SignedTx:
    return transactions_pb2.SignedTx(
        body=signed(salt).body,
        public_key=signed(salt).public_key,
        signature=signed(salt + 1).signature,
    )


def payload(*transactions: transactions_pb2.SignedTx) -> bytes:
    return transactions_pb2.BatchPayload(transactions=transactions).SerializeToString()


PAYLOADS = {
    payload(): True,
    payload(signed(1)): True,
    payload(*map(signed, range(20))): True,
    transactions_pb2.BatchPayload(attestations=[b"said"]).SerializeToString(): True,
    b"\xff": False,
    payload(signed(1))[:-1]: False,
    payload(forged(1)): False,
    payload(signed(1), signed(2), forged(3), signed(4)): False,
    payload(signed(1), signed(2, "elsewhere")): False,
}


@given(st.lists(st.sampled_from(sorted(PAYLOADS)), max_size=12))
@settings(max_examples=25, deadline=None)
def test_batches_get_the_verdict_that_each_gets_alone(payloads: list[bytes]) -> None:
    batches = [a_batch(data) for data in payloads]
    assert check_payloads(CHAIN_ID, batches) == [PAYLOADS[data] for data in payloads]


async def test_what_waits_is_checked_in_one_call_with_a_turn_for_each_peer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[list[Batch]] = []
    held = threading.Event()

    def check(_: str, batches: Sequence[Batch]) -> list[bool]:
        calls.append(list(batches))
        assert held.wait(SOON_S)
        return [batch.payload[0] == 0 for batch in batches]

    monkeypatch.setattr(driver_module, "check_payloads", check)
    verdicts: dict[bytes, bool] = {}

    def answer(event: Event, _: int) -> list[Effect]:
        if isinstance(event, MessageReceived) and isinstance(event.message, BatchMessage):
            return [CheckBatch(event.peer, event.message.batch)]
        if isinstance(event, BatchChecked):
            verdicts[event.header_digest] = event.valid
        return []

    size = CHECKED_BYTES // 4
    good = [a_batch(bytes(size), 1, number) for number in range(8)]
    bad = a_batch(b"\1" * size, 2)
    async with driving(answer, Wires()) as driver, asyncio.timeout(SOON_S):
        for batch in good:
            await driver.receive(1, BatchMessage(batch, None), 1)
        await driver.receive(2, BatchMessage(bad, None), 1)
        while not calls or driver._arrivals:
            await asyncio.sleep(0.001)
        full = asyncio.create_task(
            driver.receive(1, BatchMessage(good[0], None), BACKLOG_BYTES_MAX)
        )
        held.set()
        while len(verdicts) < len(good) + 1:
            await asyncio.sleep(0.001)
        await full
    assert verdicts == {batch.header.digest(): batch is not bad for batch in [*good, bad]}
    checked = list(itertools.chain.from_iterable(calls))
    assert checked.index(bad) <= 5
    assert all(len(call) <= 4 for call in calls)
    assert len(calls) < len(checked)
