"""Requests for what is missing: a short grace, then one peer after the other at the resend pace."""

from typing import Final

from consensus.context import Context
from consensus.messages import Message

REQUESTS_OPEN_MAX: Final = 512
"""Different things asked for at a time; the oldest is forgotten first."""
GRACE_SHARE: Final = 4
"""What is probably on its way is asked for after this part of a delta."""


class _Open:
    __slots__ = ("attempt", "due_ms")

    def __init__(self, due_ms: int) -> None:
        self.due_ms = due_ms
        self.attempt = 0


class Requests:
    """Open requests, by the message itself. What is not wanted again in a round is forgotten."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._open: dict[Message, _Open] = {}
        self._wanted: set[Message] = set()

    def begin_round(self) -> None:
        """Everything still missing is about to be wanted again."""
        self._wanted.clear()

    def end_round(self) -> None:
        """Forget what nobody wanted in this round."""
        for message in [message for message in self._open if message not in self._wanted]:
            del self._open[message]

    def want(self, message: Message, first: int, urgent: bool = False) -> None:
        """Ask `first`, then the other validators in turn, until it is not wanted any more."""
        context = self._context
        self._wanted.add(message)
        request = self._open.get(message)
        if request is None:
            if len(self._open) >= REQUESTS_OPEN_MAX:
                del self._open[next(iter(self._open))]
            grace_ms = 0 if urgent else context.resend_ms // GRACE_SHARE
            request = self._open[message] = _Open(context.now_ms + grace_ms)
        if context.now_ms < request.due_ms:
            return
        peers = context.validators.others(first, context.own_index)
        request.due_ms = context.now_ms + context.resend_ms
        if peers:
            context.send(peers[request.attempt % len(peers)], message)
            request.attempt += 1

    def wake_at_ms(self) -> int | None:
        """When the next request is due."""
        return min((request.due_ms for request in self._open.values()), default=None)
