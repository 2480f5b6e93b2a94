"""From vLLM's tokens and floating-point log-probabilities to steps and a completion."""

import math

from runtime.detokenizer import EndRules, GrowingOutput, TokenBytes
from runtime.engine import Completion, Step
from runtime.sampling import LOGPROB_LOWEST, LOGPROB_UNITS_PER_NAT


def fixed_logprob(logprob: float) -> int:
    """In 2^-20 nats, as `runtime.sampling` rounds. Raises ValueError for what is no number."""
    if math.isnan(logprob):
        raise ValueError("a log-probability is not a number: the model's logits are not finite")
    lowest = LOGPROB_LOWEST / LOGPROB_UNITS_PER_NAT
    return min(math.floor(max(logprob, lowest) * LOGPROB_UNITS_PER_NAT + 0.5), 0)


class Output:
    """One output while it grows; ends by the rules of `runtime.detokenizer`."""

    def __init__(self, token_bytes: TokenBytes, rules: EndRules) -> None:
        self._output = GrowingOutput(token_bytes, rules)
        self._token_ids: list[int] = []
        self._logprobs: list[int] = []
        self._pieces: list[str] = []

    @property
    def ended(self) -> bool:
        """Whether a token ended it; later ones do not belong to it."""
        return self._output.ended

    def push(self, token_id: int, logprob: float) -> Step:
        """Add a token to an output that has not ended."""
        text = self._output.push(token_id)
        self._token_ids.append(token_id)
        self._logprobs.append(fixed_logprob(logprob))
        self._pieces.append(text)
        return Step(token_id, self._logprobs[-1], text)

    def completion(self, input_tokens: int, engine_profile: str) -> Completion:
        """The whole result of an output that has ended."""
        if not self.ended:
            raise ValueError("the output has not ended")
        self._pieces.append(self._output.finish())
        return Completion(
            tuple(self._token_ids),
            tuple(self._logprobs),
            self._output.finish_reason,
            input_tokens,
            "".join(self._pieces),
            engine_profile,
        )
