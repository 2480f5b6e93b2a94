"""Blocks and single operations: order, fees, atomicity, replay, and each reason to refuse."""

import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from google.protobuf.message import Message

from assay.v1 import inference_pb2 as inference
from assay.v1 import transactions_pb2 as pb
from chain.events import EventKind
from chain.execution import BlockContext, LaneBatch, Ledger
from chain.execution.block import fee_of
from chain.execution.market import OFFERS_MAX
from chain.parameters import DURATION_MS_MAX, GRAIN_PER_ASY, SUPPLY_MAX, Parameters
from chain.records import Account, ExecutionLink, IncludedIds, JobStatus, TransactionReceipt
from chain.rejections import Rejection, RejectionReason
from chain.state import StateError, TableNumber
from chain.transactions import WINDOW_BLOCKS
from consensus.values import ZERO_HASH
from consensus.wire import decode, encode
from ext.hashing import tagged_hash
from ext.transactions import transaction_id
from tests.chain.ledger_world import (
    ALICE,
    CHAIN,
    FUNDS,
    MAX_PRICE,
    MODEL,
    OWNER,
    PROVIDERS,
    START_MS,
    TREASURY,
    World,
    a_registration,
    a_request,
    account,
    an_offer,
    events_in,
    everything,
    lane_batch,
    least_price,
    receipt_of,
    receipts_in,
    restarted,
    serving,
    total_value,
    validator_set,
)

BOB = account("bob")


def changed(message: Message, **values: object) -> Message:
    """A copy of the message with some fields set, or cleared where the value is None."""
    copy = type(message)()
    copy.CopyFrom(message)
    for name, value in values.items():
        copy.ClearField(name)
        if isinstance(value, Message):
            getattr(copy, name).CopyFrom(value)
        elif value is not None:
            setattr(copy, name, value)
    return copy


def test_a_transfer_moves_balance_and_pays_half_of_its_fee_to_the_lanes_owner() -> None:
    world = World()
    transaction = world.send(ALICE, pb.Transfer(to=BOB, amount=7))
    outcome = world.block()
    receipt = receipt_of(outcome, transaction)
    fee = fee_of(world.parameters, 1, transaction.body_bytes)
    assert receipt == TransactionReceipt(transaction.id, True, "", fee)
    assert world.ledger.account(BOB).balance == 7
    assert world.ledger.account(ALICE).balance == FUNDS - 7 - fee
    assert world.ledger.supply().burned == fee // 2
    owner = world.set.members[0].account
    assert world.ledger.account(owner).balance == FUNDS + fee - fee // 2
    (event,) = events_in(outcome)
    assert (event.kind, event.subject, event.other) == (EventKind.TRANSFERRED, ALICE, BOB)


def test_operations_are_all_done_or_all_undone_but_the_fee_is_paid() -> None:
    world = World()
    too_much = pb.Transfer(to=BOB, amount=FUNDS)
    transaction = world.send(ALICE, pb.Transfer(to=BOB, amount=1), a_registration(), too_much)
    outcome = world.block()
    receipt = receipt_of(outcome, transaction)
    assert not receipt.accepted
    assert receipt.reason == RejectionReason.INSUFFICIENT_BALANCE
    assert receipt.fee > 0
    assert world.ledger.account(ALICE).balance == FUNDS - receipt.fee
    assert world.ledger.account(BOB).balance == 0
    assert world.ledger.model(MODEL) is None
    assert list(outcome.events) == []
    assert total_value(world.ledger) == world.ledger.supply().issued


def test_an_undone_request_leaves_neither_a_job_nor_a_payload() -> None:
    world = World()
    world.open_market()
    transaction = world.send(ALICE, a_request(), pb.Transfer(to=BOB, amount=FUNDS))
    outcome = world.block()
    assert not receipt_of(outcome, transaction).accepted
    assert (outcome.payloads, outcome.changed_jobs) == ((), ())
    assert list(world.ledger.open_jobs()) == []


def test_who_cannot_pay_the_fee_pays_nothing() -> None:
    world = World()
    receipt = world.do(BOB, pb.Transfer(to=ALICE, amount=1))
    assert (receipt.reason, receipt.fee) == (RejectionReason.INSUFFICIENT_BALANCE, 0)


def test_a_fee_above_what_was_offered_is_not_taken() -> None:
    world = World(parameters=Parameters(fee_per_transaction=2 * 10**9))
    receipt = world.do(ALICE, pb.Transfer(to=BOB, amount=1))
    assert (receipt.reason, receipt.fee) == (RejectionReason.FEE_TOO_LOW, 0)
    assert world.ledger.account(ALICE).balance == FUNDS


def test_a_transaction_in_two_lanes_is_done_once_and_has_one_receipt() -> None:
    world = World()
    transaction = world.make(ALICE, pb.Transfer(to=BOB, amount=7))
    lanes = [lane_batch(lane, [transaction]) for lane in (0, 1)]
    outcome = world.ledger.execute(BlockContext(1, START_MS, ZERO_HASH, 0), lanes)
    assert len(outcome.receipts) == 1
    assert world.ledger.account(BOB).balance == 7


def test_a_transaction_cannot_be_replayed_while_it_is_valid() -> None:
    world = World()
    transaction = world.make(ALICE, pb.Transfer(to=BOB, amount=7), valid_for=WINDOW_BLOCKS)
    for _ in range(WINDOW_BLOCKS + 3):
        world.waiting.append(transaction)
        world.block()
    assert world.ledger.account(BOB).balance == 7
    with pytest.raises(Rejection, match="EXPIRED"):
        world.ledger.admit(transaction)


def remembered_heights(ledger: Ledger) -> list[int]:
    return [
        int.from_bytes(key, "big")
        for table, key, _ in ledger.to_records()
        if table == TableNumber.INCLUDED
    ]


def test_a_restarted_ledger_still_refuses_replays_and_forgets_them_on_the_same_height() -> None:
    world = World()
    transaction = world.send(ALICE, pb.Transfer(to=BOB, amount=7))
    world.block()
    again = restarted(world.ledger)
    with pytest.raises(Rejection, match="REPLAYED"):
        again.admit(transaction)
    for _ in range(WINDOW_BLOCKS):
        assert remembered_heights(again) == [1]
        context, lanes = world.next_block()
        assert again.execute(context, lanes) == world.ledger.execute(context, lanes)
    assert remembered_heights(again) == []


def test_ids_that_no_ledger_wrote_are_named_at_a_restart() -> None:
    world = World()
    world.do(ALICE, pb.Transfer(to=BOB, amount=7))
    rows = [
        (table, key, value[:4] + encode(IncludedIds(bytes(31), bytes(4))))
        if table == TableNumber.INCLUDED
        else (table, key, value)
        for table, key, value in world.ledger.to_records()
    ]
    with pytest.raises(StateError, match="table INCLUDED, key 0000000000000001"):
        Ledger.from_records(CHAIN, world.ledger.meta, rows, world.ledger.account_chunks())


@pytest.mark.parametrize(
    ("valid_for", "reason"),
    [(0, RejectionReason.EXPIRED), (WINDOW_BLOCKS + 2, RejectionReason.TOO_FAR_AHEAD)],
)
def test_validity_is_bounded_on_both_sides(valid_for: int, reason: RejectionReason) -> None:
    world = World()
    transaction = world.make(ALICE, pb.Transfer(to=BOB, amount=1), valid_for=valid_for)
    with pytest.raises(Rejection) as caught:
        world.ledger.admit(transaction)
    assert caught.value.reason is reason
    world.waiting.append(transaction)
    assert receipt_of(world.block(), transaction).reason == reason


def test_admission_tries_the_operations_and_leaves_the_ledger_as_it_was() -> None:
    world = World()
    before = everything(world.ledger)
    world.ledger.admit(world.make(ALICE, pb.Transfer(to=BOB, amount=1)))
    with pytest.raises(Rejection, match="AMOUNT_ZERO"):
        world.ledger.admit(world.make(ALICE, pb.Transfer(to=BOB, amount=1), pb.Stake()))
    assert everything(world.ledger) == before
    untouched = World()
    assert world.block() == untouched.block()


def test_an_undecodable_transaction_leaves_a_receipt_and_nothing_else() -> None:
    world = World()
    junk = pb.SignedTx(body=b"junk", public_key=ALICE, signature=bytes(64))
    outcome = world.ledger.execute(BlockContext(1, START_MS, ZERO_HASH, 0), [lane_batch(2, [junk])])
    expected = TransactionReceipt(transaction_id(junk.body, ALICE), False, "MALFORMED", 0)
    assert receipts_in(outcome) == [expected]
    assert (outcome.journal, outcome.accounts) == ((), b"")


def test_the_execution_root_chains_every_blocks_link() -> None:
    world = World()
    previous = world.ledger.execution_root
    assert previous == world.ledger.genesis_link().extend(ZERO_HASH)
    world.send(ALICE, pb.Transfer(to=BOB, amount=1))
    outcome = world.block()
    assert outcome.link == ExecutionLink(
        height=1,
        state_root=world.ledger.state_root(),
        receipts_root=outcome.receipts.root(),
        events_root=outcome.events.root(),
    )
    assert outcome.execution_root == outcome.link.extend(previous) == world.ledger.execution_root
    with pytest.raises(ValueError, match="past genesis"):
        world.ledger.genesis_link()


def test_two_blocks_that_differ_only_in_time_have_the_same_root_when_nothing_is_due() -> None:
    early, late = World(), World()
    assert early.block(after_ms=1).execution_root == late.block(after_ms=2).execution_root


@pytest.mark.parametrize(
    ("context", "lanes", "message"),
    [
        (BlockContext(2, START_MS, ZERO_HASH, 0), [], "does not follow"),
        (BlockContext(1, START_MS - 1, ZERO_HASH, 0), [], "lies before"),
        (
            BlockContext(1, START_MS, ZERO_HASH, 0),
            [lane_batch(1), lane_batch(0)],
            "order of lane",
        ),
        (BlockContext(1, START_MS, ZERO_HASH, 0), [lane_batch(5)], "no validator"),
    ],
)
def test_a_block_that_does_not_follow_changes_nothing(
    context: BlockContext, lanes: list[LaneBatch], message: str
) -> None:
    world = World()
    before = everything(world.ledger)
    with pytest.raises(ValueError, match=message):
        world.ledger.execute(context, lanes)
    assert everything(world.ledger) == before
    assert world.ledger.height == 0


def test_stake_returns_to_the_balance_only_when_the_unbonding_time_has_passed() -> None:
    world = World()
    world.do(ALICE, pb.Stake(amount=500))
    world.do(ALICE, pb.Unstake(amount=300))
    record = world.ledger.account(ALICE)
    assert (record.stake, record.unbonding) == (200, 300)
    balance = record.balance
    world.block(after_ms=world.parameters.unbonding_ms - 1)
    assert world.ledger.account(ALICE).unbonding == 300
    outcome = world.block(after_ms=1)
    record = world.ledger.account(ALICE)
    assert (record.stake, record.unbonding, record.balance) == (200, 0, balance + 300)
    assert [event.kind for event in events_in(outcome)] == [EventKind.UNBONDED]


def test_a_second_unstake_adds_to_the_first_and_restarts_its_time() -> None:
    world = World()
    world.do(ALICE, pb.Stake(amount=500))
    world.do(ALICE, pb.Unstake(amount=300))
    world.block(after_ms=world.parameters.unbonding_ms - 200)
    world.do(ALICE, pb.Unstake(amount=50))
    world.block(after_ms=world.parameters.unbonding_ms - 1)
    record = world.ledger.account(ALICE)
    assert (record.stake, record.unbonding) == (150, 350)
    world.block(after_ms=1)
    assert world.ledger.account(ALICE).unbonding == 0
    assert total_value(world.ledger) == world.ledger.supply().issued


def test_an_account_without_any_money_keeps_its_row_and_stays_empty() -> None:
    world = World(parameters=Parameters(fee_per_byte=0))
    fee = fee_of(world.parameters, 1, 0)
    world.do(ALICE, pb.Transfer(to=BOB, amount=fee + 5))
    world.do(BOB, pb.Transfer(to=ALICE, amount=5))
    assert dict(world.ledger.accounts())[BOB] == Account(0, 0, 0, 0)


Refusal = tuple[Callable[[], tuple[bytes, Message]], RejectionReason]

REFUSALS: list[Refusal] = [
    (lambda: (ALICE, pb.Transfer(to=b"short", amount=1)), RejectionReason.BAD_ADDRESS),
    (lambda: (ALICE, pb.Transfer(to=BOB)), RejectionReason.AMOUNT_ZERO),
    (lambda: (ALICE, pb.Stake(amount=FUNDS)), RejectionReason.INSUFFICIENT_BALANCE),
    (lambda: (ALICE, pb.Unstake(amount=1)), RejectionReason.INSUFFICIENT_STAKE),
    (lambda: (PROVIDERS[0], pb.Unstake(amount=1)), RejectionReason.INSUFFICIENT_STAKE),
    (lambda: (ALICE, a_registration()), RejectionReason.MODEL_EXISTS),
    (lambda: (ALICE, changed(a_registration(), model=b"x")), RejectionReason.BAD_MODEL),
    (lambda: (ALICE, another_model(name="")), RejectionReason.BAD_MODEL),
    (lambda: (ALICE, another_model(name="a\nb")), RejectionReason.BAD_MODEL),
    (lambda: (ALICE, another_model(name="a\x7f")), RejectionReason.BAD_MODEL),
    (lambda: (ALICE, another_model(name="é" * 33)), RejectionReason.BAD_MODEL),
    (lambda: (ALICE, another_model(context_tokens=1)), RejectionReason.BAD_MODEL),
    (lambda: (ALICE, another_model(royalty_bps=1_001)), RejectionReason.BAD_MODEL),
    (lambda: (ALICE, another_model(parameters=0)), RejectionReason.BAD_MODEL),
    (lambda: (ALICE, another_model(parameters=(1 << 48) + 1)), RejectionReason.BAD_MODEL),
    (lambda: (ALICE, an_offer()), RejectionReason.INSUFFICIENT_STAKE),
    (lambda: (ALICE, an_offer(capacity=0)), RejectionReason.BAD_OFFER),
    (lambda: (ALICE, an_offer(capacity=1 << 17)), RejectionReason.BAD_OFFER),
    (lambda: (PROVIDERS[0], an_offer(operator=5)), RejectionReason.UNKNOWN_OPERATOR),
    (lambda: (ALICE, changed(an_offer(), model=bytes(32))), RejectionReason.UNKNOWN_MODEL),
    (lambda: (ALICE, serving()), RejectionReason.NOT_A_VALIDATOR),
    (lambda: (ALICE, pb.SetVerifier(model=bytes(32))), RejectionReason.UNKNOWN_MODEL),
    (lambda: (ALICE, changed(a_request(), model=b"")), RejectionReason.UNKNOWN_MODEL),
    (lambda: (ALICE, changed(a_request(), input=None)), RejectionReason.BAD_INPUT),
    (lambda: (ALICE, a_request(text="")), RejectionReason.BAD_INPUT),
    (lambda: (ALICE, chat()), RejectionReason.BAD_INPUT),
    (lambda: (ALICE, chat(inference.ChatMessage(content="no role"))), RejectionReason.BAD_INPUT),
    (lambda: (ALICE, token_ids(0)), RejectionReason.BAD_INPUT),
    (lambda: (ALICE, token_ids(512)), RejectionReason.PROMPT_TOO_LONG),
    (lambda: (ALICE, a_request(text="x" * (512 * 16 + 1))), RejectionReason.PROMPT_TOO_LONG),
    (lambda: (ALICE, a_request(max_output_tokens=0)), RejectionReason.MAX_TOKENS_OUT_OF_RANGE),
    (lambda: (ALICE, a_request(max_output_tokens=512)), RejectionReason.MAX_TOKENS_OUT_OF_RANGE),
    (lambda: (ALICE, sampled(temperature_milli=5_001)), RejectionReason.BAD_SAMPLING),
    (lambda: (ALICE, sampled(top_k=65)), RejectionReason.BAD_SAMPLING),
    (lambda: (ALICE, sampled(top_p_milli=1_001)), RejectionReason.BAD_SAMPLING),
    (lambda: (ALICE, sampled(min_tokens=5)), RejectionReason.BAD_SAMPLING),
    (lambda: (ALICE, sampled(logprob_ceiling_milli=20_001)), RejectionReason.BAD_SAMPLING),
    (lambda: (ALICE, sampled(stop=["a"] * 5)), RejectionReason.BAD_SAMPLING),
    (lambda: (ALICE, sampled(stop=[""])), RejectionReason.BAD_SAMPLING),
    (lambda: (ALICE, sampled(stop=["x" * 65])), RejectionReason.BAD_SAMPLING),
    (lambda: (ALICE, a_request(seed=b"short")), RejectionReason.BAD_SAMPLING),
    (lambda: (ALICE, changed(a_request(), answer_within_ms=999)), RejectionReason.BAD_DEADLINE),
    (lambda: (ALICE, changed(a_request(), answer_within_ms=600_001)), RejectionReason.BAD_DEADLINE),
    (lambda: (ALICE, changed(a_request(), tier=7)), RejectionReason.MALFORMED),
    (lambda: (ALICE, a_request(provider=b"short")), RejectionReason.BAD_ADDRESS),
    (lambda: (ALICE, a_request(provider=BOB)), RejectionReason.NO_OFFER),
    (
        lambda: (ALICE, a_request(max_price=least_price(a_request()) - 1)),
        RejectionReason.PRICE_TOO_LOW,
    ),
    (lambda: (ALICE, a_request(max_price=2 * FUNDS)), RejectionReason.INSUFFICIENT_BALANCE),
]


def another_model(**values: object) -> Message:
    return changed(a_registration(), model=tagged_hash(b"another"), **values)


def chat(*messages: inference.ChatMessage) -> Message:
    prompt = inference.InferenceInput(chat=inference.Chat(messages=messages))
    return changed(a_request(), input=prompt)


def token_ids(count: int) -> Message:
    ids = inference.TokenIds(ids=range(count))
    return changed(a_request(), input=inference.InferenceInput(token_ids=ids))


def sampled(**values: object) -> Message:
    sampling = inference.Sampling(max_output_tokens=4, **values)  # type: ignore[arg-type]
    return changed(a_request(), sampling=sampling)


@pytest.mark.parametrize(("build", "reason"), REFUSALS)
def test_what_cannot_be_done_is_refused_alike_on_admission_and_in_a_block(
    build: Callable[[], tuple[bytes, Message]], reason: RejectionReason
) -> None:
    world = World()
    world.open_market()
    sender, message = build()
    transaction = world.make(sender, message)
    with pytest.raises(Rejection) as caught:
        world.ledger.admit(transaction)
    assert caught.value.reason is reason
    world.waiting.append(transaction)
    receipt = receipt_of(world.block(), transaction)
    assert (receipt.accepted, receipt.reason) == (False, reason)
    assert list(world.ledger.open_jobs()) == []


@pytest.mark.parametrize(
    "build",
    [
        lambda: a_request(max_price=least_price(a_request())),
        lambda: a_request(text="x" * 512 * 16),
        lambda: a_request(max_output_tokens=511),
        lambda: token_ids(511),
        lambda: sampled(temperature_milli=5_000, top_k=64, top_p_milli=1_000, stop=["x" * 64] * 4),
        lambda: sampled(min_tokens=4, logprob_ceiling_milli=20_000),
        lambda: chat(inference.ChatMessage(role=inference.ROLE_USER, content="hello")),
        lambda: changed(a_request(), answer_within_ms=600_000, seed=bytes(32)),
    ],
)
def test_requests_at_the_limits_are_accepted(build: Callable[[], Message]) -> None:
    world = World()
    world.open_market()
    receipt = world.do(ALICE, build())
    assert (receipt.accepted, receipt.reason) == (True, "")


def test_without_an_offer_there_is_nothing_to_request() -> None:
    world = World()
    world.do(OWNER, a_registration())
    assert world.do(ALICE, a_request()).reason == RejectionReason.NO_OFFER


def test_a_withdrawn_offer_takes_no_jobs_and_frees_its_stake() -> None:
    world = World()
    world.open_market()
    world.do(PROVIDERS[0], an_offer(capacity=0))
    assert world.do(ALICE, a_request()).reason == RejectionReason.NO_OFFER
    unstake = pb.Unstake(amount=world.parameters.stake_min_per_offer)
    assert world.do(PROVIDERS[0], unstake).accepted


def test_offers_of_one_account_are_bounded_withdrawn_ones_included() -> None:
    world = World()
    stake = pb.Stake(amount=2 * world.parameters.stake_min_per_offer)
    assert world.do(PROVIDERS[0], stake).accepted

    def offer_for(model: bytes) -> TransactionReceipt:
        registration, offer = a_registration(), an_offer()
        registration.model = offer.model = model
        assert world.do(OWNER, registration).accepted
        receipt = world.do(PROVIDERS[0], offer)
        offer.capacity = 0
        world.do(PROVIDERS[0], offer)
        return receipt

    receipts = [offer_for(account(f"model {number}")) for number in range(OFFERS_MAX + 1)]
    assert all(receipt.accepted for receipt in receipts[:-1])
    assert receipts[-1].reason == RejectionReason.BAD_OFFER


def test_saying_again_that_one_verifies_does_not_restart_the_wait() -> None:
    world = World()
    world.open_market()
    before = everything(world.ledger)
    world.do(world.set.members[1].account, serving())
    after = everything(world.ledger)
    assert [row for row in before if row[0] == 5] == [row for row in after if row[0] == 5]
    assert set(world.ledger.verifiers(MODEL)) == {0, 1, 2, 3, 4}


def test_several_requests_in_one_transaction_are_several_jobs() -> None:
    world = World()
    world.open_market()
    receipt = world.do(ALICE, a_request(), a_request(), a_request())
    assert receipt.accepted
    assert len(list(world.ledger.open_jobs())) == 3
    assert sum(job.escrow for _, job in world.ledger.jobs()) == 3 * MAX_PRICE


def test_genesis_refuses_what_cannot_be() -> None:
    def genesis(accounts: dict[bytes, int], treasury: bytes = TREASURY) -> Ledger:
        return Ledger.from_genesis(CHAIN, Parameters(), validator_set(4), accounts, treasury)

    with pytest.raises(ValueError, match="not possible"):
        genesis({b"short": 1})
    with pytest.raises(ValueError, match="not possible"):
        genesis({ALICE: -1})
    with pytest.raises(ValueError, match="are issued"):
        genesis({ALICE: SUPPLY_MAX, BOB: 1})
    assert genesis({ALICE: SUPPLY_MAX - 1, BOB: 1}).supply().issued == SUPPLY_MAX
    with pytest.raises(ValueError, match="treasury"):
        genesis({ALICE: 1}, treasury=b"")
    one = genesis({ALICE: 1, BOB: 2})
    assert one.execution_root == genesis({BOB: 2, ALICE: 1}).execution_root
    assert one.execution_root != genesis({ALICE: 2, BOB: 1}).execution_root


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"committee_size": 1}, "reveal_quorum <= committee_size"),
        ({"escalated_committee_size": 32}, "escalated_committee_size <= 31"),
        ({"audit_delay_blocks": 0}, "later beacon"),
        ({"audit_delay_blocks": 257}, "later beacon"),
        ({"attempts_max": 9}, "attempts_max"),
        ({"commit_within_ms": 0}, "commit_within_ms"),
        ({"slash_bps": 10_001}, "slash_bps"),
        ({"treasury_bps": 9_000}, "whole price"),
        ({"answer_within_ms_default": 1}, "answer_within_ms_default"),
        ({"fee_per_byte": -1}, "fee_per_byte"),
    ],
)
def test_parameters_that_cannot_work_are_refused(changes: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Parameters(**changes)


def test_every_acceptable_parameter_set_can_be_encoded() -> None:
    longest = {name: DURATION_MS_MAX for name in Parameters.__dataclass_fields__ if "_ms" in name}
    parameters = Parameters(**longest, audit_delay_blocks=256)
    assert decode(Parameters, encode(parameters)) == parameters


ROOT_SCRIPT = """
from tests.chain.ledger_world import PASS_ALL, PROVIDERS, World
world = World(validators=6)
world.open_market(PROVIDERS)
job = world.request()
world.block()
world.answer(job)
world.vote(job, PASS_ALL)
print(world.job(job).status.name, world.ledger.execution_root.hex())
"""


def test_the_root_does_not_depend_on_pythons_hash_seed() -> None:
    """Sets and dictionaries of bytes change their order with it; nothing hashed may."""
    printed = {
        subprocess.run(
            [sys.executable, "-c", ROOT_SCRIPT],
            cwd=Path(__file__).parents[2],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
            timeout=240,
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(printed) == 1
    assert printed.pop().startswith("VERIFIED ")


def test_random_transfers_equal_a_plain_dictionary_of_balances() -> None:
    """A reference model in ten lines: what the ledger does, without tables, undo or blocks."""
    world = World(parameters=Parameters(fee_burn_bps=10_000))
    people = [ALICE, OWNER, *PROVIDERS, BOB]
    balances = {person: world.ledger.account(person).balance for person in people}
    dice = random.Random(7)
    for _ in range(30):
        for _ in range(20):
            sender, to = dice.choice(people), dice.choice(people)
            amount = dice.choice([1, GRAIN_PER_ASY, FUNDS // 2])
            transaction = world.send(sender, pb.Transfer(to=to, amount=amount))
            fee = fee_of(world.parameters, 1, transaction.body_bytes)
            if balances[sender] < fee:
                continue
            balances[sender] -= fee
            if balances[sender] >= amount:
                balances[sender] -= amount
                balances[to] += amount
        world.block()
    assert {person: world.ledger.account(person).balance for person in people} == balances


def test_a_final_job_leaves_the_state_after_the_governed_number_of_blocks() -> None:
    world = World(parameters=Parameters(job_rows_kept_blocks=3))
    world.open_market()
    first, second = world.request(), world.request()
    assert [key for key, _ in world.ledger.newest_jobs(9)] == [second, first]
    assert [key for key, _ in world.ledger.newest_jobs(1)] == [second]
    while world.job(first).status is not JobStatus.REFUNDED:
        world.block(after_ms=60_001)
    kept_until = world.job(first).final_height + 3
    while world.ledger.height < kept_until - 1:
        world.block()
        assert world.ledger.job(first) is not None
    again = restarted(world.ledger)
    context, lanes = world.next_block()
    outcome = world.ledger.execute(context, lanes)
    assert again.execute(context, lanes) == outcome
    assert world.ledger.job(first) is None
    assert (TableNumber.JOBS, first, None) in outcome.journal
    assert first not in dict(outcome.changed_jobs)
