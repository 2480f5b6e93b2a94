"""A full table refuses what would add to it; the chain goes on."""

from collections.abc import Iterator
from unittest.mock import patch

import pytest

from assay.v1 import transactions_pb2 as pb
from chain.execution import capacity
from chain.rejections import Rejection, RejectionReason
from chain.state import TableNumber
from ext import ledger, tables
from tests.chain.ledger_world import (
    ALICE,
    OWNER,
    World,
    a_registration,
    a_request,
    account,
    total_value,
)

NEW = [account(f"new {number}") for number in range(4)]
FULL = RejectionReason.STATE_FULL


@pytest.fixture
def world() -> World:
    world = World()
    world.open_market()
    return world


@pytest.fixture
def full(world: World) -> Iterator[World]:
    """Every table has room for nothing more."""
    with (
        patch.object(capacity, "ACCOUNTS_MAX", len(list(world.ledger.accounts()))),
        patch.object(capacity, "RECORDS_MAX", 0),
    ):
        yield world


def room_for(world: World, accounts: int) -> object:
    return patch.object(capacity, "ACCOUNTS_MAX", len(list(world.ledger.accounts())) + accounts)


def test_a_payment_to_a_new_account_is_refused_for_its_fee_and_one_to_an_old_one_is_not(
    full: World,
) -> None:
    before = full.ledger.account(ALICE).balance
    refused = full.do(ALICE, pb.Transfer(to=NEW[0], amount=7))
    assert (refused.reason, refused.accepted) == (FULL, False)
    assert full.ledger.account(ALICE).balance == before - refused.fee < before
    assert full.do(ALICE, pb.Transfer(to=OWNER, amount=7)).accepted
    assert full.ledger.account(NEW[0]).balance == 0
    assert total_value(full.ledger) == full.ledger.supply().issued


def test_operations_that_make_one_account_too_many_are_all_undone(world: World) -> None:
    payments = [pb.Transfer(to=key, amount=1) for key in (NEW[0], NEW[0], NEW[1])]
    with room_for(world, accounts=1):  # type: ignore[attr-defined]
        assert world.do(ALICE, *payments).reason == FULL
        assert world.ledger.account(NEW[0]).balance == 0
        assert world.do(ALICE, *payments[:2]).accepted
    assert world.ledger.account(NEW[0]).balance == 2


def test_admission_and_execution_refuse_the_same_with_and_without_the_native_path(
    full: World,
) -> None:
    plain = pb.Transfer(to=NEW[0], amount=7)
    for operations in ([plain], [pb.Stake(amount=1), plain]):  # the second is not run natively
        with pytest.raises(Rejection, match="ACCOUNTS holds") as caught:
            full.ledger.admit(full.make(ALICE, *operations))
        assert caught.value.reason is FULL
        assert full.do(ALICE, *operations).reason == FULL


def test_rows_of_other_tables_are_refused_and_what_changes_rows_is_not(full: World) -> None:
    grant = pb.GrantSession(
        key=NEW[1],
        operation_cap=10**9,
        total_cap=10**9,
        expires_at_height=100,
        kinds=[pb.OPERATION_KIND_TRANSFER],
    )
    other_model = a_registration()
    other_model.model = bytes([9]) * 32
    other_model.name = "another"
    for message in (grant, other_model, a_request()):
        assert full.do(ALICE, message).reason == FULL, message
    assert full.do(ALICE, pb.Stake(amount=5)).accepted
    assert list(full.ledger.jobs()) == []
    assert total_value(full.ledger) == full.ledger.supply().issued


def test_a_job_that_was_asked_before_is_answered_in_a_full_state(world: World) -> None:
    job = world.request()
    world.block()
    with (
        room_for(world, accounts=0),  # type: ignore[attr-defined]
        patch.object(capacity, "RECORDS_MAX", 0),
    ):
        world.answer(job)
        record = world.ledger.job(job)
    assert record is not None
    assert record.result_digest is not None


@pytest.mark.parametrize("table", [TableNumber.ACCOUNTS, TableNumber.JOBS])
def test_what_operations_may_fill_ends_long_before_the_native_bound(table: TableNumber) -> None:
    if table is TableNumber.ACCOUNTS:
        assert capacity.ACCOUNTS_MAX <= ledger.ROWS_MAX // 2
    else:
        assert capacity.RECORDS_MAX <= tables.ROWS_MAX // 2
