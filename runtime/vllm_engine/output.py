"""From vLLM's tokens and floating-point log-probabilities to steps and a completion."""

import math
from collections.abc import Sequence

from runtime.detokenizer import TextStream, TokenBytes
from runtime.engine import Completion, FinishReason, Step
from runtime.sampling import LOGPROB_LOWEST, LOGPROB_UNITS_PER_NAT


def fixed_logprob(logprob: float) -> int:
    """In 2^-20 nats, as `runtime.sampling` rounds. Raises ValueError for what is no number."""
    if math.isnan(logprob):
        raise ValueError("a log-probability is not a number: the model's logits are not finite")
    lowest = LOGPROB_LOWEST / LOGPROB_UNITS_PER_NAT
    return min(math.floor(max(logprob, lowest) * LOGPROB_UNITS_PER_NAT + 0.5), 0)


class Output:
    """One output while it grows; ends by the rules of `runtime.detokenizer`."""

    def __init__(
        self,
        token_bytes: TokenBytes,
        stop: Sequence[str],
        end_token_ids: frozenset[int],
        limit: int,
    ) -> None:
        self._stream = TextStream(token_bytes, stop)
        self._end_token_ids = end_token_ids
        self._limit = limit
        self._token_ids: list[int] = []
        self._logprobs: list[int] = []
        self._pieces: list[str] = []
        self._finish = FinishReason.UNSPECIFIED

    @property
    def ended(self) -> bool:
        """Whether a token ended it; later ones do not belong to it."""
        return self._finish is not FinishReason.UNSPECIFIED

    def push(self, token_id: int, logprob: float) -> Step:
        """Add a token to an output that has not ended."""
        if self.ended:
            raise ValueError("a token after the end of the output")
        self._token_ids.append(token_id)
        self._logprobs.append(fixed_logprob(logprob))
        text = ""
        if token_id in self._end_token_ids:
            self._finish = FinishReason.STOP
        else:
            text = self._stream.push(token_id)
            if self._stream.stopped:
                self._finish = FinishReason.STOP_STRING
            elif len(self._token_ids) >= self._limit:
                self._finish = FinishReason.LENGTH
        self._pieces.append(text)
        return Step(token_id, self._logprobs[-1], text)

    def completion(self, input_tokens: int, engine_profile: str) -> Completion:
        """The whole result of an output that has ended."""
        if not self.ended:
            raise ValueError("the output has not ended")
        self._pieces.append(self._stream.finish())
        return Completion(
            tuple(self._token_ids),
            tuple(self._logprobs),
            self._finish,
            input_tokens,
            "".join(self._pieces),
            engine_profile,
        )
