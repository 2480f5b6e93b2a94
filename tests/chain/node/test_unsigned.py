"""What nobody signed is not read: it is refused for its signature, and for no other reason than
another chain's name."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay.v1 import node_pb2, transactions_pb2
from chain import transactions
from chain.node import ingress
from chain.node.ingress import check_request
from chain.rejections import Rejection, RejectionReason
from chain.transactions import check_signed, make_operation, sign_transaction, unsigned
from tests.builders import key

CHAIN_ID = "chain"
STAKE = make_operation(transactions_pb2.Stake(amount=1))
"""No plain transfer: only Python can read it."""


def a_stake(salt: int, chain_id: str = CHAIN_ID) -> transactions_pb2.SignedTx:
    return sign_transaction(key("alice").signing_key, chain_id, [STAKE], 9, 9, salt)


def forged(signed: transactions_pb2.SignedTx) -> transactions_pb2.SignedTx:
    return transactions_pb2.SignedTx(
        body=signed.body, public_key=signed.public_key, signature=bytes(64)
    )


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The bodies that were decoded."""
    bodies: list[bytes] = []
    decode = transactions.decode_transaction

    def noted(chain_id: str, body: bytes, public_key: bytes) -> Any:
        bodies.append(body)
        return decode(chain_id, body, public_key)

    monkeypatch.setattr(transactions, "decode_transaction", noted)
    monkeypatch.setattr(ingress, "decode_transaction", noted)
    return bodies


def test_of_a_request_only_what_is_rightly_signed_is_read(read: list[bytes]) -> None:
    sent = [a_stake(1), forged(a_stake(2)), a_stake(3), forged(a_stake(4, "elsewhere"))]
    request = node_pb2.SubmitManyRequest(transactions=sent).SerializeToString()
    checked = check_request(CHAIN_ID, request, len(request))
    assert read == [sent[0].body, sent[2].body]
    assert set(checked.others) == {0, 2}
    assert {place: refused.reason for place, refused in checked.refused.items()} == {
        1: RejectionReason.BAD_SIGNATURE,
        3: RejectionReason.WRONG_CHAIN,
    }


def test_a_single_one_is_not_read_either(read: list[bytes]) -> None:
    signed = forged(a_stake(1))
    with pytest.raises(Rejection) as caught:
        check_signed(CHAIN_ID, signed.body, signed.public_key, signed.signature)
    assert caught.value.reason is RejectionReason.BAD_SIGNATURE
    assert read == []


def test_what_is_signed_for_another_chain_is_told_so() -> None:
    signed = a_stake(1, "elsewhere")
    with pytest.raises(Rejection) as caught:
        check_signed(CHAIN_ID, signed.body, signed.public_key, signed.signature)
    assert str(caught.value) == "WRONG_CHAIN: signed for chain 'elsewhere', this is 'chain'"


@given(st.binary(max_size=300))
def test_any_bytes_are_refused_for_one_of_the_two(body: bytes) -> None:
    reason = unsigned(CHAIN_ID, body).reason
    assert reason in {RejectionReason.BAD_SIGNATURE, RejectionReason.WRONG_CHAIN}
    mine = transactions_pb2.TxBody(chain_id=CHAIN_ID).SerializeToString()
    assert unsigned(CHAIN_ID, mine + body).reason is RejectionReason.BAD_SIGNATURE
