"""What a sender should offer as max_fee before the transaction's exact size is known."""

from collections.abc import Sequence

from assay.v1 import transactions_pb2
from chain.execution.block import fee_of
from chain.parameters import Parameters

ENVELOPE_BYTES_MAX = 160
"""Chain id, expiry, salt, max_fee and account of a body, and each field's tag and length."""
OPERATION_OVERHEAD_BYTES_MAX = 12


def fee_ceiling(parameters: Parameters, operations: Sequence[transactions_pb2.Op]) -> int:
    """At least the fee (grain) that a transaction of these operations will cost, a little more."""
    size = ENVELOPE_BYTES_MAX + sum(
        operation.ByteSize() + OPERATION_OVERHEAD_BYTES_MAX for operation in operations
    )
    return fee_of(parameters, len(operations), size)
