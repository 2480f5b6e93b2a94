"""Waiting for a transaction: who waits hears of it once, and nobody else costs anything."""

import asyncio
from dataclasses import replace

import pytest

from chain.leaves import PackedLeaves
from chain.node.outcomes import TransactionWaits, receipts_of
from chain.records import TransactionReceipt
from ext.hashing import sha256

IDS = [sha256(bytes([index])) for index in range(4)]


def a_receipt(index: int, reason: str = "") -> TransactionReceipt:
    return TransactionReceipt(IDS[index], not reason, reason, 7)


async def test_everybody_who_waits_for_a_transaction_hears_its_outcome() -> None:
    waits = TransactionWaits()
    with (
        waits.waiting(IDS[0], 9) as first,
        waits.waiting(IDS[0], 9) as second,
        waits.waiting(IDS[1], 9) as other,
    ):
        assert set(waits.wanted) == {IDS[0], IDS[1]}
        waits.settle(3, {IDS[0]: a_receipt(0)})
        assert await first == await second == (3, a_receipt(0))
        assert not other.done()
        waits.settle(4, {IDS[0]: a_receipt(0), IDS[1]: a_receipt(1)})
        assert await first == (3, a_receipt(0))
        assert await other == (4, a_receipt(1))
    assert waits.wanted == ()


async def test_a_wait_ends_when_a_block_after_its_last_height_has_come() -> None:
    waits = TransactionWaits()
    with waits.waiting(IDS[0], 5) as short, waits.waiting(IDS[0], 6) as long:
        waits.settle(5, {})
        assert not short.done()
        waits.settle(6, {})
        assert await short is None
        waits.settle(6, {IDS[0]: a_receipt(0)})
        assert await long == (6, a_receipt(0))


async def test_one_who_gives_up_takes_nobody_else_along() -> None:
    waits = TransactionWaits()
    with waits.waiting(IDS[0], 9) as patient:
        with pytest.raises(TimeoutError), waits.waiting(IDS[0], 9) as hasty:
            async with asyncio.timeout(0):
                await hasty
        waits.settle(1, {IDS[0]: a_receipt(0)})
        assert await patient == (1, a_receipt(0))


def test_wanted_receipts_are_found_among_a_blocks_leaves() -> None:
    receipts = [a_receipt(0), a_receipt(1, "EXPIRED"), a_receipt(2)]
    leaves = PackedLeaves.from_list([receipt.leaf() for receipt in receipts])
    found = receipts_of(5, leaves, [IDS[1], IDS[2], IDS[3]])
    assert found == {IDS[1]: receipts[1], IDS[2]: receipts[2]}
    assert receipts_of(5, PackedLeaves(), IDS) == {}


def test_whoever_waits_hears_of_the_inclusion_if_the_block_refused_it_first() -> None:
    """One lane's copy came before the money, another lane's after it."""
    refused, included = a_receipt(0, "INSUFFICIENT_BALANCE"), a_receipt(0)
    refused = replace(refused, fee=0)
    leaves = PackedLeaves.from_list([refused.leaf(), included.leaf(), a_receipt(1).leaf()])
    assert receipts_of(5, leaves, [IDS[0]]) == {IDS[0]: included}
    twice = [replace(refused, reason="MALFORMED").leaf(), refused.leaf()]
    assert receipts_of(5, PackedLeaves.from_list(twice), [IDS[0]]) == {IDS[0]: refused}
