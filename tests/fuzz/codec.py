"""The wire codec on every type that comes from others: refused, or written back unchanged.

An input is the number of a type and bytes. The types are those of peer messages, attestations,
evidence, the vote log and the ledger's records.
"""

import dataclasses
import enum
import typing
from collections.abc import Iterator
from random import Random
from typing import Annotated, Any

from chain.receipts import Receipt
from chain.records import JobReceipt, TransactionReceipt
from consensus.evidence import Evidence
from consensus.messages import Message, decode_message, encode_message
from consensus.values import Batch, Block, Certificate, JobCommit, JobReveal
from consensus.wire import Count, DecodeError, Exactly, Signed, Size, Unsigned, decode, encode
from tests.fuzz.harness import Target, mutated

TYPES: tuple[type[Any], ...] = (
    *typing.get_args(Message),
    *(Batch, Block, Certificate, JobCommit, JobReveal, Evidence),
    *(JobReceipt, TransactionReceipt, Receipt),
)
MESSAGES = frozenset(typing.get_args(Message))
COUNT_MAX = 3
SIZE_MAX = 20
FRAGMENTS = (b"\x00", b"\xff", bytes(4), b"\xff" * 4, b"\xff\xff\xff\x7f", bytes(32))


def inputs(source: Random) -> Iterator[bytes]:
    """Encodings of random values with a few edits. A value that its type refuses is left out."""
    while True:
        number = source.randrange(len(TYPES))
        try:
            encoded = encode(_value(source, TYPES[number]))
        except ValueError:
            encoded = source.randbytes(source.randrange(80))
        yield bytes([number]) + mutated(source, encoded, FRAGMENTS)


def check(data: bytes) -> None:
    """Decode as the named type, and as a peer message."""
    if not data:
        return
    kind, encoded = TYPES[data[0] % len(TYPES)], data[1:]
    try:
        value = decode(kind, encoded)
    except DecodeError:
        pass
    else:
        assert encode(value) == encoded
        if kind in MESSAGES:
            assert decode_message(encode_message(value)) == value
    try:
        message = decode_message(encoded)
    except DecodeError:
        pass
    else:
        assert encode_message(message) == encoded


def _value(source: Random, hint: Any) -> Any:
    """A random value of an annotated type, small where the bounds are large."""
    if typing.get_origin(hint) is Annotated:
        return _bounded(source, *typing.get_args(hint)[:2])
    if hint is bool:
        return source.randrange(2) == 1
    if isinstance(hint, type) and issubclass(hint, enum.IntEnum):
        return source.choice(list(hint))
    if dataclasses.is_dataclass(hint) or hasattr(hint, "_fields"):
        kind = typing.cast(Any, hint)
        hints = typing.get_type_hints(kind, include_extras=True)
        return kind(**{name: _value(source, part) for name, part in hints.items()})
    present = [part for part in typing.get_args(hint) if part is not type(None)]
    return _value(source, source.choice(present)) if source.randrange(4) else None


def _bounded(source: Random, base: Any, rule: Any) -> Any:
    if isinstance(rule, Unsigned | Signed):
        bits = 8 * rule.width - isinstance(rule, Signed)
        return source.choice((0, 1, 2, 3, (1 << bits) - 1, source.getrandbits(bits)))
    if isinstance(rule, Exactly):
        return source.randbytes(rule.size)
    if isinstance(rule, Size):
        length = source.randrange(min(rule.limit, SIZE_MAX) + 1)
        return "é" * (length // 2) if base is str else source.randbytes(length)
    if isinstance(rule, Count):
        inner = typing.get_args(base)[0]
        count = source.randrange(min(rule.limit, COUNT_MAX) + 1)
        return tuple(_value(source, inner) for _ in range(count))
    raise TypeError(f"{rule!r} is no rule of the wire codec")


TARGET = Target("codec", inputs, check)
