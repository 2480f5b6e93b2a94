"""A check says what a run then does to the first transaction of a block, and changes nothing."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from chain.records import TransactionReceipt
from chain.rejections import RejectionReason
from ext import transfers
from ext.bodies import PLAIN
from ext.transactions import count_batch, parse_batch
from tests.ext.test_transfers import (
    HEIGHT,
    KEYS,
    OWNER,
    U64_MAX,
    Amounts,
    Fees,
    Native,
    Signed,
    batch_of,
    body_of,
    drawn,
    fees_drawn,
    keys,
    stake_of,
    tables,
    unpack,
)

REASONS = {
    transfers.ACCEPTED: "",
    transfers.EXPIRED: RejectionReason.EXPIRED,
    transfers.TOO_FAR_AHEAD: RejectionReason.TOO_FAR_AHEAD,
    transfers.FEE_TOO_LOW: RejectionReason.FEE_TOO_LOW,
    transfers.INSUFFICIENT_BALANCE: RejectionReason.INSUFFICIENT_BALANCE,
    transfers.AMOUNT_ZERO: RejectionReason.AMOUNT_ZERO,
    transfers.STATE_FULL: RejectionReason.STATE_FULL,
}
"""A replay is the one refusal that leaves no receipt."""


def check(native: Native, transactions: list[Signed]) -> list[tuple[int, int, int]]:
    columns = transfers.check(
        native.accounts, native.window, batch_of(transactions), native.rules, native.owner
    )
    return list(zip(*(column.tolist() for column in columns), strict=True))


@settings(max_examples=200, deadline=None)
@given(tables, st.lists(drawn, max_size=12), st.sets(st.integers(0, 11)), fees_drawn, keys)
@example({KEYS[1]: (1000, 0, 0, 0)}, [(KEYS[1], body_of((KEYS[2], 1)))], {0}, Fees(), OWNER)
def test_a_check_agrees_with_the_run_of_each_as_the_first_of_its_block(
    rows: dict[bytes, Amounts],
    transactions: list[Signed],
    replayed: set[int],
    fees: Fees,
    owner: bytes,
) -> None:
    native = Native(rows, fees, owner)
    bodies = batch_of(transactions)
    for index in sorted(replayed):
        if index < len(bodies) and (id := bodies.batch.transaction(index).id) not in native.window:
            native.window.add(id, HEIGHT - 1, len(native.window))
    before = native.rows(), len(native.window)
    told = check(native, transactions)
    assert (native.rows(), len(native.window)) == before
    for index, (code, _, _) in enumerate(told):
        if bodies.classes[index] != PLAIN:
            assert code == transfers.ACCEPTED
            continue
        id = bodies.batch.transaction(index).id
        block = Native(rows, fees, owner)
        if id in native.window:
            block.window.add(id, HEIGHT - 1, 0)
        block.run(bodies, index, index + 1)
        leaves = unpack(block.output.receipt_leaves())
        if code == transfers.REPLAYED:
            assert leaves == []
            continue
        fee = int.from_bytes(leaves[0][-8:], "little")
        expected = TransactionReceipt(id, not REASONS[code], str(REASONS[code]), fee)
        assert leaves == [expected.leaf()]


def test_each_refusal_says_what_was_seen_and_what_is_allowed() -> None:
    rich, poor = KEYS[1], KEYS[2]
    native = Native({rich: (100, 0, 0, 0), poor: (12, 0, 0, 0)}, Fees())
    told = check(
        native,
        [
            (rich, body_of((poor, 87))),
            (rich, body_of((poor, 88))),
            (rich, body_of((poor, 60), (poor, 30))),
            (rich, body_of((rich, 84), (rich, 84))),
            (rich, body_of((poor, 0))),
            (poor, body_of((rich, 1))),
            (KEYS[3], body_of((rich, 1))),
            (rich, body_of((poor, 1), max_fee=12)),
            (rich, body_of((poor, 1), valid_until_height=HEIGHT - 1)),
            (rich, body_of((poor, 1), valid_until_height=HEIGHT + 256)),
            (rich, body_of((poor, 1), valid_until_height=HEIGHT + 257)),
            (rich, stake_of(1)),
            (OWNER, body_of((poor, 1))),
        ],
    )
    assert told == [
        (transfers.ACCEPTED, 0, 0),
        (transfers.INSUFFICIENT_BALANCE, 87, 88),
        (transfers.INSUFFICIENT_BALANCE, 24, 30),
        (transfers.ACCEPTED, 0, 0),
        (transfers.AMOUNT_ZERO, 0, 0),
        (transfers.INSUFFICIENT_BALANCE, 12, 13),
        (transfers.INSUFFICIENT_BALANCE, 0, 13),
        (transfers.FEE_TOO_LOW, 12, 13),
        (transfers.EXPIRED, HEIGHT - 1, HEIGHT),
        (transfers.ACCEPTED, 0, 0),
        (transfers.TOO_FAR_AHEAD, HEIGHT + 257, HEIGHT + 256),
        (transfers.ACCEPTED, 0, 0),
        (transfers.INSUFFICIENT_BALANCE, 0, 13),
    ]


def test_a_fee_beyond_64_bits_is_told_as_the_largest_number() -> None:
    native = Native({KEYS[1]: (100, 0, 0, 0)}, Fees(per_transaction=U64_MAX))
    told = check(native, [(KEYS[1], body_of((KEYS[2], 1), max_fee=U64_MAX))])
    assert told == [(transfers.FEE_TOO_LOW, U64_MAX, U64_MAX)]


def test_an_empty_batch_is_checked_to_nothing_and_an_owner_has_32_bytes() -> None:
    native = Native({}, Fees())
    assert check(native, []) == []
    native.owner = b"short"
    with pytest.raises(ValueError, match="5 bytes, 32 are needed"):
        check(native, [])


def test_a_payload_is_counted_before_it_is_looked_into() -> None:
    payload = batch_of([(KEYS[1], body_of((KEYS[2], 1)))] * 3).batch.payload
    assert count_batch(payload) == (3, 0) == (len(parse_batch(payload)), 0)
    assert count_batch(b"\x0a\x00" * 4_097) == (4_097, 0)
    assert count_batch(b"") == (0, 0)
    with pytest.raises(ValueError, match="truncated"):
        count_batch(payload[:-1])
