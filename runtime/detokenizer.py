"""From output tokens to text, and to the reason why an output ends: pure functions of token ids
and rules.

The text of an output is the UTF-8 decoding of its tokens' bytes, wrong bytes replaced by U+FFFD,
up to where the first stop string begins. Special tokens stand for nothing. While tokens come in,
text is *certain* once no later token can change it: an unfinished character and a possible
beginning of a stop string are held back.

An output ends with the first token at which, in this order: it is an end token (STOP); the decoded
text holds a stop string (STOP_STRING); the limit of tokens is reached (LENGTH).

With min_tokens, stop strings are looked for from the text on that this token of the output
completes: text before it is certain at once and takes no part in a stop string. No output holds an
end token while it has fewer tokens than that (`runtime.sampling` leaves them out), so a claim that
does ends there without a reason.
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

    def push(self, token_id: int, may_stop: bool = True) -> str:
        """The text that becomes certain with this token.

        Without `may_stop`, stop strings are not looked for yet; only first tokens may say so.
        """
        if self.stopped:
            return ""
        self._pending += self._decoder.decode(self._token_bytes(token_id))
        if not may_stop:
            return self._take(len(self._pending))
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
class EndRules:
    """What ends an output of one job."""

    stop: tuple[str, ...]
    end_token_ids: frozenset[int]
    limit: int
    """The most tokens there may be."""
    min_tokens: int = 0


class GrowingOutput:
    """One output while tokens come in: its text, and whether it has ended."""

    def __init__(self, token_bytes: TokenBytes, rules: EndRules) -> None:
        self._rules = rules
        self._stream = TextStream(token_bytes, rules.stop)
        self.tokens = 0
        self.finish_reason = FinishReason.UNSPECIFIED
        """UNSPECIFIED while no token has ended it."""

    @property
    def ended(self) -> bool:
        """Whether a token ended it; later ones do not belong to it."""
        return self.finish_reason is not FinishReason.UNSPECIFIED

    def forbids(self, token_id: int) -> bool:
        """Whether the next token can't be this one: an end token before min_tokens."""
        return self.tokens < self._rules.min_tokens and token_id in self._rules.end_token_ids

    def push(self, token_id: int) -> str:
        """Add a token that is allowed, to an output that has not ended; returns the text that
        becomes certain with it."""
        if self.ended:
            raise ValueError("a token after the end of the output")
        if self.forbids(token_id):
            raise ValueError(f"end token {token_id} before min_tokens {self._rules.min_tokens}")
        self.tokens += 1
        if token_id in self._rules.end_token_ids:
            self.finish_reason = FinishReason.STOP
            return ""
        text = self._stream.push(token_id, self.tokens >= self._rules.min_tokens)
        if self._stream.stopped:
            self.finish_reason = FinishReason.STOP_STRING
        elif self.tokens >= self._rules.limit:
            self.finish_reason = FinishReason.LENGTH
        return text

    def finish(self) -> str:
        """The rest of the text when no more tokens come."""
        return self._stream.finish()


@dataclass(frozen=True, slots=True)
class Ending:
    """How an output ends by the rules."""

    tokens: int
    """Number of tokens up to and with the one that ends it, or all if none does."""
    finish_reason: FinishReason
    """UNSPECIFIED if no token ends it, or one that may not stand there."""
    text: str


def ending_of(token_ids: Sequence[int], token_bytes: TokenBytes, rules: EndRules) -> Ending:
    """Apply the rules to token ids within the vocabulary."""
    output = GrowingOutput(token_bytes, rules)
    pieces: list[str] = []
    for token_id in token_ids:
        if output.forbids(token_id):
            pieces.append(output.finish())
            return Ending(output.tokens + 1, FinishReason.UNSPECIFIED, "".join(pieces))
        pieces.append(output.push(token_id))
        if output.ended:
            break
    pieces.append(output.finish())
    return Ending(output.tokens, output.finish_reason, "".join(pieces))
