"""What the reader of an answer already has, so that no failure tells a token twice or otherwise."""

from collections.abc import Sequence
from typing import TypeVar

from chain.dapp.events import Tokens

T = TypeVar("T", str, tuple[int, ...])


class AnswerChanged(Exception):
    """What comes now is not what was told."""


class Transcript:
    """The answer so far. A source tells it from the start; only what is new comes out."""

    def __init__(self) -> None:
        self._text = ""
        self._token_ids: tuple[int, ...] = ()
        self._logprobs: tuple[int, ...] = ()
        self.begin()

    def begin(self) -> None:
        """A source starts at the beginning."""
        self._seen_characters = 0
        self._seen_tokens = 0

    def clear(self) -> None:
        """Nothing has been told."""
        self._text, self._token_ids, self._logprobs = "", (), ()
        self.begin()

    def add(self, text: str, token_ids: Sequence[int], logprobs: Sequence[int]) -> Tokens | None:
        """The part of a source's next piece that was not told yet. Raises AnswerChanged."""
        new_text = _rest(self._text, self._seen_characters, text)
        new_ids = _rest(self._token_ids, self._seen_tokens, tuple(token_ids))
        new_logprobs = _rest(self._logprobs, self._seen_tokens, tuple(logprobs))
        self._seen_characters += len(text)
        self._seen_tokens += len(token_ids)
        if not new_text and not new_ids:
            return None
        self._text += new_text
        self._token_ids += new_ids
        self._logprobs += new_logprobs
        return Tokens(new_text, new_ids, new_logprobs)

    def complete(
        self, text: str, token_ids: Sequence[int], logprobs: Sequence[int]
    ) -> Tokens | None:
        """What is missing of the whole answer. Raises AnswerChanged."""
        if len(text) < len(self._text) or len(token_ids) < len(self._token_ids):
            raise AnswerChanged
        self.begin()
        return self.add(text, token_ids, logprobs)


def _rest(told: T, start: int, piece: T) -> T:
    """What of `piece`, which begins at `start`, lies beyond what was told."""
    known = told[start : start + len(piece)]
    if piece[: len(known)] != known:
        raise AnswerChanged
    return piece[len(known) :]
