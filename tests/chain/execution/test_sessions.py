"""Session keys in execution: what they may do, what it counts as, and how they end."""

import pytest
from google.protobuf.message import Message

from assay.v1 import transactions_pb2 as pb
from chain.events import EventKind
from chain.execution import sessions
from chain.execution.block import fee_of
from chain.parameters import GRAIN_PER_ASY
from chain.records import SESSION_LIST_MAX, Session, TransactionReceipt
from chain.rejections import Rejection, RejectionReason
from chain.transactions import Transaction, decode_transaction, make_operation
from tests.chain.ledger_world import (
    ALICE,
    CHAIN,
    FUNDS,
    MAX_FEE,
    MODEL,
    PASS_ALL,
    PROVIDERS,
    World,
    a_request,
    account,
    balance,
    events_in,
    receipt_of,
    restarted,
    total_value,
)

KEY = account("a session key")
BOB = account("bob")
TRANSFER = pb.OPERATION_KIND_TRANSFER
REQUEST = pb.OPERATION_KIND_REQUEST_INFERENCE
ASY = GRAIN_PER_ASY


def a_grant(
    world: World,
    operation_cap: int = 20 * ASY,
    total_cap: int = 50 * ASY,
    kinds: tuple[pb.OperationKind.ValueType, ...] = (TRANSFER, REQUEST),
    key: bytes = KEY,
    blocks: int = 100,
    models: tuple[bytes, ...] = (),
    recipients: tuple[bytes, ...] = (),
) -> pb.GrantSession:
    return pb.GrantSession(
        key=key,
        operation_cap=operation_cap,
        total_cap=total_cap,
        expires_at_height=world.ledger.height + 1 + blocks,
        kinds=kinds,
        models=models,
        recipients=recipients,
    )


def pay(amount: int, to: bytes = BOB) -> pb.Transfer:
    return pb.Transfer(to=to, amount=amount)


def signed_by(
    world: World, *messages: Message, key: bytes = KEY, granter: bytes = ALICE
) -> Transaction:
    """A transaction of the granter that one of its session keys has signed."""
    world.salt += 1
    body = pb.TxBody(
        chain_id=CHAIN,
        valid_until_height=world.ledger.height + 100,
        salt=world.salt,
        max_fee=MAX_FEE,
        ops=[make_operation(message) for message in messages],
        account=granter,
    )
    return decode_transaction(CHAIN, body.SerializeToString(), key)


def spend(world: World, *messages: Message, key: bytes = KEY) -> TransactionReceipt:
    """The receipt of such a transaction, in a block of its own."""
    transaction = signed_by(world, *messages, key=key)
    world.waiting.append(transaction)
    return receipt_of(world.block(), transaction)


def session(world: World, key: bytes = KEY) -> Session:
    return dict(world.ledger.sessions(ALICE))[key]


def granted(**terms: object) -> World:
    world = World()
    assert world.do(ALICE, a_grant(world, **terms)).accepted  # type: ignore[arg-type]
    return world


def test_a_session_key_spends_the_granters_money_and_counts_what_it_spends() -> None:
    world = granted()
    before = balance(world, ALICE)
    receipt = spend(world, pay(7), pay(5))
    assert receipt.accepted
    assert balance(world, BOB) == 12
    assert balance(world, ALICE) == before - 12 - receipt.fee
    assert session(world).spent == 12 + receipt.fee
    assert total_value(world.ledger) == world.ledger.supply().issued


def test_what_the_signer_has_is_neither_needed_nor_touched() -> None:
    world = granted()
    world.do(ALICE, pay(10**9, KEY))
    spend(world, pay(7))
    assert balance(world, KEY) == 10**9


def test_nobody_spends_for_an_account_that_has_not_granted_it() -> None:
    world = World()
    receipt = spend(world, pay(7))
    assert (receipt.reason, receipt.fee) == (RejectionReason.UNKNOWN_SESSION, 0)
    assert balance(world, ALICE) == FUNDS


def test_an_operation_beyond_its_cap_is_undone_and_its_fee_is_counted() -> None:
    world = granted(operation_cap=ASY)
    receipt = spend(world, pay(1), pay(ASY + 1))
    assert receipt.reason == RejectionReason.SESSION_OPERATION_CAP
    assert balance(world, BOB) == 0
    assert session(world).spent == receipt.fee > 0


def test_the_fee_is_part_of_what_an_operation_costs() -> None:
    world = granted(operation_cap=ASY)
    fee = fee_of(world.parameters, 1, signed_by(world, pay(ASY)).body_bytes)
    assert spend(world, pay(ASY)).reason == RejectionReason.SESSION_OPERATION_CAP
    assert spend(world, pay(ASY - fee)).accepted


def test_a_fee_that_passes_a_cap_is_not_taken() -> None:
    for terms, reason in (
        ({"operation_cap": 9}, RejectionReason.SESSION_OPERATION_CAP),
        ({"operation_cap": 20_000, "total_cap": 20_000}, RejectionReason.SESSION_TOTAL_CAP),
    ):
        world = granted(**terms)
        spend(world, pay(1))
        before = balance(world, ALICE)
        receipt = spend(world, pay(1))
        assert (receipt.reason, receipt.fee) == (reason, 0)
        assert balance(world, ALICE) == before


def test_many_transactions_of_one_block_share_the_total() -> None:
    world = granted(operation_cap=ASY, total_cap=5 * ASY)
    sent = [signed_by(world, pay(ASY // 2)) for _ in range(20)]
    world.waiting += sent
    outcome = world.block()
    accepted = [receipt_of(outcome, transaction).accepted for transaction in sent]
    assert sum(accepted) == 9
    assert session(world).spent <= 5 * ASY


def test_what_a_job_does_not_use_of_its_escrow_is_spent_no_longer() -> None:
    world = World()
    world.open_market()
    world.do(ALICE, a_grant(world))
    transaction = signed_by(world, a_request())
    world.waiting.append(transaction)
    fee = receipt_of(world.block(), transaction).fee
    assert session(world).spent == fee + 10 * ASY
    ((job, _),) = world.ledger.open_jobs()
    world.block()
    world.answer(job)
    before = balance(world, ALICE)
    world.vote(job, PASS_ALL)
    price = 10 * ASY - (balance(world, ALICE) - before)
    assert 0 < price < ASY
    assert session(world).spent == fee + price
    assert not [row for row in world.ledger.to_records() if row[0] == 12], "links are left"


def test_what_comes_back_from_an_older_grant_is_not_the_newer_ones() -> None:
    world = World()
    world.open_market()
    world.do(ALICE, a_grant(world))
    spend(world, a_request(), a_request())
    world.do(ALICE, pb.RevokeSession(key=KEY), a_grant(world))
    receipt = spend(world, pay(7))
    while list(world.ledger.open_jobs()):
        world.block(after_ms=600_001)
    assert session(world).spent == 7 + receipt.fee


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        ({"kinds": (REQUEST,)}, pay(1)),
        ({}, pb.Stake(amount=1)),
        ({"models": (bytes(32),)}, a_request()),
        ({"recipients": (ALICE,)}, pay(1)),
        ({}, pb.RevokeSession(key=KEY)),
        ({}, pb.GrantSession(key=BOB)),
    ],
)
def test_what_is_not_on_a_list_is_refused(terms: dict[str, object], message: Message) -> None:
    world = granted(**terms)
    assert spend(world, message).reason == RejectionReason.SESSION_FORBIDS


def test_what_is_on_a_list_is_allowed() -> None:
    world = World()
    world.open_market()
    world.do(ALICE, a_grant(world, models=(MODEL,), recipients=(BOB,)))
    assert spend(world, a_request(), pay(1)).accepted


@pytest.mark.parametrize(
    "terms",
    [
        {"key": bytes(31)},
        {"key": ALICE},
        {"operation_cap": 0},
        {"operation_cap": 2, "total_cap": 1},
        {"blocks": 0},
        {"blocks": sessions.SESSION_BLOCKS_MAX + 1},
        {"kinds": ()},
        {"kinds": (REQUEST, TRANSFER)},
        {"kinds": (TRANSFER, TRANSFER)},
        {"kinds": (9,)},
        {"kinds": (pb.Op.SET_OFFER_FIELD_NUMBER,)},
        {"kinds": (pb.Op.SET_VERIFIER_FIELD_NUMBER,)},
        {"kinds": (pb.Op.SUBMIT_RESULT_FIELD_NUMBER,)},
        {"models": (b"short",)},
        {"recipients": tuple(bytes([n]) * 32 for n in range(SESSION_LIST_MAX + 1))},
    ],
)
def test_a_grant_that_makes_no_sense_is_refused(terms: dict[str, object]) -> None:
    world = World()
    receipt = world.do(ALICE, a_grant(world, **terms))  # type: ignore[arg-type]
    assert receipt.reason == RejectionReason.BAD_SESSION


def test_a_grant_that_lasts_as_long_as_can_be_is_good() -> None:
    granted(blocks=sessions.SESSION_BLOCKS_MAX)


def test_a_key_is_granted_once_and_revoked_once() -> None:
    world = granted()
    assert world.do(ALICE, a_grant(world)).reason == RejectionReason.SESSION_EXISTS
    assert world.do(ALICE, pb.RevokeSession(key=KEY), a_grant(world)).accepted
    assert world.do(ALICE, pb.RevokeSession(key=KEY)).accepted
    assert world.do(ALICE, pb.RevokeSession(key=KEY)).reason == RejectionReason.UNKNOWN_SESSION
    assert spend(world, pay(1)).reason == RejectionReason.UNKNOWN_SESSION


def test_an_account_has_so_many_session_keys_and_no_more() -> None:
    world = World()
    keys = [account(f"key {index}") for index in range(sessions.SESSIONS_MAX + 1)]
    assert world.do(ALICE, *(a_grant(world, key=key) for key in keys[:-1])).accepted
    assert world.do(ALICE, a_grant(world, key=keys[-1])).reason == RejectionReason.TOO_MANY_SESSIONS
    assert world.do(PROVIDERS[0], a_grant(world)).accepted
    assert world.do(ALICE, pb.RevokeSession(key=keys[0]), a_grant(world, key=keys[-1])).accepted


def test_a_session_acts_at_its_last_height_and_leaves_the_state_after_it() -> None:
    world = granted(blocks=2)
    twin = World()
    twin.ledger = restarted(world.ledger)
    world.block()
    assert spend(world, pay(1)).accepted
    assert world.ledger.height == session(world).expires_at_height
    late = signed_by(world, pay(1))
    world.waiting.append(late)
    outcome = world.block()
    assert receipt_of(outcome, late).reason == RejectionReason.UNKNOWN_SESSION
    (ended,) = events_in(outcome)
    assert (ended.kind, ended.subject, ended.other) == (EventKind.SESSION_ENDED, ALICE, KEY)
    assert not [row for row in world.ledger.to_records() if row[0] == 11], "sessions are left"
    for _ in range(3):
        twin.block()
    assert list(twin.ledger.sessions(ALICE)) == []


def test_a_key_that_was_granted_anew_does_not_end_with_its_first_grant() -> None:
    world = granted(blocks=2)
    assert world.do(ALICE, pb.RevokeSession(key=KEY), a_grant(world, blocks=50)).accepted
    for _ in range(4):
        world.block()
    assert spend(world, pay(1)).accepted


def test_a_node_refuses_at_its_door_what_a_block_would_refuse() -> None:
    world = granted(operation_cap=ASY, total_cap=ASY)
    before = session(world), balance(world, ALICE)
    world.ledger.admit(signed_by(world, pay(7)))
    assert (session(world), balance(world, ALICE)) == before
    with pytest.raises(Rejection, match="SESSION_OPERATION_CAP") as refused:
        world.ledger.admit(signed_by(world, pay(2 * ASY)))
    assert "spend 1000000000" in refused.value.detail
