"""Envelopes round operations that somebody else applies."""

import pytest

from assay.v1 import inference_pb2 as inference
from assay.v1 import transactions_pb2 as pb
from ext.bodies import JobLimits, parse_bodies
from ext.ledger import AccountTable, IdWindow
from ext.transactions import parse_batch
from ext.transfers import Envelopes, RunOutput, TransferRules

CHAIN = "assay-test"
HEIGHT = 100
FEE = 10 + 3
RICH, POOR, OWNER = bytes([1]) * 32, bytes([2]) * 32, bytes([3]) * 32
LIMITS = JobLimits(
    temperature_milli_max=1,
    top_k_max=1,
    top_p_milli_max=1,
    logprob_ceiling_milli_max=1,
    stop_strings_max=1,
    stop_bytes_max=1,
    messages_max=1,
    text_bytes_max=1,
    tier_max=1,
    role_max=1,
    finish_reason_max=1,
)
RULES = TransferRules(
    height=HEIGHT,
    window_blocks=8,
    fee_per_transaction=10,
    fee_per_operation=3,
    fee_per_byte=0,
    fee_burn_bps=5_000,
    accounts_max=1 << 30,
)


class Block:
    """One batch of requests, and an operation that is not parsed behind them."""

    def __init__(self, *senders: bytes, last: int = HEIGHT, lane_owner: bytes = OWNER) -> None:
        request = pb.RequestInference(
            model=bytes(32), input=inference.InferenceInput(text="why?"), max_price=1
        )
        operations = [pb.Op(request_inference=request)] * len(senders)
        operations.append(pb.Op(stake=pb.Stake(amount=1)))
        signed = [
            pb.SignedTx(
                body=pb.TxBody(
                    chain_id=CHAIN, valid_until_height=last, max_fee=50, ops=[operation]
                ).SerializeToString(),
                public_key=sender,
                signature=bytes(64),
            )
            for sender, operation in zip((*senders, RICH), operations, strict=True)
        ]
        batch = parse_batch(pb.BatchPayload(transactions=signed).SerializeToString())
        self.accounts = AccountTable(1)
        self.accounts.put(RICH, 100, 0, 0, 0)
        self.window = IdWindow(8)
        self.output = RunOutput()
        self.bodies = parse_bodies(batch, CHAIN.encode(), LIMITS)
        self.envelopes = Envelopes(
            self.accounts, self.window, self.bodies, RULES, lane_owner, self.output
        )

    def balance(self, key: bytes) -> int:
        return (self.accounts.get(key) or (0,))[0]


def test_a_fee_is_taken_first_and_the_receipt_and_the_id_come_last() -> None:
    block = Block(RICH)
    assert block.envelopes.charge(0) == FEE
    assert (block.balance(RICH), block.balance(OWNER), block.output.burned) == (87, 7, 6)
    assert (block.output.receipts, len(block.window)) == (0, 0)
    block.envelopes.conclude(0, FEE, "UNKNOWN_MODEL")
    leaves, _ = block.output.receipt_leaves()
    assert b"UNKNOWN_MODEL" in leaves
    assert block.window.locate(block.bodies.transaction_id(0)) == (HEIGHT, 0)


def test_a_fee_that_its_taker_cannot_hold_leaves_nothing_behind() -> None:
    block = Block(RICH)
    block.accounts.put(OWNER, (1 << 64) - 1, 0, 0, 0)
    with pytest.raises(OverflowError, match="transaction 0 brings a sum above 64 bits"):
        block.envelopes.charge(0)
    assert (block.balance(RICH), block.balance(OWNER)) == (100, (1 << 64) - 1)
    assert (block.output.burned, block.output.receipts, len(block.window)) == (0, 0, 0)


def test_who_cannot_pay_or_comes_too_late_has_a_receipt_and_no_id() -> None:
    for block, reason in (
        (Block(POOR), b"INSUFFICIENT_BALANCE"),
        (Block(RICH, last=HEIGHT - 1), b"EXPIRED"),
    ):
        assert block.envelopes.charge(0) is None
        assert reason in block.output.receipt_leaves()[0]
        assert (len(block.window), block.balance(RICH)) == (0, 100)


def test_a_replay_pays_nothing_and_has_no_second_receipt() -> None:
    block = Block(RICH, RICH)
    assert block.envelopes.charge(0) == FEE
    block.envelopes.conclude(0, FEE, "")
    assert block.envelopes.charge(1) is None
    assert (block.output.receipts, block.balance(RICH)) == (1, 100 - FEE)


def test_what_cannot_be_is_refused() -> None:
    block = Block(RICH)
    with pytest.raises(ValueError, match="body 1 is not parsed"):
        block.envelopes.charge(1)
    for index in (-1, 2):
        with pytest.raises(IndexError):
            block.envelopes.charge(index)
    with pytest.raises(ValueError, match="the reason has 65 bytes"):
        block.envelopes.conclude(0, FEE, "x" * 65)
    with pytest.raises(ValueError, match="the lane owner has 3 bytes"):
        Block(RICH, lane_owner=b"abc")
    block.window.add(bytes(32), HEIGHT + 1, 0)
    with pytest.raises(ValueError, match="the window takes no ids of height 100"):
        block.envelopes.charge(0)
    assert block.balance(RICH) == 100
