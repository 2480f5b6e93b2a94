"""Messages of the next epoch that come before this node is there.

Not all nodes see the end of an epoch at once. Who is a moment behind would otherwise drop the first
proposals and votes of the next one, and wait for them to be sent again.
"""

from collections.abc import Callable
from typing import Final

from consensus.messages import (
    Ack,
    AvailabilityProof,
    BatchMessage,
    Certificates,
    Message,
    Proposal,
)
from consensus.values import Vote

EARLY_BYTES_MAX: Final = 4 * 1024 * 1024
"""Of all peers."""
EARLY_BYTES_MAX_BY_PEER: Final = 512 * 1024


def epoch_of(message: Message) -> int | None:
    """The epoch that a message belongs to; None for what is not bound to one."""
    match message:
        case Proposal():
            return message.block.epoch
        case Vote() | Ack() | AvailabilityProof():
            return message.body.epoch
        case BatchMessage():
            return message.batch.header.epoch
        case Certificates():
            return message.items[0].body.epoch if message.items else None
        case _:
            return None


class Early:
    """What is kept until the next epoch begins; without room it is dropped, as by a lossy link."""

    def __init__(self) -> None:
        self._waiting: list[tuple[int, Message, int]] = []
        self._bytes: dict[int, int] = {}

    def keep(self, peer: int, message: Message, size_bytes: int) -> None:
        """Keep a message, if there is room."""
        of_peer = self._bytes.get(peer, 0) + size_bytes
        if of_peer > EARLY_BYTES_MAX_BY_PEER:
            return
        if sum(self._bytes.values()) + size_bytes > EARLY_BYTES_MAX:
            return
        self._bytes[peer] = of_peer
        self._waiting.append((peer, message, size_bytes))

    def release(self, put: Callable[[int, Message, int], None]) -> None:
        """Hand over all that is kept, in the order it came."""
        waiting, self._waiting = self._waiting, []
        self._bytes.clear()
        for peer, message, size_bytes in waiting:
            put(peer, message, size_bytes)
