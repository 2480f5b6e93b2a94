"""Runs of transfers against a small Python model of the same rules, leaf for leaf."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from assay.v1 import transactions_pb2 as pb
from chain.events import Event, EventKind
from chain.records import TransactionReceipt
from chain.rejections import RejectionReason
from ext import merkle
from ext.bodies import PLAIN, Bodies, parse_bodies
from ext.ledger import AccountTable, IdWindow, TableFullError
from ext.transactions import parse_batch
from ext.transfers import RunOutput, TransferRules, run

CHAIN = "assay-test"
HEIGHT = 1_000
WINDOW_BLOCKS = 256
BASIS_POINTS = 10_000
U64_MAX = (1 << 64) - 1
KEYS = [bytes([number]) * 32 for number in range(1, 8)]
OWNER = KEYS[0]

Amounts = tuple[int, int, int, int]


@dataclass
class Fees:
    """What the chain's parameters say of fees."""

    per_transaction: int = 10
    per_operation: int = 3
    per_byte: int = 0
    burn_bps: int = 5_000
    accounts_max: int = 1 << 30

    def rules(self, height: int = HEIGHT) -> TransferRules:
        return TransferRules(
            height=height,
            window_blocks=WINDOW_BLOCKS,
            fee_per_transaction=self.per_transaction,
            fee_per_operation=self.per_operation,
            fee_per_byte=self.per_byte,
            fee_burn_bps=self.burn_bps,
            accounts_max=self.accounts_max,
        )


class Refused(Exception):
    """A rule of the model was broken."""


@dataclass
class Model:
    """The rules in plain Python, over a dictionary in order of first appearance."""

    fees: Fees
    owner: bytes = OWNER
    rows: dict[bytes, Amounts] = field(default_factory=dict)
    included: dict[bytes, int] = field(default_factory=dict)
    receipts: list[bytes] = field(default_factory=list)
    events: list[bytes] = field(default_factory=list)
    burned: int = 0

    def balance(self, key: bytes) -> int:
        return self.rows.get(key, (0, 0, 0, 0))[0]

    def set_balance(self, key: bytes, balance: int) -> None:
        _, stake, unbonding, until = self.rows.get(key, (0, 0, 0, 0))
        empty = balance == stake == unbonding == 0
        if key in self.rows or not empty:
            self.rows[key] = (balance, stake, unbonding, 0 if empty else until)

    def debit(self, key: bytes, amount: int) -> None:
        if self.balance(key) < amount:
            raise Refused(RejectionReason.INSUFFICIENT_BALANCE)
        self.set_balance(key, self.balance(key) - amount)

    def credit(self, key: bytes, amount: int) -> None:
        if amount:
            self.set_balance(key, self.balance(key) + amount)

    def receipt(self, id: bytes, reason: str, fee: int) -> None:
        self.receipts.append(TransactionReceipt(id, not reason, reason, fee).leaf())

    def execute(self, id: bytes, sender: bytes, body: pb.TxBody) -> None:
        size = len(body.SerializeToString(deterministic=True))
        fee = self.fees.per_transaction + self.fees.per_operation * len(body.ops)
        fee += self.fees.per_byte * size
        try:
            if body.valid_until_height < HEIGHT:
                raise Refused(RejectionReason.EXPIRED)
            if body.valid_until_height > HEIGHT + WINDOW_BLOCKS:
                raise Refused(RejectionReason.TOO_FAR_AHEAD)
            if id in self.included:
                return
            if body.max_fee < fee:
                raise Refused(RejectionReason.FEE_TOO_LOW)
            self.debit(sender, fee)
        except Refused as refused:
            self.receipt(id, refused.args[0], 0)
            return
        burned = fee * self.fees.burn_bps // BASIS_POINTS
        self.burned += burned
        self.credit(self.owner, fee - burned)
        self.included[id] = len(self.receipts)
        rows, events, reason = dict(self.rows), len(self.events), ""
        try:
            for operation in body.ops:
                self.transfer(sender, operation.transfer)
            if len(self.rows) > max(self.fees.accounts_max, len(rows)):
                raise Refused(RejectionReason.STATE_FULL)
        except Refused as refused:
            self.rows, reason = rows, refused.args[0]
            del self.events[events:]
        self.receipt(id, reason, fee)

    def transfer(self, sender: bytes, message: pb.Transfer) -> None:
        if message.amount == 0:
            raise Refused(RejectionReason.AMOUNT_ZERO)
        self.debit(sender, message.amount)
        self.credit(message.to, message.amount)
        kind = EventKind.TRANSFERRED
        self.events.append(Event(kind, sender, message.to, message.amount).leaf())


class Native:
    """The tables under test, in one place."""

    def __init__(self, rows: dict[bytes, Amounts], fees: Fees, owner: bytes = OWNER) -> None:
        self.accounts = AccountTable(1)
        for key, amounts in rows.items():
            self.accounts.put(key, *amounts)
        self.accounts.commit()
        self.window = IdWindow(WINDOW_BLOCKS)
        self.output = RunOutput()
        self.rules = fees.rules()
        self.owner = owner

    def run(self, bodies: Bodies, start: int, stop: int) -> int:
        return run(
            self.accounts,
            self.window,
            bodies,
            start,
            stop,
            self.rules,
            self.owner,
            self.output,
        )

    def rows(self) -> list[tuple[bytes, int, int, int, int]]:
        return [self.accounts.row(number) for number in range(len(self.accounts))]


def unpack(packed: tuple[bytes, bytes]) -> list[bytes]:
    data, ends = packed
    places = [0, *(int.from_bytes(ends[at : at + 4], "little") for at in range(0, len(ends), 4))]
    return [data[start:end] for start, end in pairwise(places)]


def assert_equal(native: Native, model: Model) -> None:
    assert native.rows() == [(key, *amounts) for key, amounts in model.rows.items()]
    assert unpack(native.output.receipt_leaves()) == model.receipts
    assert unpack(native.output.event_leaves()) == model.events
    assert native.output.receipts == len(model.receipts)
    assert native.output.events == len(model.events)
    for leaves, root in (
        (model.receipts, native.output.receipts_root()),
        (model.events, native.output.events_root()),
    ):
        assert root == merkle.root([merkle.leaf_hash(leaf) for leaf in leaves])
    assert native.output.burned == model.burned
    assert native.window.ids_at(HEIGHT) == b"".join(model.included)
    assert {id: native.window.locate(id) for id in model.included} == {
        id: (HEIGHT, leaf) for id, leaf in model.included.items()
    }


Signed = tuple[bytes, pb.TxBody]


def batch_of(transactions: Sequence[Signed]) -> Bodies:
    payload = pb.BatchPayload(
        transactions=[
            pb.SignedTx(
                body=body.SerializeToString(deterministic=True),
                public_key=sender,
                signature=bytes(64),
            )
            for sender, body in transactions
        ]
    )
    return parse_bodies(parse_batch(payload.SerializeToString()), CHAIN.encode())


def body_of(
    *transfers: tuple[bytes, int],
    valid_until_height: int = HEIGHT,
    max_fee: int = 1_000_000,
    salt: int = 1,
) -> pb.TxBody:
    return pb.TxBody(
        chain_id=CHAIN,
        valid_until_height=valid_until_height,
        salt=salt,
        max_fee=max_fee,
        ops=[pb.Op(transfer=pb.Transfer(to=to, amount=amount)) for to, amount in transfers],
    )


def stake_of(amount: int) -> pb.TxBody:
    """A body that is not for a run."""
    return pb.TxBody(chain_id=CHAIN, ops=[pb.Op(stake=pb.Stake(amount=amount))])


def execute_both(
    rows: dict[bytes, Amounts],
    transactions: Sequence[Signed],
    fees: Fees | None = None,
    owner: bytes = OWNER,
    cuts: Sequence[int] = (),
) -> tuple[Native, Model]:
    """Run a batch both ways, in pieces that end at `cuts`; Python steps in where it must."""
    fees = fees or Fees()
    native, model = Native(rows, fees, owner), Model(fees, owner, dict(rows))
    bodies = batch_of(transactions)
    at = 0
    while at < len(bodies):
        stop = min((cut for cut in cuts if at < cut < len(bodies)), default=len(bodies))
        reached = native.run(bodies, at, stop)
        for index in range(at, reached):
            sender, body = transactions[index]
            model.execute(bodies.batch.transaction(index).id, sender, body)
        at = reached
        if at < len(bodies) and bodies.classes[at] != PLAIN:
            leaf = b"from Python %d" % at
            assert native.output.append_receipt(leaf) == len(model.receipts)
            assert native.output.append_event(leaf) == len(model.events)
            model.receipts.append(leaf)
            model.events.append(leaf)
            at += 1
    assert_equal(native, model)
    return native, model


small = st.integers(0, 60)
keys = st.sampled_from(KEYS)
bodies_drawn = st.builds(
    lambda transfers, height, max_fee, salt: body_of(
        *transfers, valid_until_height=height, max_fee=max_fee, salt=salt
    ),
    st.lists(st.tuples(keys, small), min_size=1, max_size=4),
    st.sampled_from([HEIGHT] * 6 + [HEIGHT - 1, HEIGHT + 256, HEIGHT + 257, 0, U64_MAX]),
    st.sampled_from([10**9] * 6 + [0, 12, 13, 16]),
    st.integers(0, 2),
)
drawn = st.tuples(keys, st.one_of(*[bodies_drawn] * 8, st.just(stake_of(1))))
fees_drawn = st.builds(
    Fees,
    st.sampled_from([0, 1, 10]),
    st.sampled_from([0, 3]),
    st.sampled_from([0, 0, 1]),
    st.sampled_from([0, 1, 3_333, 5_000, 9_999, 10_000]),
    st.sampled_from([0, 1, 3, 4, 5, 6, 1 << 30]),
)
tables = st.dictionaries(
    keys,
    st.tuples(st.integers(1, 400), st.integers(0, 2), st.integers(0, 1), st.integers(0, 1)),
    max_size=6,
)


@settings(max_examples=300, deadline=None)
@given(tables, st.lists(drawn, max_size=60), fees_drawn, keys, st.lists(st.integers(0, 60)))
def test_a_run_is_the_model_leaf_for_leaf(
    rows: dict[bytes, Amounts],
    transactions: list[Signed],
    fees: Fees,
    owner: bytes,
    cuts: list[int],
) -> None:
    execute_both(rows, transactions, fees, owner, cuts)


@pytest.mark.parametrize("sender", [KEYS[1], OWNER])
@pytest.mark.parametrize("receiver", [KEYS[1], KEYS[2], OWNER])
@pytest.mark.parametrize("amount", [0, 1, 87, 88, 100, 101])
def test_whoever_sends_to_whomever_the_sum_is_right(
    sender: bytes, receiver: bytes, amount: int
) -> None:
    """Self-transfers, and a lane owner who sends or receives, at the edges of the balance."""
    native, model = execute_both(
        {KEYS[1]: (100, 0, 0, 0), OWNER: (100, 5, 0, 0)}, [(sender, body_of((receiver, amount)))]
    )
    assert sum(amounts[0] for amounts in model.rows.values()) + native.output.burned == 200


def test_each_refusal_has_its_receipt_and_a_replay_has_none() -> None:
    spent = body_of((KEYS[2], 10))
    _, model = execute_both(
        {KEYS[1]: (1_000, 0, 0, 0), KEYS[3]: (12, 0, 0, 0)},
        [
            (KEYS[1], spent),
            (KEYS[1], spent),
            (KEYS[1], body_of((KEYS[2], 1), valid_until_height=HEIGHT - 1)),
            (KEYS[1], body_of((KEYS[2], 1), valid_until_height=HEIGHT + 257)),
            (KEYS[1], body_of((KEYS[2], 1), max_fee=12)),
            (KEYS[3], body_of((KEYS[2], 1))),
            (KEYS[4], body_of((KEYS[2], 1))),
            (KEYS[1], body_of((KEYS[2], 1), (KEYS[5], 10_000))),
            (KEYS[1], body_of((KEYS[2], 1), (KEYS[2], 0))),
        ],
    )
    reasons = [leaf[38 : 38 + leaf[34]].decode() for leaf in model.receipts]
    assert reasons == [
        "",
        "EXPIRED",
        "TOO_FAR_AHEAD",
        "FEE_TOO_LOW",
        "INSUFFICIENT_BALANCE",
        "INSUFFICIENT_BALANCE",
        "INSUFFICIENT_BALANCE",
        "AMOUNT_ZERO",
    ]
    assert len(model.included) == 3
    assert KEYS[5] not in model.rows


def test_an_id_of_an_earlier_block_is_a_replay() -> None:
    native = Native({KEYS[1]: (1_000, 0, 0, 0)}, Fees())
    bodies = batch_of([(KEYS[1], body_of((KEYS[2], 10)))])
    native.window.add(bodies.batch.transaction(0).id, HEIGHT - 5, 3)
    assert native.run(bodies, 0, 1) == 1
    assert (native.output.receipts, native.accounts.commit()) == (0, b"")


def test_an_account_emptied_while_unbonding_time_stands_is_a_row_of_zeros() -> None:
    native, _ = execute_both({KEYS[1]: (14, 0, 0, 77)}, [(KEYS[1], body_of((KEYS[2], 1)))])
    assert native.accounts.get(KEYS[1]) == (0, 0, 0, 0)


def test_fees_beyond_64_bits_are_too_low_and_not_wrapped() -> None:
    huge = Fees(per_transaction=U64_MAX, per_operation=U64_MAX, per_byte=U64_MAX)
    _, model = execute_both(
        {KEYS[1]: (U64_MAX, 0, 0, 0)}, [(KEYS[1], body_of((KEYS[2], 1), max_fee=U64_MAX))], huge
    )
    assert b"FEE_TOO_LOW" in model.receipts[0]
    whole = Fees(per_transaction=U64_MAX, per_operation=0, burn_bps=9_999)
    _, model = execute_both(
        {KEYS[1]: (U64_MAX, 0, 0, 0)}, [(KEYS[1], body_of((KEYS[2], 1), max_fee=U64_MAX))], whole
    )
    assert model.burned == U64_MAX * 9_999 // 10_000


def test_a_sum_beyond_64_bits_stops_the_run_and_leaves_nothing_of_its_transaction() -> None:
    rows = {
        KEYS[1]: (100, 0, 0, 0),
        KEYS[2]: (100, 0, 0, 0),
        KEYS[3]: (U64_MAX, 0, 0, 0),
        OWNER: (0, 1, 0, 0),
    }
    native, model = Native(rows, Fees()), Model(Fees(), OWNER, dict(rows))
    transactions = [
        (KEYS[1], body_of((KEYS[2], 5))),
        (KEYS[2], body_of((KEYS[4], 1), (KEYS[3], 1))),
    ]
    bodies = batch_of(transactions)
    with pytest.raises(OverflowError, match="transaction 1 brings a sum above 64 bits"):
        native.run(bodies, 0, 2)
    model.execute(bodies.batch.transaction(0).id, *transactions[0])
    assert_equal(native, model)


def test_a_full_table_stops_the_run_and_leaves_nothing_of_its_transaction() -> None:
    native = Native({}, Fees())
    native.accounts = AccountTable(1, rows_max=3)
    for key in (OWNER, KEYS[1], KEYS[2]):
        native.accounts.put(key, 100, 0, 0, 0)
    native.accounts.commit()
    bodies = batch_of(
        [(KEYS[1], body_of((KEYS[2], 5))), (KEYS[2], body_of((KEYS[1], 5), (KEYS[3], 1)))]
    )
    with pytest.raises(TableFullError, match="transaction 1 needs a row more"):
        native.run(bodies, 0, 2)
    assert native.rows() == [
        (OWNER, 107, 0, 0, 0),
        (KEYS[1], 82, 0, 0, 0),
        (KEYS[2], 105, 0, 0, 0),
    ]
    assert (native.output.receipts, native.output.events, native.output.burned) == (1, 1, 6)


def test_256_operations_and_many_transactions_in_one_run() -> None:
    many = [(KEYS[2 + number % 5], 1 + number % 3) for number in range(256)]
    transactions = [(KEYS[1], body_of(*many, salt=salt)) for salt in range(3)]
    transactions += [
        (KEYS[1 + number % 6], body_of((number.to_bytes(32, "big"), number % 4), salt=number))
        for number in range(500)
    ]
    execute_both({key: (5_000, 0, 0, 0) for key in KEYS}, transactions)


def test_a_rolled_back_run_can_be_run_again() -> None:
    """What execution does when it only tries."""
    bodies = batch_of([(KEYS[1], body_of((KEYS[2], 10), (KEYS[3], 10)))])
    native = Native({KEYS[1]: (100, 0, 0, 0)}, Fees())
    before = native.accounts.root
    savepoint = native.accounts.savepoint()
    native.run(bodies, 0, 1)
    native.accounts.rollback(savepoint)
    assert native.rows() == [(KEYS[1], 100, 0, 0, 0)]
    assert (native.accounts.commit(), native.accounts.root) == (b"", before)


@given(st.lists(st.binary(max_size=90), max_size=30), st.data())
@example([b"", b"", b"x"], None)
def test_events_can_be_taken_back_and_leaves_stay_in_order(
    leaves: list[bytes], data: st.DataObject | None
) -> None:
    output = RunOutput()
    for place, leaf in enumerate(leaves):
        assert output.append_event(leaf) == place
    kept = data.draw(st.integers(0, len(leaves))) if data is not None else 2
    output.truncate_events(kept)
    output.append_event(b"after")
    assert unpack(output.event_leaves()) == [*leaves[:kept], b"after"]
    assert output.events_root() == merkle.packed_root(*output.event_leaves())
    assert output.receipts_root() == merkle.root([])
    for count in (-1, kept + 2):
        with pytest.raises(ValueError, match="cannot be kept"):
            output.truncate_events(count)


def test_what_is_no_range_no_owner_and_no_rule_is_an_error() -> None:
    native = Native({}, Fees())
    bodies = batch_of([(KEYS[1], body_of((KEYS[2], 1)))])
    for start, stop in ((-1, 1), (0, 2), (1, 0)):
        with pytest.raises(IndexError, match="not in a batch of 1"):
            native.run(bodies, start, stop)
    assert native.run(bodies, 1, 1) == 1
    native.owner = bytes(31)
    with pytest.raises(ValueError, match="lane owner has 31 bytes"):
        native.run(bodies, 0, 1)
    native.owner = OWNER
    native.window.add(bytes(32), HEIGHT + 1, 0)
    with pytest.raises(ValueError, match="takes no ids of height 1000"):
        native.run(bodies, 0, 1)
    with pytest.raises(ValueError, match="at most 10000"):
        Fees(burn_bps=10_001).rules()
    for value in (-1, 1 << 64):
        with pytest.raises(OverflowError):
            Fees().rules(height=value)
