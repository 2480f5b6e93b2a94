"""From output tokens to text, and to the reason why an output ends: pure functions of token ids
and rules.

The text of an output is the UTF-8 decoding of its tokens' bytes, wrong bytes replaced by U+FFFD,
up to where the first stop string begins. Special tokens stand for nothing. While tokens come in,
text is *certain* once no later token can change it: an unfinished character and a possible
beginning of a stop string are held back.

An output ends with the first token at which, in this order: it is an end token (STOP); the decoded
text holds a stop string (STOP_STRING); the limit of tokens is reached (LENGTH).
"""

import codecs
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from runtime.engine import FinishReason

TokenBytes = Callable[[int], bytes]


class TextStream:
    """The text of one output while it grows."""

    def __init__(self, token_bytes: TokenBytes, stop: Sequence[str]) -> None:
        self._token_bytes = token_bytes
        self._stop = tuple(stop)
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._pending = ""
        self.stopped = False
        """A stop string was found; nothing more comes out."""

    def push(self, token_id: int) -> str:
        """The text that becomes certain with this token."""
        if self.stopped:
            return ""
        self._pending += self._decoder.decode(self._token_bytes(token_id))
        found = [self._pending.find(text) for text in self._stop if text in self._pending]
        if found:
            self.stopped = True
            return self._take(min(found))
        return self._take(len(self._pending) - self._held_back())

    def finish(self) -> str:
        """The rest of the text when no more tokens come."""
        if self.stopped:
            return ""
        return self._take(len(self._pending)) + self._decoder.decode(b"", final=True)

    def _take(self, count: int) -> str:
        certain, self._pending = self._pending[:count], self._pending[count:]
        return certain

    def _held_back(self) -> int:
        """Length of the longest end of the pending text with which a stop string begins."""
        longest = min(max(map(len, self._stop), default=1) - 1, len(self._pending))
        for size in range(longest, 0, -1):
            if any(text.startswith(self._pending[-size:]) for text in self._stop):
                return size
        return 0


@dataclass(frozen=True, slots=True)
class Ending:
    """How an output ends by the rules."""

    tokens: int
    """Number of tokens up to and with the one that ends it, or all if none does."""
    finish_reason: FinishReason
    """UNSPECIFIED if no token ends it."""
    text: str


def ending_of(
    token_ids: Sequence[int],
    token_bytes: TokenBytes,
    stop: Sequence[str],
    end_token_ids: frozenset[int],
    limit: int,
) -> Ending:
    """Apply the rules to token ids within the vocabulary; `limit` is the most tokens there may
    be."""
    stream = TextStream(token_bytes, stop)
    pieces: list[str] = []
    for count, token_id in enumerate(token_ids, start=1):
        reason = FinishReason.UNSPECIFIED
        if token_id in end_token_ids:
            reason = FinishReason.STOP
        else:
            pieces.append(stream.push(token_id))
            if stream.stopped:
                reason = FinishReason.STOP_STRING
            elif count >= limit:
                reason = FinishReason.LENGTH
        if reason is not FinishReason.UNSPECIFIED:
            pieces.append(stream.finish())
            return Ending(count, reason, "".join(pieces))
    pieces.append(stream.finish())
    return Ending(len(token_ids), FinishReason.UNSPECIFIED, "".join(pieces))
