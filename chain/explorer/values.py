"""Messages and records as the page reads them."""

from typing import Any, Final

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from chain.addresses import PUBLIC_KEY_BYTES, encode_address
from chain.readable import render
from chain.records import JobReceipt, TransactionReceipt, VerdictRecord

ACCOUNTS: Final = frozenset({"account", "owner", "provider", "requester"})
"""Fields that hold an account's key, whatever the message."""
_LONG: Final = frozenset(
    {FieldDescriptor.TYPE_UINT64, FieldDescriptor.TYPE_INT64, FieldDescriptor.TYPE_FIXED64}
)


def message_value(message: Message) -> dict[str, Any]:
    """A message by its schema's names; a message within that is not there is null."""
    value: dict[str, Any] = {}
    for field in message.DESCRIPTOR.fields:
        held = getattr(message, field.name)
        if field.is_repeated:
            value[field.name] = [_field_value(field, item) for item in held]
        elif field.message_type is not None and not message.HasField(field.name):
            value[field.name] = None
        else:
            value[field.name] = _field_value(field, held)
    return value


def _field_value(field: Any, held: Any) -> Any:
    if isinstance(held, Message):
        return message_value(held)
    if isinstance(held, bytes):
        return address_value(held) if field.name in ACCOUNTS else held.hex()
    if field.enum_type is not None:
        known = field.enum_type.values_by_number.get(held)
        return str(held) if known is None else known.name
    return str(held) if field.type in _LONG else held


def address_value(key: bytes | None) -> str | None:
    """`assay1…`, or None for nobody."""
    return encode_address(key) if key and len(key) == PUBLIC_KEY_BYTES else None


def transaction_value(receipt: TransactionReceipt, height: int) -> dict[str, Any]:
    """What became of a transaction."""
    return {
        "id": receipt.transaction.hex(),
        "height": height,
        "accepted": receipt.accepted,
        "reason": receipt.reason,
        "fee": str(receipt.fee),
    }


def ruling_value(receipt: JobReceipt) -> dict[str, Any]:
    """What the chain ruled about a job."""
    return {
        "job": receipt.job.hex(),
        "requester": address_value(receipt.requester),
        "model": receipt.model.hex(),
        "provider": address_value(receipt.provider),
        "status": receipt.status.name,
        "height": receipt.height,
        "seed": None if receipt.seed is None else receipt.seed.hex(),
        "input_tokens": receipt.input_tokens,
        "output_tokens": receipt.output_tokens,
        "verdicts": [_verdict_value(verdict) for verdict in receipt.verdicts],
        "payments": [
            {"account": address_value(payment.account), "amount": str(payment.amount)}
            for payment in receipt.payments
        ],
    }


def _verdict_value(verdict: VerdictRecord) -> dict[str, Any]:
    shown: dict[str, Any] = render(verdict)
    for name in ("scores", "thresholds"):
        shown[name] = {
            key: str(item) if key.endswith("_sum") else item for key, item in shown[name].items()
        }
    return shown
