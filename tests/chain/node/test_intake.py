"""Into the own lane: admitted once, bounded, sealed in order and only while the lane has room."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from assay.v1 import transactions_pb2
from chain.node.intake import (
    OWN_BYTES_MAX,
    RETRY_DELAY_MS,
    DrainRate,
    Intake,
    payload_field,
)
from chain.node.worker import LedgerWorker
from chain.rejections import Busy, Rejection, RejectionReason
from chain.store import Store
from chain.transactions import make_operation, sign_transaction
from consensus.values import BATCH_PAYLOAD_BYTES_MAX
from ext.transactions import parse_batch
from tests.builders import genesis, key

SOON_S = 60.0
MAX_FEE = 10_000_000


def a_transfer(salt: int, amount: int = 1, payload: int = 0) -> transactions_pb2.SignedTx:
    """Alice pays; `payload` adds operations until the body has about so many bytes."""
    transfer = transactions_pb2.Transfer(to=key("bob").public_key, amount=amount)
    operation = make_operation(transfer)
    count = max(1, payload // (operation.ByteSize() + 2))
    return sign_transaction(
        key("alice").signing_key, genesis().chain_id, [operation] * count, 100, MAX_FEE, salt
    )


@dataclass
class Lane:
    """What was sealed, and how much more may be."""

    room: int = 100
    sealed: list[bytes] = field(default_factory=list)

    def seal(self, payload: bytes) -> None:
        assert self.room > 0
        self.room -= 1
        self.sealed.append(payload)

    def transactions(self) -> list[transactions_pb2.SignedTx]:
        return [
            signed
            for payload in self.sealed
            for signed in transactions_pb2.BatchPayload.FromString(payload).transactions
        ]

    def attestations(self) -> list[bytes]:
        return [
            attestation
            for payload in self.sealed
            for attestation in transactions_pb2.BatchPayload.FromString(payload).attestations
        ]


@asynccontextmanager
async def intake_of(
    folder: Path, lane: Lane, batch_bytes: int = 64 * 1024, pending_bytes_max: int = 1 << 20
) -> AsyncIterator[Intake]:
    """An intake before a ledger at genesis, not yet running."""
    with Store(folder / "store", genesis().chain_id, genesis().digest()) as store:
        worker = LedgerWorker(genesis(), store)
        try:
            yield Intake(
                genesis().chain_id,
                worker,
                lane.seal,
                lambda: lane.room,
                batch_bytes,
                1,
                pending_bytes_max,
            )
        finally:
            worker.close()


@asynccontextmanager
async def running(intake: Intake) -> AsyncIterator[None]:
    task = asyncio.create_task(intake.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until_sealed(lane: Lane, transactions: int, attestations: int = 0) -> None:
    async with asyncio.timeout(SOON_S):
        while len(lane.transactions()) < transactions or len(lane.attestations()) < attestations:
            await asyncio.sleep(0.005)


async def refused(intake: Intake, signed: transactions_pb2.SignedTx) -> RejectionReason:
    with pytest.raises(Rejection) as caught:
        await intake.submit(signed)
    return caught.value.reason


async def admit(intake: Intake, signed: transactions_pb2.SignedTx) -> None:
    """As a client's, where `Intake.submit` is for the node's own."""
    await intake.admit(intake.check(signed), signed)


async def told_busy(intake: Intake, signed: transactions_pb2.SignedTx) -> Busy:
    with pytest.raises(Busy) as caught:
        await admit(intake, signed)
    assert RETRY_DELAY_MS[0] <= caught.value.retry_delay_ms <= RETRY_DELAY_MS[1]
    return caught.value


async def test_what_is_admitted_is_sealed_once_and_in_order(tmp_path: Path) -> None:
    lane = Lane()
    sent = [a_transfer(salt) for salt in range(5)]
    async with intake_of(tmp_path, lane) as intake:
        for signed in sent:
            await intake.submit(signed)
        intake.attest(b"first")
        intake.attest(b"second")
        assert intake.pending == 5
        async with running(intake):
            await until_sealed(lane, 5, 2)
        assert intake.pending == 0
    assert lane.transactions() == sent
    assert lane.attestations() == [b"first", b"second"]


async def test_payloads_stay_within_their_bytes_and_parse(tmp_path: Path) -> None:
    lane = Lane()
    sent = [a_transfer(salt, payload=3_000) for salt in range(8)]
    async with intake_of(tmp_path, lane, batch_bytes=8 * 1024) as intake, running(intake):
        for signed in sent:
            await intake.submit(signed)
        await until_sealed(lane, 8)
    assert lane.transactions() == sent
    assert len(lane.sealed) >= 4
    assert all(len(payload) <= 8 * 1024 for payload in lane.sealed)
    assert sum(len(parse_batch(payload)) for payload in lane.sealed) == 8


async def test_one_transaction_larger_than_a_batch_still_goes(tmp_path: Path) -> None:
    lane = Lane()
    async with intake_of(tmp_path, lane, batch_bytes=1024) as intake, running(intake):
        await intake.submit(a_transfer(1, payload=5_000))
        await intake.submit(a_transfer(2))
        await until_sealed(lane, 2)
    assert [len(payload) > 1024 for payload in lane.sealed] == [True, False]
    assert max(len(payload) for payload in lane.sealed) < BATCH_PAYLOAD_BYTES_MAX


async def test_nothing_is_sealed_into_a_full_lane_and_nothing_lost(tmp_path: Path) -> None:
    lane = Lane(room=0)
    async with intake_of(tmp_path, lane) as intake, running(intake):
        await intake.submit(a_transfer(1))
        await asyncio.sleep(0.05)
        assert lane.sealed == []
        assert intake.pending == 1
        lane.room = 1
        await until_sealed(lane, 1)


async def test_the_same_transaction_waits_once(tmp_path: Path) -> None:
    async with intake_of(tmp_path, Lane()) as intake:
        await intake.submit(a_transfer(1))
        assert await refused(intake, a_transfer(1)) is RejectionReason.REPLAYED
        await intake.submit(a_transfer(2))
        assert intake.pending == 2


async def test_a_full_intake_says_busy_and_takes_more_once_it_has_room(tmp_path: Path) -> None:
    lane = Lane()
    async with intake_of(tmp_path, lane, pending_bytes_max=4_000) as intake:
        await admit(intake, a_transfer(1, payload=3_000))
        busy = await told_busy(intake, a_transfer(2, payload=3_000))
        assert "limit is 4000" in busy.detail
        await admit(intake, a_transfer(3))
        async with running(intake):
            await until_sealed(lane, 2)
            await admit(intake, a_transfer(2, payload=3_000))
            await until_sealed(lane, 3)


async def test_a_full_intake_leaves_room_for_the_nodes_own_and_seals_them_first(
    tmp_path: Path,
) -> None:
    lane = Lane()
    async with intake_of(tmp_path, lane, pending_bytes_max=4_000) as intake:
        await admit(intake, a_transfer(1, payload=3_500))
        await intake.submit(a_transfer(2, payload=3_500))
        assert await refused(intake, a_transfer(1, payload=3_500)) is RejectionReason.REPLAYED
        async with running(intake):
            await until_sealed(lane, 2)
    assert lane.transactions() == [a_transfer(2, payload=3_500), a_transfer(1, payload=3_500)]


async def test_the_nodes_own_transactions_are_bounded_as_well(tmp_path: Path) -> None:
    async with intake_of(tmp_path, Lane()) as intake:
        size = len(payload_field(a_transfer(0, payload=10_000)))
        for salt in range(OWN_BYTES_MAX // size):
            await intake.submit(a_transfer(salt, payload=10_000))
        assert await refused(intake, a_transfer(999, payload=10_000)) is RejectionReason.BUSY


async def test_what_is_reserved_counts_until_it_is_released(tmp_path: Path) -> None:
    async with intake_of(tmp_path, Lane(), pending_bytes_max=4_000) as intake:
        assert intake.reserve(3_900) == 3_900
        await told_busy(intake, a_transfer(1))
        assert intake.reserve(3_000) == 100
        assert intake.reserve(3_000) == 0
        intake.release(4_000)
        await admit(intake, a_transfer(1))


async def test_who_waits_in_line_for_room_goes_before_who_takes_what_there_is(
    tmp_path: Path,
) -> None:
    async with intake_of(tmp_path, Lane(), pending_bytes_max=4_000) as intake:
        assert intake.reserve(3_000) == 3_000
        first = asyncio.create_task(intake.reserve_all(2_000))
        second = asyncio.create_task(intake.reserve_all(1_500))
        await asyncio.sleep(0.01)
        assert intake.reserve(500) == 0
        intake.release(1_000)
        await asyncio.sleep(0.01)
        assert first.done()
        assert not second.done()
        intake.release(2_000)
        await asyncio.sleep(0.01)
        assert second.done()
        assert intake.reserve(1_000) == 500


def test_the_delay_follows_from_how_fast_bytes_leave() -> None:
    now_s = 0.0
    rate = DrainRate(lambda: now_s)
    assert rate.delay_ms(1) == RETRY_DELAY_MS[1]
    for _ in range(200):
        now_s += 0.05
        rate.sealed(50_000)
    fast_ms = rate.delay_ms(500_000)
    assert 400 < fast_ms < 600
    assert rate.delay_ms(1) == RETRY_DELAY_MS[0]
    for _ in range(200):
        now_s += 0.05
        rate.sealed(25_000)
    assert 1.8 * fast_ms < rate.delay_ms(500_000) < 2.2 * fast_ms
    now_s += 60
    assert rate.delay_ms(500_000) == RETRY_DELAY_MS[1]


async def test_what_the_ledger_refuses_does_not_wait(tmp_path: Path) -> None:
    async with intake_of(tmp_path, Lane()) as intake:
        reason = await refused(intake, a_transfer(1, amount=1 << 62))
        assert reason is RejectionReason.INSUFFICIENT_BALANCE
        assert intake.pending == 0


async def test_a_bad_signature_does_not_reach_the_ledger(tmp_path: Path) -> None:
    signed = a_transfer(1)
    signed.signature = bytes(64)
    async with intake_of(tmp_path, Lane()) as intake:
        assert await refused(intake, signed) is RejectionReason.BAD_SIGNATURE
        assert intake.pending == 0


async def test_fields_that_nobody_signed_do_not_come_into_the_lane(tmp_path: Path) -> None:
    signed = a_transfer(1)
    smuggled = transactions_pb2.SignedTx.FromString(
        signed.SerializeToString() + b"\xfa\x01\x05extra"
    )
    lane = Lane()
    async with intake_of(tmp_path, lane) as intake, running(intake):
        await intake.submit(smuggled)
        await until_sealed(lane, 1)
    assert lane.transactions() == [signed]
    assert b"extra" not in lane.sealed[0]


async def test_payloads_of_an_ended_epoch_are_sealed_again_first_as_they_were(
    tmp_path: Path,
) -> None:
    lane = Lane(room=1)
    async with intake_of(tmp_path, lane) as intake:
        await intake.submit(a_transfer(1))
        intake.seal_again([b"first", b"second"])
        sealing = asyncio.create_task(intake.run())
        try:
            async with asyncio.timeout(SOON_S):
                while lane.sealed != [b"first"]:
                    await asyncio.sleep(0.005)
                lane.room = 10
                while len(lane.sealed) < 3:
                    await asyncio.sleep(0.005)
        finally:
            sealing.cancel()
    assert lane.sealed[1] == b"second"
    assert len(transactions_pb2.BatchPayload.FromString(lane.sealed[2]).transactions) == 1
    assert len(lane.sealed) == 3


async def test_without_a_lane_nothing_is_taken_and_clients_are_sent_elsewhere(
    tmp_path: Path,
) -> None:
    lane = Lane(room=0)
    async with intake_of(tmp_path, lane) as intake:
        intake.closed = "validator 0 is not a member of epoch 7"
        with pytest.raises(Busy, match="not a member of epoch 7: use another node"):
            await intake.submit(a_transfer(1))
        signed = a_transfer(2)
        with pytest.raises(Busy, match="use another node"):
            await intake.admit(intake.check(signed), signed)
        assert intake.reserve(1) == 0
        intake.closed = ""
        await intake.submit(a_transfer(1))
        assert intake.pending == 1
