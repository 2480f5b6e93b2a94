"""What happened in a world, line by line: the same seed gives the same bytes."""

import hashlib
from typing import TextIO

from consensus.messages import Message
from consensus.values import Block, Certificate, Tip, VoteBody
from ext.hashing import sha256

SHOWN_DIGEST_BYTES = 4


class Trace:
    """A running digest of everything said; also written out, if there is a sink."""

    def __init__(self, sink: TextIO | None = None) -> None:
        self._digest = hashlib.sha256()
        self._sink = sink

    def note(
        self, now_ms: int, machine: int, what: str, data: bytes, message: Message | None = None
    ) -> None:
        """Add a line: virtual time, machine, what it did, and with which bytes."""
        self._digest.update(f"{now_ms} {machine} {what} {len(data)} ".encode())
        self._digest.update(data)
        if self._sink is not None:
            shown = describe(message) if message is not None else data[:8].hex()
            short = sha256(data)[:SHOWN_DIGEST_BYTES].hex()
            self._sink.write(f"{now_ms} {machine} {what} {len(data)} {short} {shown}\n")

    def hexdigest(self) -> str:
        """The digest so far."""
        return self._digest.hexdigest()


def describe(value: object) -> str:
    """A message in few words."""
    if isinstance(value, VoteBody):
        return f"{value.kind.name} view {value.view} {_short(value.digest)}"
    if isinstance(value, Certificate):
        return f"{describe(value.body)} by {','.join(map(str, value.signers))}"
    if isinstance(value, Tip):
        return f"{value.lane}:{value.sequence} {_short(value.digest)}"
    if isinstance(value, Block):
        cut = " ".join(f"{tip.lane}:{tip.sequence}" for tip in value.cut)
        return (
            f"view {value.view} height {value.height} on {value.parent_view} "
            f"{_short(value.digest())} cut [{cut}]"
        )
    name = type(value).__name__
    for field in ("body", "block", "tip", "header", "batch"):
        part = getattr(value, field, None)
        if part is not None:
            return f"{name} {describe(part)}"
    for field in ("items", "blocks"):
        parts = getattr(value, field, None)
        if parts is not None:
            return f"{name} {'; '.join(map(describe, parts))}"
    return f"{name} {_plain(value)}"


def _plain(value: object) -> str:
    """Numbers of a value, by name."""
    names = getattr(type(value), "__slots__", ())
    numbers = [(name, getattr(value, name)) for name in names]
    return " ".join(f"{name} {number}" for name, number in numbers if isinstance(number, int))


def _short(digest: bytes) -> str:
    return digest[:SHOWN_DIGEST_BYTES].hex()
