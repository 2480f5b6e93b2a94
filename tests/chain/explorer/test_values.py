"""What JavaScript reads of our messages is what they hold."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from assay.v1 import node_pb2, transactions_pb2
from chain.explorer.values import message_value

EXACT_MAX = (1 << 53) - 1
"""Beyond it JavaScript rounds a number."""
LONG = st.integers(0, (1 << 64) - 1)


def _numbers(value: Any) -> list[int]:
    if isinstance(value, dict):
        return [number for item in value.values() for number in _numbers(item)]
    if isinstance(value, list):
        return [number for item in value for number in _numbers(item)]
    return [value] if isinstance(value, int) else []


@given(LONG, LONG, st.binary(max_size=40), st.lists(st.integers(0, (1 << 32) - 1), max_size=3))
def test_no_number_of_a_message_is_rounded(
    price: int, escrow: int, key: bytes, heights: list[int]
) -> None:
    view = node_pb2.JobView(max_price=price, escrow=escrow, requester=key, job=key)
    for height in heights:
        view.committee.add(validator=height)
    value = json.loads(json.dumps(message_value(view)))
    assert (int(value["max_price"]), int(value["escrow"])) == (price, escrow)
    assert value["job"] == key.hex()
    assert [seat["validator"] for seat in value["committee"]] == heights
    assert all(abs(number) <= EXACT_MAX for number in _numbers(value))


def test_a_message_within_that_is_absent_is_null_and_a_younger_enumeration_its_number() -> None:
    value = message_value(transactions_pb2.RequestInference(tier=99))  # type: ignore[arg-type]
    assert (value["input"], value["tier"]) == (None, "99")
