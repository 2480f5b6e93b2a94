"""What a caller is told of each way to fail."""

import pytest

from chain.client import NodeUnavailableError
from chain.dapp.following import NotSettledInTime
from chain.gateway.errors import error_of
from chain.receipts import ReceiptFault, ReceiptInvalid

FAILURES = [
    (NodeUnavailableError("127.0.0.1:1"), 503, "NODE_UNAVAILABLE"),
    (NotSettledInTime("job ab is open"), 504, "NOT_SETTLED_IN_TIME"),
    (ReceiptInvalid(ReceiptFault.NO_QUORUM, "one signer"), 502, "BAD_RECEIPT"),
    (KeyError("a mistake of ours"), 500, "INTERNAL"),
]


@pytest.mark.parametrize(("failure", "status", "code"), FAILURES)
def test_a_failure_has_its_status_and_code_and_no_retry_buys_twice(
    failure: Exception, status: int, code: str
) -> None:
    told = error_of(failure, sent=True)
    error = told.body()["error"]
    assert (told.status, error["code"], error["type"]) == (status, code, "server_error")
    assert error["message"]
    assert told.headers()["x-should-retry"] == "false"


def test_a_node_that_was_not_reached_may_be_asked_again() -> None:
    headers = error_of(NodeUnavailableError("127.0.0.1:1"), sent=False).headers()
    assert (headers["x-should-retry"], headers["retry-after"]) == ("true", "5")


def test_a_mistake_of_the_gateways_own_is_not_told_to_strangers() -> None:
    assert "a mistake of ours" not in error_of(KeyError("a mistake of ours")).message
